"""`explainer/bench` in Python, in a pipeline and in the report; the picture of a board."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from genxai_bench import contest, figure
from genxai_bench.bench import Bench
from genxai_bench.plugin import genxai_report_sections
from genxai_bench.scoreboard import Scoreboard
from genxai_bench.tasks import TASKS

from genxai_core import Explanation, Runtime, Spec, create, pipeline, safe_yaml, storage
from genxai_core.errors import BadParameter, InputError
from genxai_core.pipeline import schema

ROOT = Path(__file__).resolve().parents[3]
QUIET = Runtime(quiet=True, device="cpu")
PIPELINE = """
genxai: 1
name: small
steps:
  verdict:
    use: explainer/bench
    with:
      contestants: [{use: explainer/saliency}, {use: explainer/cam, with: {method: eigencam}}]
      tasks: [shortcut-patch]
      seeds: 2
"""


@pytest.fixture
def board(entrants):
    specs = [Spec(f"explainer/spot-{name}") for name in ("gradient", "blind", "rude", "latent")]
    return contest.run(specs, [entrants.SpotTask(), entrants.TrainSpot()], range(5), QUIET)


# -- the explainer ------------------------------------------------------------------------------------------------


def test_it_holds_explainers_against_a_task(entrants):
    bench = create("explainer/bench", contestants=(Spec("explainer/saliency"),), tasks=("shortcut-patch",), seeds=2)
    found = bench.explain(runtime=QUIET)
    assert isinstance(found, Scoreboard)
    assert found.contestants("shortcut-patch") == ["explainer/saliency"]
    assert sorted(found.scores("shortcut-patch", "oracle")) == [0, 1]
    assert found.seconds == {}  # else two equal runs would differ
    assert found.provenance["explainer"]["use"] == "explainer/bench"
    later = bench.explain(runtime=QUIET.with_(seed=1))
    assert later.scores("shortcut-patch", "oracle").keys() == {1, 2}
    assert (
        later.scores("shortcut-patch", "explainer/saliency")[1]
        == (found.scores("shortcut-patch", "explainer/saliency")[1])
    )
    with pytest.raises(InputError, match="brings its own models"):
        bench.explain(torch.nn.Identity())


def test_without_tasks_all_that_fit_are_run(entrants, monkeypatch):
    made = [entrants.SpotTask(), entrants.TrainSpot()]
    monkeypatch.setattr("genxai_bench.entering.chosen", lambda names: made)
    found = Bench((Spec("explainer/spot-blind"),), seeds=2).explain(runtime=QUIET)
    assert list(found.tasks) == ["spot"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"contestants": ()}, "there are no contestants"),
        ({"contestants": (Spec("explainer/saliency"),), "seeds": 1}, "at least 2"),
        ({"contestants": (Spec("explainer/saliency"),), "tasks": ("nothing",)}, "no task is named 'nothing'"),
    ],
)
def test_what_cannot_be_run_is_refused_when_it_is_made(params, said):
    with pytest.raises(BadParameter, match=said):
        create("explainer/bench", **params)


def test_in_a_pipeline_and_its_report(tmp_path):
    plan = pipeline.plan(schema.from_document(safe_yaml.parse(PIPELINE, "small.yaml"), tmp_path))
    done = pipeline.run(plan, out=tmp_path / "run", cache=tmp_path / "cache", runtime=QUIET)
    board = Explanation.load(tmp_path / "run/steps/verdict/result")
    assert board.contestants("shortcut-patch")[0] == "explainer/saliency"
    report = done.report.read_text()
    for text in ("cam:method=eigencam", "shortcut-patch", "made so that the right answer is known", "edge filter"):
        assert text in report
    again = pipeline.run(plan, out=tmp_path / "again", cache=tmp_path / "other", runtime=QUIET)
    hashes = [storage.read_json(folder / "manifest.json")["hashes"] for folder in (done.out, again.out)]
    assert hashes[0] == hashes[1]


# -- the report ---------------------------------------------------------------------------------------------------


def test_a_section_for_every_task(board):
    spot, train = genxai_report_sections(board)
    assert (spot.title, train.title) == ("spot", "train-spot")
    assert "explainer/spot-rude failed: seed 1: RuntimeError: I do not like these" in spot.text
    assert "explainer/spot-latent does not fit: it takes latents; the task gives none" in spot.text
    rows = {row["contestant"]: row for row in spot.table}
    assert list(rows)[:2] == ["oracle", "spot-gradient"]
    assert rows["spot-gradient"]["better than"] == "edge filter, random, constant"
    assert rows["spot-blind"]["rank"] == 2
    assert rows["edge filter"]["better than"] == ""
    assert len({tuple(row) for row in spot.table}) == 1
    assert (spot.note == "", "models that were made" in train.note) == (True, True)
    assert genxai_report_sections(object()) == []


def test_a_board_sums_itself_up(board):
    assert board.summary() == {
        "tasks": 2,
        "contestants": 3,
        "instances of each": 5,
        "better than heuristic, random and constant": "1 of 2 times",
        "worse than one of them": 0,
        "failed": 1,
    }


# -- the picture --------------------------------------------------------------------------------------------------


def panels(drawn):
    return {axis.get_title(): axis for axis in drawn.axes}


def test_the_picture_has_a_panel_for_every_task_and_a_row_for_everyone(board):
    found = panels(board.plot())
    assert list(found) == ["spot", "train-spot"]
    shown = [text.get_text() for text in found["spot"].texts]
    assert shown[:4] == ["oracle", "1.00", "spot-gradient", "1.00"]
    assert shown[-2:] == ["spot-rude", "failed"]
    assert "edge filter" in shown


def test_perfect_is_at_the_right_whatever_the_direction(board):
    tasks = {name: {**about, "measures": dict(about["measures"])} for name, about in board.tasks.items()}
    measures = dict(reversed(tasks["spot"]["measures"].items()))
    turned = dataclasses.replace(board, tasks={**tasks, "spot": {**tasks["spot"], "measures": measures}})
    assert turned.first("spot") == "miss"
    for drawn, ends in ((board.plot(), (0, 1)), (turned.plot(), (1, 0))):
        left, right = panels(drawn)["spot"].get_xlim()
        assert (left < right) == (ends[0] < ends[1])
        assert abs(right - ends[1]) < 0.1


def test_one_far_below_the_frame_does_not_flatten_the_rest(board):
    value = board.value.clone()
    for i, (name, contestant, measure) in enumerate(zip(board.task, board.contestant, board.measure)):
        if (name, contestant, measure) == ("spot", "explainer/spot-blind", "energy"):
            value[i] = -1000.0
    axis = panels(dataclasses.replace(board, value=value).plot())["spot"]
    assert axis.get_xlim()[0] > -2
    assert any(text.get_text() == "−1e+03" for text in axis.texts)
    assert any(getattr(text, "arrow_patch", None) is not None for text in axis.texts)


def test_thirty_contestants_on_five_tasks_stay_apart():
    rng = np.random.default_rng(0)
    names = [f"explainer/method-{i}:layer=layers.{i}" for i in range(30)]
    rows = [
        (f"task-{t}", name, "m", seed, float(rng.random()))
        for t in range(5)
        for name in ["oracle", "random", "heuristic", "constant", *names]
        for seed in range(3)
    ]
    about = {
        "says": "a task",
        "heuristic": "edge filter",
        "measures": {"m": {"says": "a measure", "perfect": 1.0, "chance": None, "higher_is_better": True}},
    }
    task, contestant, measure, seed, value = zip(*rows)
    tasks = {f"task-{t}": about for t in range(5)}
    failures = {"task-0": dict.fromkeys(("explainer/a", "explainer/b", "explainer/c", "explainer/d"), "no")}
    value = torch.tensor(value, dtype=torch.float64)
    board = Scoreboard(task, contestant, measure, seed, value, tasks=tasks, failures=failures)
    drawn = board.plot()
    width, height = drawn.get_size_inches()
    boxes = []
    for axis in drawn.axes:
        box = axis.get_position()
        rows_here = [text for text in axis.texts if text.get_text().startswith("method-")]
        assert len(rows_here) == 30
        failed = [text for text in axis.texts if text.get_text() == "4 contestants"]
        assert len(failed) == (axis.get_title() == "task-0")
        assert box.height * height / (34 + len(failed)) == pytest.approx(figure.ROW)
        boxes.append((box.x0 * width, box.x1 * width, box.y0 * height, box.y1 * height))
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            apart = a[1] < b[0] or b[1] < a[0] or a[3] < b[2] or b[3] < a[2]
            assert apart, "two panels overlap"
    assert math.isfinite(height)
    assert width < 12


def test_long_names_are_cut_where_they_do_not_differ():
    names = [f"noise-tunnel:explainer=saliency,method={m}" for m in ("smoothgrad", "smoothgrad-sq", "vargrad")]
    cut = {figure._cut(name) for name in names}
    assert len(cut) == 3
    assert all(len(name) == figure.LONGEST and name.startswith("noise-tunnel") for name in cut)


# -- what is written about it -------------------------------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    """The two modules that run the benchmark and write its page."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import bench as runner
    import bench_page as page

    return runner, page


def test_the_page_is_written_from_its_kept_figures(benchmark):
    runner, page = benchmark
    kept = runner.kept_figures()
    assert page.PAGE.read_text() == page.page(kept)
    board = page.board_of(kept)
    assert kept["seeds"] >= 8
    assert len({*board.contestant}) >= 4 + 27
    cells = [cell for by in kept["cells"].values() for cell in by.values()]
    assert all(len(values) == kept["seeds"] for cell in cells for values in cell.get("scores", {}).values())
    for name in page.pictures(board):
        assert (page.DOCS / "images" / name).is_file()
        assert f"../images/{name}" in page.PAGE.read_text()


def test_every_task_and_all_that_is_installed_is_on_the_page(benchmark):
    runner, page = benchmark
    kept = runner.kept_figures()
    assert list(page.board_of(kept).tasks) == list(TASKS)
    entered = {contest.label(spec) for spec in runner.contestants()}
    for cells in kept["cells"].values():
        assert entered <= set(cells)


def test_an_interrupted_benchmark_goes_on_where_it_was(benchmark, entrants, monkeypatch, tmp_path):
    runner, _ = benchmark
    monkeypatch.setattr(runner, "FIGURES", tmp_path / "bench.json")
    monkeypatch.setattr("genxai_bench.tasks.task", lambda name: entrants.SpotTask())
    specs = [Spec(f"explainer/spot-{name}") for name in ("gradient", "rude", "latent")]
    monkeypatch.setattr(runner, "contestants", lambda: specs)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    real = entrants.Rude._explain
    monkeypatch.setattr(entrants.Rude, "_explain", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.run(["spot"], again=False)
    first = json.loads((tmp_path / "bench.json").read_text())["cells"]["spot"]
    assert set(first) == {"oracle", "random", "heuristic", "constant", "explainer/spot-gradient"}
    monkeypatch.setattr(entrants.Rude, "_explain", real)
    runner.run(["spot"], again=False)
    cells = runner.kept_figures()["cells"]["spot"]
    assert {name: cells[name] for name in first} == first
    assert cells["explainer/spot-rude"] == {"failed": "seed 1: RuntimeError: I do not like these"}
    assert cells["explainer/spot-latent"] == {"left_out": "takes latents; the task gives none"}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["how-to/test-an-explainer.md", "reference/bench.md"])
def test_python_on_the_pages_runs(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    (tmp_path / "page.py").write_text("\n".join(blocks))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
