"""What the page on counterfactuals and their attributions shows runs, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genxai_core import parameters, registry
from genxai_core.errors import RegistryError

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "ganmex-attribution.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside this distribution")


def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'^```python title="from Python"\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for name in ("dataset/digits", "discriminator/classifier", "explainer/integrated-gradients"):
        try:
            registry.resolve(name)
        except RegistryError as error:
            pytest.skip(str(error))
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
    assert (tmp_path / "why-not.png").stat().st_size > 10_000


def test_it_names_every_parameter():
    text = PAGE.read_text()
    for name in ("explainer/counterfactual", "explainer/ganmex-attribution", "metric/baseline-quality"):
        for parameter in parameters.of(registry.resolve(name)):
            assert f"`{parameter.name}`" in text, f"{name}: {parameter.name}"
