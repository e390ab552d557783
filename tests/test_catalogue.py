"""registry.yaml says what the plugins of this repository declare, all of it and nothing else."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

from genxai_core import builtin, registry, storage
from genxai_core.component import KINDS

ROOT = Path(__file__).resolve().parent.parent
ROWS = storage.read_yaml(ROOT / "registry.yaml").value["components"]
PROJECTS = {path.parent: tomllib.loads(path.read_text())["project"] for path in ROOT.glob("plugins/*/pyproject.toml")}


def declared():
    """(distribution, component) of the core and of every plugin folder, from its own hook."""
    modules = [("genxai-core", builtin)]
    for project in PROJECTS.values():
        for module in project["entry-points"]["genxai"].values():
            modules.append((project["name"], importlib.import_module(module)))
    return [(distribution, c) for distribution, module in modules for c in module.genxai_components()]


def test_the_repository_has_plugins():
    assert len(PROJECTS) >= 5
    assert len(declared()) >= 16


def test_the_catalogue_is_what_the_plugins_declare():
    said = {(r["kind"], r["name"], r["distribution"], r["summary"]) for r in ROWS}
    assert said == {(c.kind, c.name, distribution, c.summary) for distribution, c in declared()}


def test_every_name_is_declared_and_listed_once():
    assert len({(r["kind"], r["name"]) for r in ROWS}) == len(ROWS) == len(declared())


def test_rows_are_sorted_the_core_first():
    order = [(r["distribution"] != "genxai-core", r["distribution"], KINDS.index(r["kind"]), r["name"]) for r in ROWS]
    assert order == sorted(order)


def test_install_names_the_folder_of_the_distribution():
    for row in ROWS:
        assert row["install"] == ("." if row["distribution"] == "genxai-core" else f"./plugins/{row['distribution']}")
        pyproject = tomllib.loads((ROOT / row["install"] / "pyproject.toml").read_text())
        assert pyproject["project"]["name"] == row["distribution"]


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda f: f.name)
def test_a_plugin_folder_is_named_for_its_distribution_and_has_components(folder):
    assert PROJECTS[folder]["name"] == folder.name
    assert any(r["distribution"] == folder.name for r in ROWS)
    (package,) = (folder / "src").iterdir()
    assert package.name == folder.name.replace("-", "_")


def test_fields_are_known_and_filled():
    for row in ROWS:
        assert set(row) - {"paper"} == {"kind", "name", "distribution", "install", "summary"}
        assert all(isinstance(v, str) and v == v.strip() != "" for v in row.values()), row


def test_the_program_reads_this_very_file():
    assert registry.catalogue_path() == ROOT / "registry.yaml"
    assert [(e.kind, e.name, e.paper) for e in registry.catalogue().values()] == [
        (r["kind"], r["name"], r.get("paper", "")) for r in ROWS
    ]
