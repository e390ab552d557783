"""The board of a contest: intervals, the test, verdicts and what they come to, everywhere the same."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from genxai_bench import contest, figure, statistics, tables
from genxai_bench.scoreboard import Scoreboard
from scipy import stats

from genxai_core import Explanation, Runtime, Spec
from genxai_core.errors import ExplainerError


@pytest.fixture
def board(entrants):
    specs = [Spec(f"explainer/spot-{name}") for name in ("gradient", "blind", "rude")]
    noisy = Spec("explainer/spot-gradient", {"noise": 0.4})
    return contest.run([*specs, noisy], [entrants.SpotTask()], range(5), Runtime(quiet=True, device="cpu"))


def made(scores, *, lower=False):
    """A board of one task with these scores by contestant; the oracle, and heuristic, random and constant at 0."""
    seeds = len(next(iter(scores.values())))
    level = np.linspace(-0.01, 0.01, seeds)
    scores = {"oracle": [1.0] * seeds, "random": level, "heuristic": -level, "constant": [0.0] * seeds, **scores}
    rows = [("t", name, "m", seed, float(v)) for name, values in scores.items() for seed, v in enumerate(values)]
    task, contestant, measure, seed, value = zip(*rows)
    tasks = {
        "t": {
            "says": "a task",
            "heuristic": "edge filter",
            "measures": {"m": {"says": "a measure", "perfect": 1.0, "chance": 0.0, "higher_is_better": not lower}},
        }
    }
    return Scoreboard(task, contestant, measure, seed, torch.tensor(value, dtype=torch.float64), tasks=tasks)


def said(board, against="heuristic"):
    return {v["contestant"]: (v["verdict"], v["says"]) for v in board.verdicts() if v["against"] == against}


def test_intervals_are_students():
    values = [0.1, 0.4, 0.35, 0.2]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    (row,) = (r for r in made({"a": values}).means() if r["contestant"] == "a")
    assert row == {
        "task": "t",
        "contestant": "a",
        "measure": "m",
        "mean": pytest.approx(0.2625),
        "low": pytest.approx(low),
        "high": pytest.approx(high),
    }
    assert all(math.isnan(v) for v in statistics.interval([1.0])[1:])


def test_the_test_is_paired_and_corrected_after_holm():
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(mean, 0.3, 6) for name, mean in {"a": 0.5, "b": 0.3, "c": 0.1}.items()}
    board = made(scores)
    theirs = np.array(list(board.scores("t", "heuristic").values()))
    ps = {name: stats.ttest_rel(values, theirs).pvalue for name, values in scores.items()}
    smallest, middle, largest = sorted(ps, key=ps.get)
    first = min(1.0, 3 * ps[smallest])
    second = max(first, min(1.0, 2 * ps[middle]))
    corrected = {smallest: first, middle: second, largest: max(second, ps[largest])}
    for row in board.verdicts():
        if row["against"] == "heuristic":
            assert row["p"] == pytest.approx(corrected[row["contestant"]])
            assert row["difference"] == pytest.approx(np.mean(scores[row["contestant"]] - theirs))


def test_holms_example():
    """Of the original article's kind: the smallest of m times m, then m - 1…, never decreasing, at most 1."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_verdicts_in_words():
    level = np.linspace(-0.01, 0.01, 5)
    board = made({"good": 0.5 + level, "even": level[::-1] * 3, "bad": level - 0.5})
    assert said(board) == {
        "good": ("better", "better than the edge filter"),
        "even": ("same", "no difference that can be told"),
        "bad": ("worse", "loses to the edge filter"),
    }
    assert said(board, "random")["bad"] == ("worse", "loses to random")
    assert said(made({"a": 0.5 + level}, lower=True))["a"][0] == "worse"


def test_better_than_a_heuristic_below_chance_is_not_all(entrants):
    level = np.linspace(-0.01, 0.01, 5)
    board = made({"heuristic": level - 0.5, "even": level[::-1] * 3, "good": 0.5 + level})
    assert board.says("t", "even") == "better than the edge filter, not than random or constant"
    assert board.says("t", "good") == "better than the edge filter"
    assert board.says("t", "oracle") == ""
    assert {r["contestant"]: r["verdict"] for r in board.table()}["even"] == board.says("t", "even")


def test_one_standing_is_what_every_place_counts():
    """Maps of nothing win no task whose edge filter is worse than nothing: not in words, summary, picture or text."""
    level = np.linspace(-0.01, 0.01, 5)
    nothing = {"zero": np.zeros(5), "faint": level[::-1] * 3}
    board = made({"heuristic": level - 0.5, "good": 0.5 + level, "bad": level - 0.2, **nothing})
    assert {v["verdict"] for v in board.verdicts() if v["against"] == "heuristic"} == {"better"}
    standing = {name: board.standing("t", name) for name in board.contestants("t")}
    assert standing == {"good": "better", "zero": "same", "faint": "same", "bad": "worse"}
    assert board.says("t", "bad") == "better than the edge filter, loses to random and constant"
    summary = board.summary()
    assert summary["better than heuristic, random and constant"] == "1 of 4 times"
    assert summary["worse than one of them"] == 1
    last = list(tables.lines(board))[-4:]
    assert "good: better than heuristic, random and constant on t" in last
    assert sum("better than" in line for line in last) == 1
    assert {row.name: row.verdict for row in figure._rows(board, "t") if row.name in standing} == standing
    with pytest.raises(ExplainerError, match="no verdict on 'oracle'"):
        board.standing("t", "oracle")


def test_one_who_loses_to_a_constant_alone_is_said_to():
    level = np.linspace(-0.01, 0.01, 5)
    board = made({"constant": 0.5 + level, "a": np.array([0.4, -0.4, 0.3, -0.3, 0.0])})
    assert board.says("t", "a") == "loses to constant"
    assert board.standing("t", "a") == "worse"
    assert made({"a": level - 0.5}).says("t", "a") == "loses to the edge filter"


def test_a_difference_that_does_not_matter_is_none():
    """The edge map with a hair of the gradient: surely more than the edge map, and by nothing."""
    edge = np.array([0.1, 0.3, 0.2, 0.15, 0.25])
    hair = np.array([3.1e-7, 3.9e-7, 3.7e-7, 4.0e-7, 3.3e-7])
    assert stats.ttest_rel(edge + hair, edge).pvalue < 1e-4
    assert said(made({"heuristic": edge, "a": edge + hair}))["a"][0] == "same"
    assert said(made({"heuristic": edge, "a": edge + 1000 * hair}))["a"][0] == "better"


def test_few_instances_tell_nothing_however_alike_they_are():
    for seeds in (2, 3, 4):
        board = made({"a": [0.5] * seeds, "b": [0.9] * seeds})
        assert {row["verdict"] for row in board.verdicts()} == {"same"}
        assert board.says("t", "b") == "no verdict from fewer than 5 instances"
    assert {row["verdict"] for row in made({"a": [0.5] * 5}).verdicts()} == {"better"}


def test_differences_without_spread_are_given_the_least_that_counts():
    gain = np.full(6, 0.25)
    t = 0.25 / (1e-4 / math.sqrt(6))
    assert statistics.paired(gain, 1e-4) == pytest.approx(2 * stats.t.sf(t, 5))
    assert 0 < statistics.paired(gain) < statistics.paired(gain, 1e-4)
    assert statistics.paired(np.zeros(6), 1e-4) == 1.0
    rough = np.array([0.1, 0.3, 0.2])
    assert statistics.paired(rough, 1e-4) == pytest.approx(stats.ttest_1samp(rough, 0).pvalue)


def test_who_answers_as_the_opponent_does_is_no_better_by_the_last_bit():
    board = made({"same": np.full(5, 1e-13), "sure": np.full(5, 0.25)})
    assert said(board, "constant") == {
        "same": ("same", "no difference that can be told"),
        "sure": ("better", "better than constant"),
    }


def test_more_contestants_make_a_verdict_harder():
    gain = np.array([0.02, 0.3, 0.28, 0.25, 0.05])
    rng = np.random.default_rng(1)
    alone = said(made({"a": gain}))["a"][0]
    crowd = said(made({"a": gain, **{f"b{i}": rng.normal(0, 0.2, 5) for i in range(9)}}))["a"][0]
    assert (alone, crowd) == ("better", "same")


def test_ranks_and_table():
    board = made({"b": [0.5, 0.5], "a": [0.5, 0.5], "c": [0.1, 0.2], "z": [0.9, 0.8]})
    assert board.ranks("t") == {"z": 1, "a": 2, "b": 2, "c": 4}
    assert [r["contestant"] for r in board.table()][:4] == ["oracle", "z", "a", "b"]
    assert "edge filter" in {r["contestant"] for r in board.table()}
    flipped = made({"b": [0.5, 0.5], "z": [0.9, 0.8]}, lower=True)
    assert flipped.ranks("t") == {"b": 1, "z": 2}


def test_a_board_saves_and_loads(board, tmp_path):
    board = replace(board, provenance={"seed": 0})
    found = Explanation.load(board.save(tmp_path / "board"))
    assert isinstance(found, Scoreboard)
    assert found.table() == board.table()
    assert found.verdicts() == board.verdicts()
    assert (found.failures, found.seconds, found.provenance) == (board.failures, board.seconds, board.provenance)
    assert torch.equal(found.value, board.value)
    assert len(found.to_dataframe()) == 4 + 4


def test_a_board_that_is_not_whole_is_refused(board):
    with pytest.raises(ExplainerError, match="differ in length"):
        replace(board, seed=board.seed[:-1])
    with pytest.raises(ExplainerError, match="no task 'spot' with a measure 'energy' is described"):
        replace(board, tasks={})
    broken = board.value.clone()
    broken[0] = math.nan
    with pytest.raises(ExplainerError, match="oracle scores nan in energy on spot, seed 0"):
        replace(board, value=broken)
    with pytest.raises(ExplainerError, match="no score"):
        board.scores("spot", "nobody")
    with pytest.raises(ExplainerError, match="no task 'x'; there are: spot"):
        board.first("x")
