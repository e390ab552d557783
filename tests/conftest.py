"""What the tests of the house share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(__file__).resolve().parent / "fixtures"

Genxai = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture
def fixtures() -> Path:
    """Where the tiny plugin and its pipeline lie."""
    return FIXTURES


@pytest.fixture
def genxai(tmp_path: Path) -> Genxai:
    """The program, in a process of its own, with a cache of its own."""

    def call(*arguments: object, check: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "genxai_core", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=tmp_path,
            env={**os.environ, "GENXAI_CACHE": str(tmp_path / "cache"), **environment},
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return call
