"""What the page on labels shows is run, and its pipelines can be planned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml
from genxai_correction import commands

import genxai_core as gx
from genxai_core import parameters, pipeline, safe_yaml
from genxai_core.errors import RegistryError
from genxai_core.pipeline import schema

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "correction-labels.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside this distribution")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def along():
    for name in ("generator/dcgan", "dataset/scenes", "dataset/generated"):
        try:
            gx.resolve(name)
        except RegistryError:
            pytest.skip(f"{name}, which the page uses, is not installed")


@pytest.mark.usefixtures("along")
def test_the_program_runs_from_top_to_bottom(capsys):
    names = {}
    exec(compile("\n".join(blocks("python")), PAGE.name, "exec"), names)
    assert "AUC" in capsys.readouterr().out
    assert names["judge"].class_names == ("normal", "artifact")
    assert len(names["scores"]) == 100


@pytest.mark.usefixtures("along")
def test_the_pipeline_can_be_planned():
    (whole,) = (block for block in blocks("yaml") if block.startswith("genxai: 1"))
    plan = pipeline.plan(schema.from_document(safe_yaml.parse(whole, PAGE.name), PAGE.parent))
    assert list(plan.steps)[-1] == "judge"


def test_the_steps_that_are_shown_have_parameters_that_exist():
    (part,) = (block for block in blocks("yaml") if not block.startswith("genxai: 1"))
    for step in yaml.safe_load(part).values():
        if step["use"] == "dataset/artifact-labels":
            target = gx.resolve(step["use"])
            assert set(step["with"]) <= {p.name for p in parameters.of(target)}
            assert set(step["call"]) == {"generated"}


def test_the_commands_options_are_on_the_page():
    app = typer.Typer()
    commands.add(app)
    command = typer.main.get_command(app)
    options = {o for p in command.params if p.param_type_name == "option" for o in p.opts} - {
        "--install-completion",
        "--show-completion",
    }
    named = re.findall(r"^\| `(--[a-z]+)", PAGE.read_text(), re.MULTILINE)
    assert set(named) == options
