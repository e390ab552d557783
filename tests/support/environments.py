"""Small environments that see the third-party packages of this one, and of our own only what a test installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
_SKIPPED = shutil.ignore_patterns(
    ".git", "__pycache__", ".*_cache", ".venv", "runs", "build", "dist", "site", "tests", "docs", "benchmarks"
)

Run = Callable[..., str]


def copy_of_the_house(folder: Path) -> Path:
    """Copy the repository, without its tests and pages, so that building leaves it clean."""
    shutil.copytree(ROOT, folder, ignore=_SKIPPED)
    return folder


def build_wheel(project: Path, out: Path) -> Path:
    """Build a project's wheel into a folder, with what is installed here."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, project]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


def link_third_party(folder: Path) -> Path:
    """Fill a folder with links to the third-party packages of this environment; entry points of ours would show."""
    for site in {Path(torch.__file__).parents[1], Path(pytest.__file__).parents[1]}:
        for entry in site.iterdir():
            if not re.match(r"(__editable___?|_editable_impl_)?genxai|.*\.pth$|__pycache__$", entry.name):
                (folder / entry.name).symlink_to(entry)
    return folder


def make_environment(folder: Path, third_party: Path, *install: Path) -> Run:
    """Make an environment, install wheels or projects into it without dependencies, and return a way to run its Python.

    What is returned takes arguments, ``code`` (the exit code that is expected) and ``cwd``, and gives what was printed.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "third-party.pth").write_text(f"{third_party}\n")
    python = folder / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GENXAI_"))}
    clean |= {"GENXAI_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: object, code: int = 0, cwd: Path = folder) -> str:
        done = subprocess.run(
            [python, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=clean, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    ours = (
        "import importlib.metadata as m; print(*m.entry_points(group='genxai'), "
        "*(d.name for d in m.distributions() if d.name.startswith('genxai')))"
    )
    assert run("-c", ours).strip() == "", "an environment must begin without anything of ours"
    assert "ModuleNotFoundError" in run("-c", "import genxai_core", code=1)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", *install], check=True, env=clean)
    return run
