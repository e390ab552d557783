"""A proof of corrections of which it is known what they do: on the bench's planted artifacts."""

from __future__ import annotations

import pytest
import torch
from genxai_correction.proving import START, CorrectionProof
from torch import nn
from torch.nn import functional as F

from genxai_core import Discriminator, Runtime, UnitEdits, create

artifacts = pytest.importorskip("genxai_bench.tasks.artifacts", reason="the bench is not installed")

SEEDS = (0, 1, 2)
RUNTIME = Runtime(device="cpu", quiet=True)


class Cells(nn.Module):
    """Features [N, 48]: the mean colour of each cell of a 4×4 grid."""

    value_range = (-1.0, 1.0)

    def features(self, images):
        return F.adaptive_avg_pool2d(images, 4).flatten(1)


def given(seed, **task):
    made = artifacts.PlantedArtifacts(**task)
    return made, made.problem(seed)


def proof(problem, edits, seed=0, **more):
    some = {"samples": 100, "draws": 2, "masks": "given", **more}
    method = CorrectionProof(edits, problem.decided["classifier"], **some)
    return method.explain(problem.model, runtime=RUNTIME.with_(seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("task", [{}, {"overlap": True}, {"spread": True, "artifacts": 6}], ids=str)
def test_switching_off_what_stamps_is_proved_and_costs_nothing(seed, task):
    made, problem = given(seed, **task)
    found = proof(problem, made.oracle(problem), seed)
    rate = found.value("artifact rate", "uncorrected")[0]
    latents = problem.model.sample_latents(100, seed, start=START)
    assert rate == float(problem.model.triggered(latents).double().mean())  # what was planted
    assert found.value("artifact rate")[0] == 0
    assert found.better
    assert found.verdict == "lowers the artifact rate, and more than every control"
    for name in ("newly broken", "pixel change", "change outside masks"):
        assert found.value(name)[0] == 0
    assert float(found.changes[1]) == -rate
    with torch.no_grad():
        twins = problem.truth["twin"](latents[found.numbers - START])
    assert torch.allclose(found.after, twins, atol=1e-5)
    assert bool((found.before != twins).flatten(1).any(1).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_units_at_random_and_the_most_active_ones_are_no_better_than_the_controls(seed):
    made, problem = given(seed)
    for edits in (made.random(problem), made.heuristic(problem)):
        found = proof(problem, edits, seed)
        assert not found.better
        assert "no better than the controls" in found.verdict


@pytest.mark.parametrize("seed", SEEDS)
def test_switching_off_half_of_the_units_that_stamp_is_not_called_a_cure(seed):
    """Of each strip two units draw all: without one of them nothing changes."""
    made, problem = given(seed, artifacts=6)
    (layer, units) = next((layer, units) for layer, units in problem.truth["stamps"].items() if units)
    roles = problem.truth["roles"][layer]
    one_of_each = list({roles[unit].part: unit for unit in units}.values())
    assert len(one_of_each) == 3
    found = proof(problem, UnitEdits.ablate({layer: one_of_each}), seed)
    assert found.value("artifact rate") == found.value("artifact rate", "uncorrected")
    assert not found.better
    assert proof(problem, made.oracle(problem), seed).better


def test_an_edit_that_wrecks_all_images_shows_what_it_costs():
    made, problem = given(0)
    stamps = {(layer, unit) for layer, units in problem.truth["stamps"].items() for unit in units}
    edits = made.oracle(problem)
    width = len(problem.truth["roles"]["layer2"])
    loud = [unit for unit in range(width) if ("layer2", unit) not in stamps]
    wrecking = UnitEdits(("layer2",) * len(loud), torch.tensor(loud), torch.ones(len(loud)), torch.ones(len(loud)))
    both = UnitEdits.concat([edits, wrecking])
    real = problem.truth["twin"].sample(100, 77)
    more = {"real": real, "features": Cells(), "draws": 1}
    good, wrecked = proof(problem, edits, **more), proof(problem, both, **more)
    assert good.worse() == []
    assert good.value("kid")[1] <= good.value("kid", "uncorrected")[2]
    assert {"kid", "fid", "precision", "recall"} <= set(wrecked.worse())
    assert wrecked.value("kid")[1] > wrecked.value("kid", "uncorrected")[2]
    assert wrecked.value("pixel change")[1] > 0.1
    assert wrecked.value("feature change")[1] > 0.5
    assert "worse beyond the intervals: kid, fid" in wrecked.summary()["cost"].replace("newly broken, ", "")


@pytest.mark.parametrize("seed", SEEDS)
def test_under_a_condition_only_broken_samples_change(seed):
    _, problem = given(seed)
    everywhere = {layer: list(range(16)) for layer in ("layer1", "layer2")}
    edits = UnitEdits.ablate(everywhere, condition={"target": 1, "above": 0.5})
    asked = Other(problem.decided["classifier"])
    found = proof(problem, edits, seed, condition_judge=asked)
    assert found.value("pixel change")[0] == 0
    assert found.value("newly broken")[0] == 0
    assert found.value("change outside masks")[1] > 0.01
    plain = proof(problem, UnitEdits.ablate(everywhere), seed)
    assert plain.value("pixel change")[1] > 0.01


class Other(Discriminator):
    """The judge's answer, of another model: its logits are twice as large."""

    class_names = ("fine", "artifact")

    def __init__(self, judge):
        super().__init__()
        self.judge, self.twice = judge, nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        return self.judge(images) * self.twice


def test_masks_by_attribution_hold_what_speaks_for_the_artifact():
    """The judge's gradient is above 0 in the half of the stamp's pixels that its pattern has bright."""
    made, problem = given(0)
    by_truth = proof(problem, made.oracle(problem), samples=60)
    by_map = proof(problem, made.oracle(problem), samples=60, pairs=60, masks=create("explainer/saliency"))
    assert by_truth.value("change outside masks")[0] == 0
    whole = float((by_map.before - by_map.after).abs().double().mean()) / 2
    assert 0.35 * whole < by_map.value("change outside masks")[0] < 0.65 * whole
    assert f"of {len(by_map.numbers)} broken samples" in by_map.notes["masks"]
