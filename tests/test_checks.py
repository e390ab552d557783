"""The tree is clean under the tools that the project checks itself with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/src"))


def clean(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing():
    clean("ruff", "check", "--no-cache", ".")


def test_every_file_is_formatted():
    clean("ruff", "format", "--no-cache", "--check", ".")


def test_the_core_passes_strict_mypy():
    clean("mypy")


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.split("/")[1])
def test_a_plugin_passes_strict_mypy(source):
    clean("mypy", "--strict", source)


def test_there_are_plugins_to_check():
    assert len(SOURCES) >= 5
