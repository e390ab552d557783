"""The program as a person and a script meet it: what it prints, its exit codes, and what a broken plugin does to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from genxai_core import __version__, cli, registry
from genxai_core.component import KINDS
from genxai_core.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = sorted(
    [*ROOT.glob("examples/*.yaml"), *ROOT.glob("examples/data/*.yaml"), ROOT / "tests/fixtures/tiny.yaml"]
)
INSTALLED = sorted({p.component.full_name for p in Registry().provided()})


@pytest.fixture
def call(capsys, monkeypatch):
    """The program in this process, for what needs no process of its own: (exit code, stdout, stderr)."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the program sets it; set it back
    monkeypatch.delenv("GENXAI_TRACEBACK", raising=False)

    def run(*arguments):
        with registry.using(Registry()):
            code = cli._main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def fake_distribution(tmp_path):
    """Make a folder that, on PYTHONPATH, looks like an installed plugin. Returns the environment to set."""

    def make(name: str, source: str, version: str = "9.9") -> dict[str, str]:
        folder = tmp_path / "site"
        module = name.replace("-", "_") + "_fake"
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[genxai]\nfake = {module}\n")
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}

    return make


def one_line(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1


# -- list ---------------------------------------------------------------------------------------------------------


def test_list_names_every_component_with_its_summary_and_counts_them(genxai):
    done = genxai("list", check=True)
    for component, _ in Registry().provided():
        assert re.search(rf"● {component.full_name}\s+{re.escape(component.summary)}\n", done.stdout), component
    assert f"● {len(INSTALLED)} installed" in done.stdout
    assert done.stderr == ""


def test_list_as_json_has_one_row_per_component_in_the_order_of_kinds(call):
    code, out, _ = call("list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {r["name"] for r in rows} >= set(INSTALLED)
    assert rows == sorted(rows, key=lambda r: (KINDS.index(r["kind"]), r["name"], r["distribution"]))
    for row in rows:
        assert set(row) == {"kind", "name", "status", "distribution", "version", "summary"}
        assert (row["status"] == "installed") == (row["name"] in INSTALLED)


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_one_kind_is_that_part_of_the_whole(call, kind):
    whole = json.loads(call("list", "--json")[1])
    assert json.loads(call("list", "--kind", kind, "--json")[1]) == [r for r in whole if r["kind"] == kind]


# -- info ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INSTALLED)
def test_info_of_every_component_documents_every_parameter(call, name):
    code, out, _ = call("info", name, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["name"] == name
    assert told["doc"]
    for parameter in told["parameters"]:
        assert parameter["type"] not in ("", "any"), parameter
        assert parameter["doc"] or told["kind"] == "explanation", f"{name}: {parameter['name']} is not documented"
    code, out, _ = call("info", name)
    assert code == 0
    assert out.startswith(f"{name}  ({told['distribution']} ")
    assert all(f"  {p['name']}: {p['type']} (" in out for p in told["parameters"])


def test_info_shows_the_choices_of_a_literal_behind_an_alias(call, tmp_path):
    (tmp_path / "spelt.py").write_text(
        "from __future__ import annotations\n"
        "from pathlib import Path\n"
        "from typing import TYPE_CHECKING, Literal\n"
        "from genxai_core import Component, Metric, Spec, hookimpl\n"
        "if TYPE_CHECKING:\n    from torch import Tensor\n"
        "Way = Literal['up', 'down']\n"
        "class Spelt(Metric):\n"
        "    '''One.'''\n"
        "    needs, higher_is_better = frozenset({'real'}), {'x': None}\n"
        "    def __init__(self, way: Way = 'up', maybe: Way | None = None, pair: tuple[int, ...] = (1, 2),\n"
        "                 file: Path = Path('a'), net: Spec = Spec('generator/x', {'n': 1}),\n"
        "                 t: Tensor | None = None):\n"
        "        pass\n"
        "    def update(self, *, real): ...\n    def compute(self): ...\n    def merge(self, other): ...\n"
        "    def reset(self): ...\n"
        "@hookimpl\n"
        "def genxai_components():\n    return [Component('metric', 'spelt', 'spelt:Spelt', 's')]\n"
    )
    code, out, err = call("info", "metric/spelt", "--plugin", tmp_path / "spelt.py", "--json")
    sys.modules.pop("spelt", None)
    assert code == 0, err
    told = json.loads(out)
    assert (told["distribution"], told["version"], told["paper"]) == ("spelt.py", "file", "")
    assert told["contract"] == {"needs": "real", "gives": "x (no direction)"}
    assert {p["name"]: (p["type"], p["default"]) for p in told["parameters"]} == {
        "way": ("'up' | 'down'", "up"),
        "maybe": ("'up' | 'down' | None", None),
        "pair": ("tuple[int, ...]", [1, 2]),
        "file": ("Path", "a"),
        "net": ("Spec", {"use": "generator/x", "with": {"n": 1}}),
        "t": ("Tensor | None", None),
    }


def test_info_of_a_function_that_builds_a_model_tells_what_the_model_can_do(genxai):
    plugin = ROOT / "examples/data/wgan_gp.py"
    done = genxai("info", "generator/wgan-gp", "--plugin", plugin, "--json", check=True)
    told = json.loads(done.stdout)
    assert told["contract"] == {"capabilities": "CanSample, HasLatents"}
    assert [(p["name"], p["type"], p["required"]) for p in told["parameters"]] == [("weights", "Path", True)]


# -- doctor, and a plugin that is broken --------------------------------------------------------------------------


def test_doctor_finds_nothing_wrong(genxai):
    done = genxai("doctor")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all is well\n")
    told = json.loads(genxai("doctor", "--json", check=True).stdout)
    assert told["ok"] is True
    assert told["problems"] == []
    assert {p["distribution"] for p in told["plugins"]} >= {"genxai-core", "genxai-data"}
    assert set(told["environment"]) >= {"genxai", "python", "torch", "cuda", "cache", "catalogue"}


BROKEN = "raise RuntimeError('the plug\\nis out')\n"


def test_a_broken_plugin_breaks_nothing_else_and_the_doctor_names_it(genxai, fake_distribution):
    broken = fake_distribution("somebodys-plugin", BROKEN)
    whole = json.loads(genxai("list", "--json", check=True).stdout)
    done = genxai("list", "--json", check=True, **broken)
    assert json.loads(done.stdout) == whole
    failure = "plugin somebodys-plugin 9.9 failed to load: RuntimeError: the plug is out"
    assert done.stderr == f"warning: {failure} (see 'genxai doctor')\n"
    assert "signed gradient" in genxai("info", "explainer/saliency", check=True, **broken).stdout

    doctor = genxai("doctor", "--json", **broken)
    assert doctor.returncode == 3
    told = json.loads(doctor.stdout)
    assert told["ok"] is False
    assert told["problems"] == [failure]
    states = {p["distribution"]: p["state"] for p in told["plugins"]}
    assert states.pop("somebodys-plugin") == "failed"
    assert set(states.values()) == {"loaded"}

    nobody = genxai("info", "explainer/not-there-at-all", **broken)
    assert nobody.returncode == 2
    assert "somebodys-plugin" in nobody.stderr


def test_strict_makes_a_broken_plugin_an_error(genxai, fake_distribution):
    done = genxai("list", GENXAI_STRICT="1", **fake_distribution("somebodys-plugin", BROKEN))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: plugin somebodys-plugin 9.9 failed to load: RuntimeError: the plug is out")
    assert one_line(done.stderr)


def test_components_of_a_known_plugin_that_failed_are_marked_and_their_cause_is_told(genxai, fake_distribution):
    broken = fake_distribution("genxai-zoo", BROKEN)  # it comes first on the path, so it hides the installed one
    rows = json.loads(genxai("list", "--json", check=True, **broken).stdout)
    failed = {r["name"] for r in rows if r["status"] == "failed"}
    assert failed == {name for name, e in registry.catalogue().items() if e.distribution == "genxai-zoo"}
    assert all(r["status"] == "installed" for r in rows if r["distribution"] != "genxai-zoo")
    done = genxai("info", "generator/dcgan", **broken)
    assert done.returncode == 3
    assert "genxai-zoo 9.9 failed to load: RuntimeError: the plug is out" in done.stderr
    assert one_line(done.stderr)


def test_a_target_that_cannot_be_imported_is_the_doctors_business_only(genxai, fake_distribution):
    source = (
        "from genxai_core import Component, hookimpl\n@hookimpl\ndef genxai_components():\n"
        "    return [Component('metric', 'hollow', 'no_such_module_at_all:M', 'nothing behind it')]\n"
    )
    hollow = fake_distribution("somebodys-plugin", source)
    assert "◆ metric/hollow" in genxai("list", check=True, **hollow).stdout
    done = genxai("doctor", **hollow)
    assert done.returncode == 3
    assert "✗ metric/hollow (somebodys-plugin 9.9): importing no_such_module_at_all:M failed" in done.stdout


def test_a_plugin_that_is_switched_off_says_so(genxai):
    off = {"GENXAI_DISABLE_PLUGINS": "genxai-zoo"}
    rows = json.loads(genxai("list", "--json", check=True, **off).stdout)
    assert {r["distribution"] for r in rows if r["status"] == "disabled"} == {"genxai-zoo"}
    done = genxai("info", "generator/dcgan", **off)
    assert done.returncode == 3
    assert "GENXAI_DISABLE_PLUGINS" in done.stderr
    assert genxai("doctor", **off).returncode == 0  # whoever switched it off knows


# -- the program itself -------------------------------------------------------------------------------------------


def test_version_and_help(call):
    assert call("--version") == (0, f"{__version__}\n", "")
    code, bare, _ = call()
    assert code == 0
    for command in ("list", "info", "check", "run", "report", "doctor", "schema"):
        assert re.search(rf"^  {command} ", bare, re.M)
        code, text, _ = call(command, "--help")
        assert (code, text.split("\n")[0].split(" [")[0]) == (0, f"Usage: genxai {command}")


def test_the_module_and_the_script_are_the_same_program(genxai, tmp_path):
    script = Path(sys.executable).with_name("genxai")
    for arguments in (["--help"], ["list"], ["info", "no/thing"]):
        one = genxai(*arguments)
        other = subprocess.run([script, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)


USAGE = {
    "unknown command": (["lst"], 2, "lst"),
    "unknown option": (["list", "--nope"], 2, "--nope"),
    "unknown kind": (["list", "--kind", "explanier"], 2, "explanier"),
    "missing argument": (["info"], 2, "NAME"),
    "one argument too many": (["info", "explainer/cam", "more"], 2, "more"),
    "option without a value": (["check", "--set"], 2, "--set"),
    "not a number": (["run", "p.yaml", "--batch-size", "many"], 2, "--batch-size"),
    "no such file": (["run", "nowhere.yaml"], 2, "nowhere.yaml"),
    "no such plugin file": (["info", "explainer/cam", "--plugin", "nowhere.py"], 2, "nowhere.py"),
    "not a run": (["report", "nowhere"], 2, "nowhere"),
    "unknown component": (["info", "explainer/cma"], 2, "did you mean explainer/cam?"),
}


@pytest.mark.parametrize("case", USAGE)
def test_an_error_is_one_line_on_stderr_and_an_object_with_json(call, monkeypatch, tmp_path, case):
    monkeypatch.chdir(tmp_path)
    arguments, expected, mentions = USAGE[case]
    code, out, err = call(*arguments)
    assert (code, out) == (expected, "")
    assert err.startswith("error: ")
    assert one_line(err)
    assert mentions in err

    code, out, err_with_json = call(*arguments[:1], "--json", *arguments[1:])
    assert code == expected
    assert err_with_json == err
    told = json.loads(out)
    assert set(told) == {"error"}
    assert set(told["error"]) == {"type", "message"}
    assert "error: " + told["error"]["message"] == err.rstrip("\n")


def test_an_error_that_is_no_ones_message_is_told_on_one_line_and_its_traceback_on_demand(call, monkeypatch):
    def fail(name):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("genxai_core.describing.describe", fail)
    code, _, err = call("info", "explainer/cam")
    assert code == 1
    assert err.startswith("error: ZeroDivisionError: two lines")
    assert one_line(err)
    monkeypatch.setenv("GENXAI_TRACEBACK", "")  # set back at the end: the option sets it
    code, _, err = call("--traceback", "info", "explainer/cam")
    assert code == 1
    assert "Traceback (most recent call last)" in err


def test_ctrl_c_is_130_and_no_traceback(call, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("genxai_core.describing.describe", interrupt)
    assert call("info", "explainer/cam") == (130, "", "interrupted\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["list"], 0), (["list", "--json"], 0), (["schema"], 0), (["info", "no/thing", "--json"], 2)],
    ids=str,
)
def test_a_reader_that_has_gone_is_no_error(tmp_path, arguments, expected, unbuffered):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "genxai_core", *arguments],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write_end)
    assert done.returncode == expected
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr == "" or one_line(done.stderr)
