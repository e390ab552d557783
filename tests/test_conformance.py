"""Every component of the catalogue has a conformance class, in its own distribution's tests."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest

from genxai_core import storage
from genxai_core.testing import ComponentTests

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("explainer", "generator", "discriminator", "metric", "trainer", "dataset", "segmenter")
"""What the conformance kit has a class for."""

ROWS = [r for r in storage.read_yaml(ROOT / "registry.yaml").value["components"] if r["kind"] in KINDS]


@cache
def held(distribution: str) -> dict[str, list[type[ComponentTests]]]:
    """Return the conformance classes of a distribution that pytest collects, by the component that they hold."""
    folder = ROOT / "tests" if distribution == "genxai-core" else ROOT / "plugins" / distribution / "tests"
    found: dict[str, list[type[ComponentTests]]] = {}
    for path in sorted(folder.glob("test_*_conformance.py")):
        spec = importlib.util.spec_from_file_location(f"collected_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in vars(module).items():
            if name.startswith("Test") and isinstance(value, type) and issubclass(value, ComponentTests):
                found.setdefault(value.component, []).append(value)
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}/{row['name']}")
def test_a_component_is_held_to_its_contract(row):
    classes = held(row["distribution"]).get(f"{row['kind']}/{row['name']}", [])
    assert any(cls.plugin is None for cls in classes), (
        f"no class in {row['distribution']}'s tests/test_*_conformance.py says component = {row['kind']}/{row['name']}"
    )


def test_most_checks_are_expected_to_pass():
    """A component whose failures are all expected is not held to anything."""
    for distribution in {row["distribution"] for row in ROWS}:
        for classes in held(distribution).values():
            for cls in classes:
                checks = [name for name in dir(cls) if name.startswith("test_")]
                assert len(cls.expected_failures) <= len(checks) / 5, cls
