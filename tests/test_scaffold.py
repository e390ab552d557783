"""``genxai new-plugin``: what it writes is complete, clean, installable, and passes its own tests; what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from environments import ROOT, build_wheel, copy_of_the_house, link_third_party, make_environment

from genxai_core import __version__, cli, scaffold
from genxai_core.errors import BadParameter

KINDS = get_args(cli.Kind)
NAMES = {kind: f"my-{kind}" for kind in KINDS}
LONG = "a-name-as-long-as-anybody-would-write-it"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """A plugin of each kind, by kind."""
    folder = tmp_path_factory.mktemp("plugins")
    for kind, name in NAMES.items():
        scaffold.write(name, kind, folder)
    return {kind: folder / name for kind, name in NAMES.items()}


# -- what is written ------------------------------------------------------------------------------------------------


def test_there_are_templates_for_every_kind_that_the_program_takes():
    assert {p.name for p in scaffold.TEMPLATES.iterdir() if p.is_dir()} == {*KINDS, "every"}


def test_the_program_says_what_it_wrote_and_what_to_do_next(genxai, tmp_path):
    done = genxai("new-plugin", "edges", "--kind", "explainer", check=True)
    files = sorted(p for p in (tmp_path / "edges").rglob("*") if p.is_file())
    listed, _, commands = done.stdout.partition("\n\nNow install it, test it, and see it:\n")
    assert sorted(listed.split()) == [str(p.relative_to(tmp_path)) for p in files]
    install, test, info = (line.strip() for line in commands.splitlines())
    assert install == f"{sys.executable} -m pip install --editable 'edges[test]'"
    assert test == f"{sys.executable} -m pytest edges"
    assert info == "genxai info explainer/edges"
    assert done.stderr == ""


def test_as_json_and_into_a_folder_that_is_not_there_yet(genxai, tmp_path):
    done = genxai("new-plugin", "edges", "--kind", "metric", "--into", "deep/down", "--json", check=True)
    told = json.loads(done.stdout)
    assert told["folder"] == "deep/down/edges"
    found = {
        p.relative_to(tmp_path / "deep/down/edges").as_posix() for p in tmp_path.rglob("edges/**/*") if p.is_file()
    }
    assert set(told["files"]) == found
    assert {"pyproject.toml", "README.md", "src/edges/plugin.py", "tests/test_edges.py"} <= found
    assert told["next"][1].endswith("-m pytest deep/down/edges")


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_is_complete(written, kind):
    folder, name, package = written[kind], NAMES[kind], f"my_{kind}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == name
    assert project["entry-points"]["genxai"] == {name: f"{package}.plugin"}
    (requirement,) = project["dependencies"]
    assert re.fullmatch(r"genxai-core>=(\d+\.\d+),<\d+\.\d+", requirement)[1] == ".".join(__version__.split(".")[:2])
    readme = (folder / "README.md").read_text()
    assert f"`{kind}/{name}`" in readme
    for path in re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE):
        assert (folder / path).is_file(), path
    assert not re.search(r"\n\n\n|\|\n\n\|", readme), "an empty line too many, or one that breaks a table"
    test = (folder / f"tests/test_{package}.py").read_text()
    assert f"({kind.capitalize()}Tests):" in test
    text = "".join(p.read_text() for p in folder.rglob("*") if p.is_file())
    assert not re.search(r"\{%|\{\{|NotImplemented|TODO", text)


@pytest.mark.parametrize("tool", [["check"], ["format", "--check"]], ids=" ".join)
@pytest.mark.parametrize("config", ["its own", "ours"])
def test_what_is_written_needs_no_formatting(tmp_path, tool, config):
    """By the settings that it brings, and by ours; whether its name is short or long."""
    pytest.importorskip("ruff")
    for kind in KINDS:
        for name in (f"x{kind[0:2]}", f"{LONG}-{kind[0:2]}"):
            scaffold.write(name, kind, tmp_path / kind)
            if config == "ours":  # as if it lay in this repository
                (tmp_path / kind / name / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    done = subprocess.run([sys.executable, "-m", "ruff", *tool, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_types_are_right(written, tmp_path):
    pytest.importorskip("mypy")
    packages = [folder / "src" / folder.name.replace("-", "_") for folder in written.values()]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, *packages], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- what is refused ------------------------------------------------------------------------------------------------

REFUSED = {
    "not kebab-case": ("MyThing", "component name 'MyThing' is not kebab-case"),
    "a path": ("../thing", "is not kebab-case"),
    "begins with a digit": ("3d-edges", "'3d-edges' cannot name a Python package"),
    "a word of Python": ("lambda", "'lambda' cannot name a Python package"),
    "a class of Python": ("value-error", "cannot name a Python package and a class ValueError"),
    "a module of Python": ("json", "json is a module that exists already"),
    "an installed distribution": ("genxai-core", "genxai-core is an installed distribution"),
    "a distribution under another module's name": ("scikit-learn", "scikit-learn is an installed distribution"),
    "a component": ("saliency", "explainer/saliency is a component of genxai-attribution"),
    "the folder of tests": ("tests", "cannot name a Python package"),
    "too long": ("a" * 44, "is longer than 43 characters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_name_that_cannot_be_used_is_refused_in_one_line(genxai, tmp_path, case):
    name, said = REFUSED[case]
    done = genxai("new-plugin", name, "--kind", "explainer")
    assert done.returncode == 2
    assert done.stderr.startswith("error: new-plugin: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("loop", "trainer"), ("f", "trainer"), ("input-error", "generator"), ("form", "metric")]
)
def test_a_class_that_would_hide_what_its_file_needs_is_refused(tmp_path, name, kind):
    with pytest.raises(BadParameter, match="for something else; choose another name"):
        scaffold.write(name, kind, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_written_over(genxai, tmp_path):
    (tmp_path / "edges").mkdir()
    (tmp_path / "edges/mine.txt").write_text("mine")
    done = genxai("new-plugin", "edges", "--kind", "dataset")
    assert done.returncode == 2
    assert done.stderr == "error: new-plugin: edges exists and is left as it is; choose another name, or --into DIR\n"
    assert [p.name for p in tmp_path.rglob("*")] == ["edges", "mine.txt"]


@pytest.mark.parametrize("arguments", [["edges"], ["edges", "--kind", "segmenter"], ["--kind", "metric"]], ids=" ".join)
def test_what_is_missing_or_unknown_is_told(genxai, tmp_path, arguments):
    done = genxai("new-plugin", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# -- installed, in an environment of its own ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory, written):
    """The core's wheel and one plugin of each kind, beside the third-party packages; a way to run Python there."""
    folder = tmp_path_factory.mktemp("scaffold")
    core = build_wheel(copy_of_the_house(folder / "house"), folder / "wheel")
    (folder / "others").mkdir()
    return make_environment(folder / "env", link_third_party(folder / "others"), core, *written.values())


@pytest.mark.slow
def test_installed_they_are_listed(installed):
    rows = json.loads(installed("-m", "genxai_core", "list", "--json"))
    found = {row["name"]: row["distribution"] for row in rows if row["status"] == "third-party"}
    assert found == {
        **{f"{kind}/{name}": name for kind, name in NAMES.items()},
        "discriminator/my-trainer-model": "my-trainer",
    }
    assert installed("-m", "genxai_core", "doctor").endswith("all is well\n")
    told = installed("-m", "genxai_core", "info", "metric/my-metric")
    assert told.startswith("metric/my-metric  (my-metric 0.1.0)\nenergy distance between real and generated images\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_its_own_tests(installed, written, kind):
    told = installed("-m", "pytest", "-q", "-p", "no:cacheprovider", written[kind], cwd=written[kind])
    summary = re.search(r"^(\d+) passed", told.splitlines()[-1])
    assert summary, told
    assert int(summary[1]) > 8, "the conformance class and tests of its own"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_readme_is_true(installed, written, tmp_path, kind):
    (code,) = re.findall(r"^```python\n(.*?)^```$", (written[kind] / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "use.py").write_text(code)
    printed = installed("use.py", cwd=tmp_path)
    for claim in re.findall(r"print\(.*\)  # (.*)", code):
        assert claim in printed


# -- the tutorial, which leads here ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tutorials_explainer_passes_the_conformance_class_that_it_shows(tmp_path):
    page = (ROOT / "docs/tutorials/first-explainer.md").read_text()
    for name in ("occlude.py", "test_occlude.py"):
        (content,) = re.findall(rf'^```python title="{name}"\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)
        (tmp_path / name).write_text(content)

    def told(*options):
        command = [sys.executable, "-m", "pytest", "-q", *options, "-p", "no:cacheprovider", "test_occlude.py"]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    right = told("-rs")
    passed, skipped = re.search(r"(\d+) passed, (\d+) skipped", right.stdout).groups()
    assert right.returncode == 0, right.stdout
    assert abs(int(passed) - 25) <= 3, "the page says some 25"
    assert int(skipped) == right.stdout.count("SKIPPED [1]")
    assert "not installed: package it" in right.stdout

    code = (tmp_path / "occlude.py").read_text()
    (tmp_path / "occlude.py").write_text(code.replace("Attribution(maps=maps,", "Attribution(maps=maps.abs(),"))
    wrong = told("-x")
    assert wrong.returncode == 1
    assert "To mend:" in wrong.stdout
