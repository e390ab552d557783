"""The page about models of other libraries: its program runs, its pipelines name what there is."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
import yaml

import genxai_core as gx
from genxai_core import parameters
from genxai_core.errors import RegistryError

for library in ("diffusers", "torchvision", "transformers"):
    pytest.importorskip(library)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "zoo-adapters.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside this distribution")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_program_on_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    try:
        gx.resolve("explainer/saliency")
    except RegistryError:
        pytest.skip("explainer/saliency, with which the page explains, is not installed")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = {}
    exec(compile("\n".join(blocks("python")), PAGE.name, "exec"), names)
    assert names["codes"].shape == (4, 4, 16, 16)
    assert names["samples"].images.shape == (2, 1, 16, 16)
    assert names["maps"].maps.shape[0] == 4


def test_every_yaml_block_has_parameters_that_exist():
    shown = [yaml.safe_load(block) for block in blocks("yaml")]
    steps = [step for block in shown for step in block.get("steps", block).values()]
    mine = {
        step["use"]: step["with"] for step in steps if "folder" in step.get("with", {}) or "torchvision" in step["use"]
    }
    assert mine.keys() == {
        "discriminator/torchvision",
        "discriminator/transformers",
        "generator/diffusers",
        "generator/diffusers-vae",
    }
    for name, given in mine.items():
        assert given.keys() <= {p.name for p in parameters.of(gx.resolve(name))}, name
