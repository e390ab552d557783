"""The contest: who takes part, with what, and what is told of whom."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from genxai_bench import contest, tables
from genxai_bench.scoreboard import Scoreboard
from genxai_bench.task import FRAME

from genxai_core import Attribution, Explanation, Runtime, Spec, Trained, registry
from genxai_core.errors import BadParameter, ExplainerError, InputError, Interrupted, UnknownComponent

QUIET = Runtime(quiet=True, device="cpu")
GRADIENT, BLIND, RUDE = (Spec(f"explainer/spot-{name}") for name in ("gradient", "blind", "rude"))
NOISY = Spec("explainer/spot-gradient", {"noise": 0.4})


@pytest.fixture
def board(entrants):
    return contest.run([GRADIENT, BLIND, NOISY, RUDE], [entrants.SpotTask()], range(5), QUIET)


# -- a contest ----------------------------------------------------------------------------------------------------


def test_every_contestant_meets_every_instance(board):
    assert board.contestants("spot") == ["explainer/spot-gradient", contest.label(NOISY), "explainer/spot-blind"]
    for name in (*board.contestants("spot"), *FRAME):
        for measure in ("energy", "miss"):
            assert list(board.scores("spot", name, measure)) == [0, 1, 2, 3, 4]
    assert set(board.scores("spot", "explainer/spot-gradient").values()) == {1.0}
    assert list(board.scores("spot", "explainer/spot-blind").values()) == pytest.approx([16 / 144] * 5)
    assert set(board.scores("spot", "oracle", "miss").values()) == {0.0}
    assert set(board.seconds["spot"]) == set(board.contestants("spot"))
    assert all(seconds > 0 for seconds in board.seconds["spot"].values())


def test_scores_are_those_of_the_explanation(board, entrants):
    task = entrants.SpotTask()
    problem = task.problem(2)
    explainer = registry.create("explainer/spot-gradient", noise=0.4, gain=2.0)
    seed = contest.seed_of(task, problem)
    maps = explainer.explain(problem.model, problem.inputs, target=0, runtime=QUIET.with_(seed=seed))
    assert board.scores("spot", contest.label(NOISY))[2] == task.score(problem, maps)["energy"]


def test_who_raises_is_told_and_stops_nobody(board):
    assert board.failures == {"spot": {"explainer/spot-rude": "seed 1: RuntimeError: I do not like these"}}
    assert "explainer/spot-rude" not in board.contestant
    (row,) = (r for r in board.table() if r["contestant"] == "explainer/spot-rude")
    assert row["verdict"] == "failed: seed 1: RuntimeError: I do not like these"
    assert row["mean"] is None


def test_an_interruption_is_not_a_failure(entrants, monkeypatch):
    def stop(*_, **__):
        raise Interrupted("stopped")

    monkeypatch.setattr(entrants.Blind, "_explain", stop)
    with pytest.raises(Interrupted):
        contest.run([BLIND], [entrants.SpotTask()], range(2), QUIET)


def test_an_instance_fills_in_what_is_left_open(entrants):
    task = entrants.SpotTask()
    problem = task.problem(0)
    assert contest.answer(task, GRADIENT, problem, QUIET).notes["gain"] == 2.0
    own = Spec("explainer/spot-gradient", {"gain": 3.0})
    assert contest.answer(task, own, problem, QUIET).notes["gain"] == 3.0
    needy = Spec("explainer/spot-needy")
    target = contest.resolved(needy)
    assert contest.left_open(needy, target, {"gain": 1.0}) == ["friend"]
    assert contest.left_open(needy, target, {"friend": "x"}) == []
    found = contest.run([needy], [task], range(2), QUIET)
    assert "'friend'" in found.failures["spot"]["explainer/spot-needy"]


@dataclass
class Stranger:
    """Constructor parameters whose names are also an instance's; defaults of a stranger's own meaning."""

    t: float = 0.5
    layers: int = 3
    loss: str = "hinge"
    steps: tuple[int, ...] = ()
    mode: Literal["a", "b"] = "a"
    data: object = None


def test_only_what_fits_is_filled_in():
    decided = {"t": 400, "layers": ("a", "b"), "loss": "pearson", "steps": (400,), "mode": "c", "data": [1], "more": 1}
    found = contest.filling(Spec("explainer/x", {"loss": "js"}), Stranger, decided)
    assert found == {"steps": (400,), "data": [1]}
    assert contest.filling(Spec("explainer/x"), Stranger, {**decided, "t": 0.25, "layers": 4, "mode": "b"}) == {
        "t": 0.25,
        "layers": 4,
        "loss": "pearson",
        "steps": (400,),
        "mode": "b",
        "data": [1],
    }
    assert contest.spelled([{"loss": "a", "data": [1]}, {"loss": "b", "data": [2]}]) == "loss=a/b, data"


def test_the_board_says_what_was_filled_in(board, tmp_path):
    assert board.filled == {
        "spot": {
            "explainer/spot-gradient": "gain=2.0",
            contest.label(NOISY): "gain=2.0",
            "explainer/spot-blind": "gain=2.0",
        }
    }
    assert "  – filled in by the task: spot-gradient: gain=2.0" in list(tables.lines(board))
    assert Explanation.load(replace(board, provenance={}).save(tmp_path / "board")).filled == board.filled


def test_the_seed_that_contestants_get_is_not_the_instances(entrants, monkeypatch):
    seen = []
    monkeypatch.setattr(entrants.Gradient, "stochastic", True)
    real = Runtime.with_
    monkeypatch.setattr(
        Runtime, "with_", lambda self, **changes: seen.append(changes.get("seed")) or real(self, **changes)
    )
    contest.run([GRADIENT], [entrants.SpotTask()], range(3), QUIET)
    given = {seed for seed in seen if seed is not None}
    task = entrants.SpotTask()
    assert given == {contest.seed_of(task, task.problem(seed)) for seed in range(3)}
    assert len(given) == 3
    assert not given & set(range(1000))
    other = entrants.TrainSpot()
    assert contest.seed_of(other, other.problem(0)) not in given


def test_nothing_that_a_contestant_writes_reaches_those_after_it(entrants, monkeypatch):
    """Into its samples, the model, what is decided, or a trainer into its data: the order makes no difference."""
    spoiled = []

    def explain(self, model, samples, target):
        samples.images.zero_()
        model.region.zero_()
        self.gain["list"].clear()
        spoiled.append(1)
        return Attribution(torch.ones_like(samples.images[:, 0]), target)

    class Decides(entrants.SpotTask):
        shared = {"list": [1]}

        def problem(self, seed):
            return replace(super().problem(seed), decided={"gain": self.shared})

    monkeypatch.setattr(entrants.Blind, "__init__", lambda self, gain: setattr(self, "gain", gain))
    monkeypatch.setattr(entrants.Blind, "accepts", "samples")
    monkeypatch.setattr(entrants.Blind, "_explain", explain)
    task = Decides()
    before = contest.run([NOISY], [task], range(2), QUIET)
    both = contest.run([BLIND, NOISY], [task], range(2), QUIET)
    assert len(spoiled) == 2
    assert both.failures == {}
    assert Decides.shared == {"list": [1]}
    assert both.scores("spot", contest.label(NOISY)) == before.scores("spot", contest.label(NOISY))


def test_a_trainer_that_spoils_its_data_spoils_only_its_own(entrants, monkeypatch):
    seen = []

    def fit(self, data, runtime):
        seen.append(float(data.images.abs().sum()))
        data.images.zero_()
        return Trained({"discriminator": entrants.Biased(0.5).eval()})

    monkeypatch.setattr(entrants.BiasTrainer, "_fit", fit)
    specs = [Spec("trainer/spot-bias"), Spec("trainer/spot-bias", {"scale": 0.2})]
    contest.run(specs, [entrants.TrainSpot()], range(2), QUIET)
    assert seen[:2] == seen[2:]
    assert min(seen) > 0


def test_a_trainer_is_judged_by_the_model_that_it_trains(entrants):
    trainer = Spec("trainer/spot-bias")
    board = contest.run([trainer, GRADIENT], [entrants.TrainSpot(n=7)], range(2), QUIET)
    assert list(board.scores("train-spot", "trainer/spot-bias").values()) == pytest.approx([0.7, 0.7])
    assert board.left_out == {"train-spot": {"explainer/spot-gradient": "is an explainer; the task judges trainers"}}


def test_a_trainer_whose_models_lack_the_capability_has_failed(entrants, monkeypatch):
    monkeypatch.setattr(entrants.TrainSpot, "explains", "HasDensity")
    board = contest.run([Spec("trainer/spot-bias")], [entrants.TrainSpot()], range(2), QUIET)
    said = board.failures["train-spot"]["trainer/spot-bias"]
    assert said == "seed 0: InputError: the task judges what has HasDensity; trainer/spot-bias trained Biased"


def test_seeds_make_the_scores_and_nothing_else_does(entrants, board):
    again = contest.run([RUDE, NOISY, GRADIENT], [entrants.SpotTask()], [3, 4, 2, 1, 0], QUIET.with_(seed=9))
    for name in (contest.label(NOISY), "explainer/spot-gradient", *FRAME):
        assert again.scores("spot", name) == board.scores("spot", name)


def test_a_machine_with_another_device_plays_the_same(entrants, board):
    """Instances are on the CPU; a runtime of elsewhere is no reason for all to fail."""
    found = contest.run([GRADIENT, NOISY], [entrants.SpotTask()], range(5), QUIET.with_(device="cuda"))
    assert found.failures == {}
    assert found.scores("spot", contest.label(NOISY)) == board.scores("spot", contest.label(NOISY))


# -- who fits -----------------------------------------------------------------------------------------------------


def test_why_a_component_does_not_fit(entrants, monkeypatch):
    task, trains = entrants.SpotTask(), entrants.TrainSpot()
    problem = task.problem(0)
    assert contest.misfit(task, entrants.Gradient) == contest.misfit(task, entrants.Gradient, problem) == ""
    assert contest.misfit(task, entrants.BiasTrainer) == "is a trainer; the task judges explainers"
    assert contest.misfit(trains, entrants.Gradient) == "is an explainer; the task judges trainers"
    assert contest.misfit(trains, entrants.BiasTrainer) == ""
    assert contest.misfit(task, registry.resolve("dataset/scenes")) == "is neither an explainer nor a trainer"
    said = "explains what has HasFeatures; the task's Spot is none"
    assert contest.misfit(task, entrants.Featured) == contest.misfit(task, entrants.Featured, problem) == said
    assert contest.misfit(task, entrants.Latent, problem) == "takes latents; the task gives none"
    monkeypatch.setattr(entrants.Gradient, "returns", Scoreboard)
    assert contest.misfit(task, entrants.Gradient) == "returns scoreboard; the task judges attribution"
    monkeypatch.undo()
    monkeypatch.setattr(entrants.Gradient, "explains", "generator")
    assert contest.misfit(task, entrants.Gradient) == "explains a generator; the task has a discriminator"
    monkeypatch.setattr(entrants.Gradient, "explains", "nothing")
    assert contest.misfit(task, entrants.Gradient) == "brings its own models"
    monkeypatch.setattr(entrants.BiasTrainer, "produces", {"generator": "generator"})
    assert contest.misfit(trains, entrants.BiasTrainer) == "trains no discriminator"


def test_one_that_has_the_capability_fits(entrants, monkeypatch):
    monkeypatch.setattr(entrants.Spot, "features", lambda self, images: images.flatten(1), raising=False)
    assert contest.misfit(entrants.SpotTask(), entrants.Featured) == ""


# -- what is refused ----------------------------------------------------------------------------------------------


def test_what_cannot_be_a_contest_is_refused(entrants):
    task = entrants.SpotTask()
    with pytest.raises(InputError, match="no tasks"):
        contest.run([GRADIENT], [], range(2), QUIET)
    with pytest.raises(InputError, match="at least two different"):
        contest.run([GRADIENT], [task], [0], QUIET)
    with pytest.raises(InputError, match="at least two different"):
        contest.run([GRADIENT], [task], [1, 1], QUIET)
    with pytest.raises(InputError, match="twice"):
        contest.run([GRADIENT, GRADIENT], [task], range(2), QUIET)
    with pytest.raises(InputError, match="twice"):
        contest.run([GRADIENT], [task, entrants.SpotTask(n=2)], range(2), QUIET)
    with pytest.raises(UnknownComponent, match="explainer/spot-gradient"):
        contest.run([Spec("explainer/spot-gradiant")], [task], range(2), QUIET)
    with pytest.raises(BadParameter, match="did you mean 'gain'"):
        contest.run([Spec("explainer/spot-gradient", {"gian": 1.0})], [task], range(2), QUIET)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"energy": math.nan, "miss": 0.0}, "its score 'energy' of seed 0 is nan"),
        ({"energy": 1.0}, "scores energy where it declares energy, miss"),
        ({"energy": 1.0, "miss": 0.0, "more": 0.0}, "scores energy, miss, more where"),
    ],
)
def test_a_task_that_scores_wrongly_is_named(entrants, monkeypatch, scores, said):
    monkeypatch.setattr(entrants.SpotTask, "score", lambda self, problem, answer: scores)
    with pytest.raises(ExplainerError, match=f"task spot: {said}"):
        contest.run([GRADIENT], [entrants.SpotTask()], range(2), QUIET)


def test_a_score_that_is_not_finite_for_one_contestant_is_that_ones_failure(entrants, monkeypatch):
    real = entrants.SpotTask.score

    def score(self, problem, answer):
        blind = bool((answer.maps == 1).all()) and "explainer" in answer.provenance
        return {"energy": math.inf, "miss": 0.0} if blind else real(self, problem, answer)

    monkeypatch.setattr(entrants.SpotTask, "score", score)
    board = contest.run([BLIND, GRADIENT], [entrants.SpotTask()], range(2), QUIET)
    assert "task spot: its score 'energy' of seed 0 is inf" in board.failures["spot"]["explainer/spot-blind"]
    assert board.contestants("spot") == ["explainer/spot-gradient"]


# -- names --------------------------------------------------------------------------------------------------------


def test_names_hold_the_parameters():
    tunnel = Spec("explainer/noise-tunnel", {"explainer": Spec("explainer/cam", {"layer": "a.1"}), "samples": 4})
    assert contest.label(tunnel) == (
        "explainer/noise-tunnel:explainer={use: explainer/cam, with: {layer: a.1}},samples=4"
    )
    assert (
        contest.short(contest.label(tunnel))
        == "noise-tunnel:explainer={use: explainer/cam, with: {layer: a.1}},samples=4"
    )
    assert (
        contest.short("explainer/noise-tunnel:explainer={use: explainer/saliency}") == "noise-tunnel:explainer=saliency"
    )
    assert contest.label(Spec("explainer/x", {"a": None, "b": True, "c": (1, 2.5)})) == (
        "explainer/x:a=null,b=true,c=[1, 2.5]"
    )
