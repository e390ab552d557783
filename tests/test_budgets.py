"""What the house may cost and reach: imports, size, which way the arrows point, and what may run or unpickle code."""

from __future__ import annotations

import ast
import io
import json
import runpy
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "genxai_core"
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
SOURCES = sorted([*CORE.rglob("*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
OTHERS = [
    *ROOT.glob("plugins/*/tests/**/*.py"),
    *(p for f in ("tests", "examples", "benchmarks", "docs") for p in (ROOT / f).rglob("*.py")),
]

# -- imports ------------------------------------------------------------------------------------------------------

HEAVY = {"torch", "numpy", "pydantic", "matplotlib", "captum", "sklearn", "torchvision", "pytorch_grad_cam", "scipy"}
BY_TYPER = {"pydantic"}  # typer itself needs it to read a command line


def entry_points() -> list[str]:
    projects = [tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in PLUGINS]
    return [module for project in projects for module in project["entry-points"]["genxai"].values()]


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the code."""
    probe = f"{code}\nimport sys\nprint('loaded', *{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_probe_sees_a_heavy_import():
    assert "numpy" in loaded_by("import numpy") & HEAVY


@pytest.mark.parametrize("module", ["genxai_core", "genxai_core.cli", *entry_points()])
def test_importing_a_plugin_or_the_core_is_light(module):
    found = loaded_by(f"import {module}")
    assert module.partition(".")[0] in found
    assert not found & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["list", "--json"], ["list", "--kind", "metric"], ["--help"], ["--version"], ["run", "--help"]],
    ids=" ".join,
)
def test_the_program_answers_without_the_heavy_libraries(arguments):
    found = loaded_by(f"from genxai_core import cli\nassert cli._main({arguments!r}) == 0")
    assert "genxai_core" in found
    assert not found & (HEAVY - BY_TYPER)
    assert {m.partition(".")[0] for m in entry_points()} <= found or arguments[0] != "list"


# -- size ---------------------------------------------------------------------------------------------------------

LINES_OF_A_FILE = 400
LINES_OF_CODE_OF_THE_CORE = 6800  # docs/decisions/0002, 0005, 0006 and 0007 say why not 3,000


@pytest.mark.parametrize("path", sorted([*SOURCES, *OTHERS]), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_longer_than_a_person_reads(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_OF_A_FILE


def code_lines(source: str) -> int:
    """Count the lines that hold code: no docstrings, comments or blanks."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for i, child in enumerate(body):
            text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            after_assignment = i > 0 and isinstance(body[i - 1], ast.Assign | ast.AnnAssign)
            if text and isinstance(child.value.value, str) and (isinstance(node, documented) or after_assignment):
                docstrings.update(range(child.lineno, child.end_lineno + 1))
    ignored = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.ENCODING,
    }
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in ignored:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def test_the_counter_counts_code_only():
    source = '"""Doc.\n\nMore."""\n\nimport os  # why\n\n# a comment\nX = (\n    1,\n)\n"""Of X."""\n\n\n'
    source += 'def f():\n    """Doc."""\n\n    text = """two\nlines"""\n    return text\n'
    assert code_lines(source) == 1 + 3 + 1 + 2 + 1


def test_the_core_stays_small():
    paths = [p for p in CORE.rglob("*.py") if p.relative_to(CORE).parts[0] not in ("plots", "report", "testing")]
    lines = sum(code_lines(p.read_text()) for p in paths)
    assert 1000 < lines < LINES_OF_CODE_OF_THE_CORE


# -- arrows -------------------------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """Absolute module names that a file imports, anywhere in it, texts given to importlib included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__", "importorskip") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda f: f.name)
def test_a_plugin_imports_the_core_and_no_other_plugin(folder):
    own = folder.name.replace("-", "_")
    paths = [*(folder / "src").rglob("*.py"), *(folder / "tests").rglob("*.py")]
    found = {(path.name, m) for path in paths for m in imported(path) if m.startswith("genxai")}
    assert any(m.partition(".")[0] == "genxai_core" for _, m in found)
    assert not {(file, m) for file, m in found if m.partition(".")[0] not in ("genxai_core", own)}


def test_the_core_imports_no_plugin():
    found = {(str(path.relative_to(CORE)), m) for path in CORE.rglob("*.py") for m in imported(path)}
    assert not {(file, m) for file, m in found if m.startswith("genxai_") and not m.startswith("genxai_core")}


# -- what may run or unpickle code --------------------------------------------------------------------------------

ALLOWED = {
    "torch.load": {"genxai_core/storage.py"},  # with weights_only=True
    "yaml loading": {"genxai_core/safe_yaml.py"},
    "eval": {"genxai_core/parameters.py"},  # annotations, in the source that they were written in
    "exec": set(),
    "compile": set(),
    "pickle": set(),
    "allow_pickle": set(),
    "unsafe torch.load": set(),
}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def risks(source: str) -> Iterator[str]:
    """Name what a file does that could run code out of data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if UNSAFE_MODULES & {name.partition(".")[0] for name in names}:
                yield "pickle"
            taken = {a.name for a in node.names} if isinstance(node, ast.ImportFrom) and not node.level else set()
            if names == ["yaml"] and any("load" in t.lower() for t in taken):
                yield "yaml loading"
            if names[0].partition(".")[0] == "torch" and "load" in taken:
                yield "torch.load"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "torch" and node.attr == "load":
                yield "torch.load"
            if node.value.id == "yaml" and "load" in node.attr.lower():
                yield "yaml loading"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "compile"):
                yield node.func.id
            name = getattr(node.func, "attr", "")
            given = {k.arg: k.value for k in node.keywords}
            if "allow_pickle" in given and getattr(given["allow_pickle"], "value", True) is not False:
                yield "allow_pickle"
            if name == "load" and getattr(getattr(node.func, "value", None), "id", "") == "torch":
                safe = getattr(given.get("weights_only"), "value", None) is True
                if not safe:
                    yield "unsafe torch.load"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.load('f', weights_only=True)", {"torch.load"}),
        ("import torch\ntorch.load('f')", {"torch.load", "unsafe torch.load"}),
        ("import torch\ntorch.load('f', weights_only=False)", {"torch.load", "unsafe torch.load"}),
        ("from torch import load", {"torch.load"}),
        ("import pickle", {"pickle"}),
        ("from pickle import loads", {"pickle"}),
        ("import joblib.numpy_pickle", {"pickle"}),
        ("import numpy as np\nnp.load('f', allow_pickle=True)", {"allow_pickle"}),
        ("import yaml\nyaml.safe_load('a')", {"yaml loading"}),
        ("import yaml\nclass L(yaml.SafeLoader): pass", {"yaml loading"}),
        ("from yaml import load", {"yaml loading"}),
        ("eval('1')", {"eval"}),
        ("exec('1')", {"exec"}),
        ("model.eval()\nimport re\nre.compile('a')\nimport numpy as np\nnp.load('f', allow_pickle=False)", set()),
    ],
)
def test_the_search_finds_what_it_looks_for(source, found):
    assert set(risks(source)) == found


def test_code_runs_out_of_data_nowhere_but_where_it_is_allowed():
    found = {(risk, path.relative_to(ROOT).as_posix()) for path in SOURCES for risk in risks(path.read_text())}
    assert found == {(risk, path) for risk, paths in ALLOWED.items() for path in paths}


# -- figures that the docs quote ----------------------------------------------------------------------------------


def test_the_page_on_times_is_written_from_its_kept_figures():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "list_time.py"))
    kept = json.loads(benchmark["FIGURES"].read_text())
    assert benchmark["PAGE"].read_text() == benchmark["page"](kept)
    assert kept["runs"] >= 15
    assert all(len(s["user"]) == len(s["wall"]) == kept["runs"] for s in kept["seconds"].values())


def test_the_page_on_pretrained_models_is_written_from_their_cards():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "pretrained.py"))
    assert benchmark["PAGE"].read_text() == benchmark["page"]()


def test_the_page_on_dissected_sprites_is_written_from_its_kept_figures():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "dissection_sprites.py"))
    assert benchmark["PAGE"].read_text() == benchmark["page"](json.loads(benchmark["FIGURES"].read_text()))
