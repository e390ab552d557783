"""What the kit costs those who do not test: nothing. No other part of genxai imports it, or pytest."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import genxai_core

CORE = Path(genxai_core.__file__).parent


def imported(path):
    """Names that a file imports, relative ones from the core's root."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def test_nothing_else_imports_pytest_or_the_kit():
    found = {(p.name, name) for p in CORE.rglob("*.py") if "testing" not in p.parts for name in imported(p)}
    assert len(found) > 200
    tops = {(file, part) for file, name in found for part in name.split(".")[:2]}
    assert not {(file, part) for file, part in tops if part in ("pytest", "testing", "unittest")}


def test_listing_components_loads_neither():
    code = (
        "import sys, genxai_core.cli\n"
        "assert genxai_core.cli._main(['list']) == 0\n"
        "print('loaded:', *[m for m in sys.modules if m.partition('.')[0] == 'pytest' or 'core.testing' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]


def test_its_names_are_loaded_when_they_are_used():
    code = "import sys, genxai_core.testing as t; dir(t); print('torch' in sys.modules, 'pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
