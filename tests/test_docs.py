"""What the documentation says is so: its links lead somewhere, its code runs, its tables are complete."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

import genxai_core
from genxai_core import builtin, cli, errors, hookspecs, models, pipeline, registry, safe_yaml
from genxai_core.pipeline import schema
from genxai_core.plugins import PluginHost
from genxai_core.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
REFERENCE = DOCS / "reference"
OCCLUDE = ROOT / "examples" / "occlude.py"
TUTORIAL = DOCS / "tutorials" / "first-explainer.md"
RUN = [*sorted((DOCS / "tutorials").glob("*.md"))]
RUN += [ROOT / "README.md", *(REFERENCE / f"{name}.md" for name in ("python", "plugins", "pipelines"))]
CHECKOUT = "from a checkout"
"""Title of a block that runs where the repository's examples are. Any other title with a space marks an excerpt."""

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, title and content of every fenced block."""
    return _BLOCK.findall(page.read_text())


def titled(page: Path, title: str) -> str:
    (content,) = (content for _, found, content in blocks(page) if found == title)
    return content


def to_run(page: Path) -> list[str]:
    return [content for language, title, content in blocks(page) if language == "python" and title in ("", CHECKOUT)]


# -- links and completeness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    text = _BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target) and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the site is not built: mkdocs is not installed")
    pytest.importorskip("pymdownx", reason="the site is not built: pymdown-extensions is not installed")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    shown = {p: re.sub(r"<[^>]+>", "", p.read_text()) for p in (tmp_path / "site").rglob("index.html")}
    assert "class Occlude(Explainer)" in shown[tmp_path / "site/tutorials/first-explainer/index.html"]
    for page, text in shown.items():
        assert "```" not in text, page  # a fence that is not understood swallows what follows it
        assert not re.search(r"^(\||- )", text, re.MULTILINE), page  # and so a table, or a list without an empty line


def test_every_hook_is_documented_with_its_arguments():
    text = (REFERENCE / "plugins.md").read_text()
    found = {n: f for n, f in vars(hookspecs).items() if hasattr(f, f"{hookspecs.PROJECT}_spec")}
    assert "genxai_components" in found
    for name, function in found.items():
        arguments = ", ".join(function.__code__.co_varnames[: function.__code__.co_argcount])
        assert f"`{name}({arguments})`" in text
    documented = set(re.findall(r"genxai_\w+(?=\()", text)) - {"genxai_core"}
    assert documented == set(found)


def test_every_component_of_the_catalogue_is_on_a_reference_page():
    text = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    for name in registry.catalogue():
        assert re.search(rf"{name}(?![\w-])", text), name


def test_every_command_and_option_is_documented():
    text = (REFERENCE / "cli.md").read_text()
    program = typer.main.get_command(cli.app)
    assert all(f"`{option}`" in text for parameter in program.params for option in parameter.opts)
    for name, command in program.commands.items():
        section = re.search(rf"^## `genxai {name}\b.*?(?=^## )", text, re.DOTALL | re.MULTILINE)
        assert section, name
        options = {o for p in command.params if p.param_type_name == "option" for o in p.opts}
        named = " ".join(re.findall(r"^\|[^|]*\|", section[0], re.MULTILINE))
        documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", named))
        assert documented == options, name


def test_every_error_is_documented_with_its_exit_code():
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (REFERENCE / "plugins.md").read_text(), re.MULTILINE))
    found = {n: e for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, errors.GenxaiError)}
    for name, error in found.items():
        assert table[name] in (str(error.exit_code), "as its cause"), name
    codes = re.findall(r"^\| (\d+) \|", (REFERENCE / "cli.md").read_text(), re.MULTILINE)
    assert {str(error.exit_code) for error in found.values()} | {"0"} == set(codes)


def test_every_public_name_capability_and_key_is_documented():
    python = (REFERENCE / "python.md").read_text()
    for name in set(genxai_core.__all__) - {"__version__"}:
        assert re.search(rf"`{name}\b", python), name
    plugins = (REFERENCE / "plugins.md").read_text()
    for name, member in vars(models).items():
        if getattr(member, "_is_protocol", False) and name != "Protocol":
            assert f"| `{name}` |" in plugins, name
    pipelines = (REFERENCE / "pipelines.md").read_text()
    for model in (schema.Pipeline, schema.Step):
        for key, field in model.model_fields.items():
            assert f"| `{field.alias or key}` |" in pipelines, key


def test_environment_variables_are_documented():
    sources = "\n".join(path.read_text() for path in (ROOT / "genxai_core").rglob("*.py"))
    text = (REFERENCE / "cli.md").read_text()
    assert set(re.findall(r"GENXAI_[A-Z_]*[A-Z]", sources)) == set(re.findall(r"GENXAI_[A-Z_]*[A-Z]", text))


# -- pipelines --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_occlude():
    """The installed plugins and the tutorial's."""
    host = PluginHost(builtin=[builtin])
    before = sys.modules.pop("occlude", None)
    host.load_file(OCCLUDE)
    with registry.using(Registry(host)):
        yield
    del sys.modules["occlude"]
    if before is not None:
        sys.modules["occlude"] = before


def pipelines() -> list[tuple[Path, str]]:
    found = [(page, content) for page in PAGES for language, _, content in blocks(page) if language == "yaml"]
    return [(page, content) for page, content in found if content.startswith("genxai: 1")]


@pytest.mark.usefixtures("with_occlude")
@pytest.mark.parametrize(("page", "content"), pipelines(), ids=[name_of(page) for page, _ in pipelines()])
def test_pipelines_on_pages_are_accepted(page, content):
    source = schema.from_document(safe_yaml.parse(content, page.name), ROOT / "examples")
    assert list(pipeline.plan(source).steps)


# -- code -------------------------------------------------------------------------------------------------------


SMALLER = {"steps=600": "steps=12"}
"""As examples are run with --set: the same code, fewer iterations."""


def small_quickstart() -> str:
    """The quickstart as a file, with trainings of a few iterations."""
    value = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
    for step in value["steps"].values():
        if step["use"] in ("trainer/gan", "trainer/xai-gan", "trainer/classifier"):
            step.setdefault("with", {})["steps"] = 4
        if step["use"] == "dataset/generated":
            step["with"]["n"] = 40
    return yaml.safe_dump(value, sort_keys=False)


@pytest.fixture
def desk(tmp_path):
    """A folder with the examples, the quickstart being a small one."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/quickstart.yaml").write_text(small_quickstart())
    (tmp_path / "examples/occlude.py").write_text(OCCLUDE.read_text())
    return tmp_path


def python(*arguments: object, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "GENXAI_CACHE": str(cwd / "cache"), "MPLBACKEND": "Agg", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if page.is_file() and to_run(page)], ids=name_of)
def test_python_on_a_page_runs_from_top_to_bottom(page, desk):
    """One program per page, in a folder where the page's files with a name lie."""
    for _, title, content in blocks(page):
        if title and " " not in title:
            (desk / title).write_text(content)
    code = "\n".join(to_run(page))
    for old, new in SMALLER.items():
        code = code.replace(old, new)
    (desk / "page.py").write_text(code)
    python("page.py", cwd=desk)


def test_a_page_that_is_wrong_would_be_noticed(desk):
    (desk / "page.py").write_text("import genxai_core as gx\ngx.create('dataset/digits', sise=16)\n")
    assert "BadParameter" in python("page.py", cwd=desk, check=False).stderr


# -- the tutorial's plugin --------------------------------------------------------------------------------------


def test_the_tutorial_shows_the_example():
    assert titled(TUTORIAL, "occlude.py") == OCCLUDE.read_text()


def test_the_readme_shows_the_example_too():
    """Apart from docstrings, which the README has fewer of."""
    (shown,) = (code for code in to_run(ROOT / "README.md") if "class Occlude" in code)
    assert without_docstrings(shown) == without_docstrings(OCCLUDE.read_text())


def without_docstrings(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree)


def test_an_explainer_of_ones_own_takes_fifteen_lines():
    tree = ast.parse(OCCLUDE.read_text())
    lines = {n for n, line in enumerate(OCCLUDE.read_text().splitlines(), 1) if line.strip()}
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    assert len(lines) <= 15


def tutorial_pipeline() -> str:
    (content,) = (content for language, _, content in blocks(TUTORIAL) if language == "yaml")
    return content


@pytest.mark.slow
def test_the_tutorials_pipeline_runs_and_reruns_what_an_edit_touches(tmp_path):
    (tmp_path / "occlude.yaml").write_text(tutorial_pipeline())
    (tmp_path / "occlude.py").write_text(OCCLUDE.read_text())
    command = ["-m", "genxai_core", "run", "occlude.yaml", "--set", "steps.gan.with.steps=4", "--json"]

    refused = python("-m", "genxai_core", "check", "occlude.yaml", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: occlude.yaml:13: steps.occlusion-of-real.use: ")

    ran = json.loads(python(*command, "--plugin", "occlude.py", cwd=tmp_path).stdout)
    assert len(ran["ran"]) == 6
    assert "occlusion-of-fakes" in Path(tmp_path / ran["report"]).read_text()
    (tmp_path / "occlude.py").write_text(OCCLUDE.read_text().replace("(1, 2, 3)", "(2, 3)"))
    again = json.loads(python(*command, "--plugin", "occlude.py", cwd=tmp_path).stdout)
    assert again["ran"] == ["occlusion-of-real", "occlusion-of-fakes"]


@pytest.mark.slow
def test_the_tutorials_plugin_installs_and_is_found(tmp_path):
    (tmp_path / "occlude.py").write_text(OCCLUDE.read_text())
    (tmp_path / "pyproject.toml").write_text(titled(TUTORIAL, "pyproject.toml"))
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", site]
    python(*install, ".", cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = python("-m", "genxai_core", "list", "--json", cwd=elsewhere, PYTHONPATH=str(site)).stdout
    (row,) = (row for row in json.loads(rows) if row["name"] == "explainer/occlude")
    assert (row["status"], row["distribution"]) == ("third-party", "occlude-explainer")
    told = python("-m", "genxai_core", "info", "explainer/occlude", cwd=elsewhere, PYTHONPATH=str(site)).stdout
    assert "Drop of the logit" in told
