"""`genxai bench`: how contestants are named, what is printed, and what the program ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from genxai_bench import contest, entering, tables
from genxai_bench.tasks import TASKS, task

from genxai_core import Explanation, Spec, cli, registry
from genxai_core.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
OCCLUDE = ROOT / "examples/occlude.py"
ENTRANTS = Path(__file__).with_name("entrants.py")


def genxai(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "genxai_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )


@pytest.fixture
def spot(entrants, monkeypatch):
    """The program in this process, with the tasks of the entrants only: (exit code, output, errors)."""
    made = {"spot": entrants.SpotTask, "train-spot": entrants.TrainSpot}
    before = dict(TASKS)
    TASKS.clear()
    TASKS.update({name: f"entrants:{name}" for name in made})
    monkeypatch.setattr(entering, "task", lambda name: made[name]() if name in made else task(name))
    yield lambda *arguments: cli._main(["bench", *map(str, arguments)])
    TASKS.clear()
    TASKS.update(before)  # in their order


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "use", "params"),
    [
        ("explainer/saliency", "explainer/saliency", {}),
        ("explainer/cam:method=layercam", "explainer/cam", {"method": "layercam"}),
        ("explainer/x:a=1, b=2e-5,c=true,d=null", "explainer/x", {"a": 1, "b": 2e-5, "c": True, "d": None}),
        ("explainer/x:a='1, 2',b=[1, 2]", "explainer/x", {"a": "1, 2", "b": [1, 2]}),
        ("explainer/x@dist:a=b:c=d", "explainer/x@dist", {"a": "b:c=d"}),
        (
            "explainer/t:explainer={use: explainer/cam, with: {method: gradcam}},n=4",
            "explainer/t",
            {"explainer": Spec("explainer/cam", {"method": "gradcam"}), "n": 4},
        ),
    ],
)
def test_contestants_are_read(text, use, params):
    found = entering.parse(text)
    assert (found.use, found.params) == (use, params)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("explainer/cam:gradcam", "'gradcam' is not NAME=VALUE"),
        ("explainer/cam:", "'' is not NAME=VALUE"),
        ("explainer/cam:method=a,", "'' is not NAME=VALUE"),
        ("explainer/cam:=a", "'=a' is not NAME=VALUE"),
        ("explainer/cam:method=a,method=b", "'method' is given twice"),
        ("explainer/cam:method=[a", "not closed"),
        ("explainer/cam:method='a", "not closed"),
        ("explainer/cam:method=&a b", "anchor"),
        ("explainer/cam:method={use: 3}", "a nested component is"),
        ("explainer/cam:method={use: a/b, more: c}", "a nested component is"),
    ],
)
def test_what_cannot_be_read_is_said(text, said):
    with pytest.raises(InputError) as error:
        entering.parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"a": "text", "b": 1, "c": 2.5, "d": None, "e": True},
        {"a": "true", "b": "1", "c": "a, b", "d": "it's {", "e": ""},
        {"a": [1, "x"], "b": {"k": "v"}, "c": Spec("explainer/y", {"z": Spec("explainer/w")})},
    ],
)
def test_a_label_reads_as_what_it_names(params):
    spec = Spec("explainer/x", params)
    found = entering.parse(contest.label(spec))
    assert (found.use, found.params) == (spec.use, spec.params)


# -- who enters ---------------------------------------------------------------------------------------------------


def test_without_names_all_that_fit_enter_and_the_rest_is_told(entrants):
    found = entering.installed([entrants.SpotTask()])
    names = {spec.use for spec in found.specs}
    assert {"explainer/saliency", "explainer/spot-gradient", "explainer/spot-rude"} <= names
    assert not names & {"explainer/bench", "explainer/density-ratio", "explainer/spot-needy", "explainer/spot-featured"}
    said = "needs friend, which no task fills in; name it: explainer/spot-needy:friend=…"
    assert found.not_run["explainer/spot-needy"] == said


def test_tasks_are_those_that_fit_anybody(entrants):
    tasks = [entrants.SpotTask(), entrants.TrainSpot()]
    (only,) = entering.fitting([Spec("explainer/spot-blind")], tasks)
    assert only.name == "spot"
    with pytest.raises(InputError, match="no task fits: explainer/density-ratio returns image-scores"):
        entering.fitting([Spec("explainer/density-ratio")], tasks)
    with pytest.raises(InputError, match="did you mean shortcut-patch"):
        entering.chosen(["shortcut-pach"])


# -- the program --------------------------------------------------------------------------------------------------


def test_a_verdict_as_text(spot, capsys):
    assert spot("explainer/spot-gradient", "explainer/spot-blind") == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["1", "spot-gradient", "1.000", "0.000", "0", "better", "than", "the", "edge", "filter"] in lines
    assert ["·", "oracle", "1.000", "0.000", "0"] in lines
    assert out.splitlines()[-2] == "explainer/spot-gradient: better than heuristic, random and constant on spot"
    assert "train-spot" not in out


def test_a_verdict_as_json(spot, capsys, tmp_path):
    assert spot("explainer/spot-gradient:noise=0.1", "--seeds", 5, "--out", tmp_path / "board", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = (r for r in told["table"] if r["contestant"] == "explainer/spot-gradient:noise=0.1")
    assert (row["rank"], row["verdict"]) == (1, "better than the edge filter")
    assert set(told["tasks"]) == {"spot"}
    saved = Explanation.load(tmp_path / "board")
    assert json.loads(json.dumps(saved.table())) == told["table"]
    assert told["seconds"]["spot"]["explainer/spot-gradient:noise=0.1"] > 0


def test_who_fails_is_told_and_the_program_says_so(spot, capsys):
    assert spot("explainer/spot-rude", "explainer/spot-gradient", "--seeds", 2) == 1
    out = capsys.readouterr().out
    assert "✗ spot-rude failed: seed 1: RuntimeError: I do not like these" in out
    assert "explainer/spot-rude: failed on spot" in out
    assert "1  spot-gradient" in out


def test_one_that_does_not_fit_the_task_that_was_named(spot, capsys):
    arguments = ["explainer/spot-gradient", "trainer/spot-bias", "--task", "train-spot", "--seeds", 2]
    assert spot(*arguments) == 1
    assert "does not fit: spot-gradient: is an explainer; the task judges trainers" in capsys.readouterr().out


def test_a_bare_name_is_an_explainers(spot, capsys):
    assert spot("spot-gradient", "--seeds", 2, "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["seconds"]["spot"].keys() == {"explainer/spot-gradient"}
    assert "1 contestant, 1 task, 2 seeds" in told.err
    assert entering.parse("cam:method=layercam") == Spec("explainer/cam", {"method": "layercam"})


def test_every_reason_is_said_once(entrants):
    tasks = [task(name) for name in ("shortcut-patch", "shortcut-colour", "planted-code", "noise-prediction")]
    with pytest.raises(InputError) as error:
        entering.fitting([Spec("explainer/bench")], tasks)
    assert str(error.value) == (
        "no task fits: explainer/bench returns scoreboard; the task judges attribution, inversion; "
        "is an explainer; the task judges trainers"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["explainer/spot-gradiant"], 2, "did you mean explainer/spot-gradient"),
        (["explainer/spot-gradient:gian=1"], 2, "did you mean 'gain'"),
        (["explainer/spot-gradient:gain=high"], 2, "does not fit float"),
        (["explainer/spot-gradient", "--seeds", "1"], 2, "at least two different"),
        (["spot-gradiant"], 2, "did you mean explainer/spot-gradient"),
        (["spot-gradient", "--task", "train-spot"], 2, "no task fits: explainer/spot-gradient is an explainer"),
        (["explainer/spot-gradient", "--task", "nothing"], 2, "no task is named 'nothing'"),
        (["explainer/density-ratio"], 2, "no task fits: explainer/density-ratio returns image-scores"),
        (["dataset/scenes"], 2, "is neither an explainer nor a trainer"),
        (["--plugin", "nowhere.py"], 2, "no such file"),
    ],
)
def test_bad_input_ends_with_its_code_and_one_line(spot, capsys, arguments, code, said):
    assert spot(*arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


def test_the_list(spot, capsys):
    assert spot("--list", "--json") == 0
    rows = {row["task"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"spot", "train-spot"}
    assert "explainer/spot-gradient" in rows["spot"]["fits"]
    assert "trainer/spot-bias" in rows["train-spot"]["fits"]
    assert "explainer/spot-gradient" not in rows["train-spot"]["fits"]
    assert spot("--list") == 0
    out = capsys.readouterr().out
    assert "judges attribution of a discriminator by energy, miss" in out
    assert "judges trainers of a discriminator by bias" in out


@pytest.mark.slow
def test_a_strangers_explainer_gets_its_verdict(tmp_path):
    """The tutorial's, from its file, in a process of its own."""
    done = genxai("bench", "explainer/occlude", "--task", "shortcut-patch", "--plugin", OCCLUDE, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (row,) = (r for r in told["table"] if r["contestant"] == "explainer/occlude")
    assert row["verdict"] == "better than the edge filter"


@pytest.mark.slow
def test_the_list_of_all_tasks(tmp_path):
    done = genxai("bench", "--list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["task"]: row for row in json.loads(done.stdout)}
    assert list(rows) == list(TASKS)
    assert "explainer/saliency" in rows["shortcut-patch"]["fits"]


def test_the_command_costs_nothing_until_it_runs():
    code = "from genxai_core import cli; cli._main(['bench', '--help']); import sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--task" in done.stdout


def test_numbers_and_columns():
    assert [tables.number(v) for v in (0.12345, -2, 1e-12, 1.5e-5, 12345.6, None)] == [
        "0.123",
        "−2.000",
        "0",
        "1.5e−05",
        "1.23e+04",
        "",
    ]
    assert list(tables.aligned([["a", "1"], ["bbb", "22"]], {1})) == ["a     1", "bbb  22"]


def test_the_entrants_are_a_plugin_of_one_file():
    assert ENTRANTS.is_file()
    assert "explainer/bench" in {c.full_name for c, _ in registry.default().provided()}
