"""Corrections of planted artifacts, of which it is known which units stamp them and what the repaired image is."""

from __future__ import annotations

import functools

import pytest
import torch
from genxai_bench import contest
from genxai_bench.tasks.artifacts import PlantedArtifacts

import genxai_core as gx
from genxai_core import Runtime, Spec

SEEDS = range(3)
PLANTED = [
    {},
    {"overlap": True},
    {"spread": True},
    {"artifacts": 6},
    {"overlap": True, "spread": True, "artifacts": 6},
]
GRADCAM = gx.create("explainer/cam", method="gradcam")
FEW = {"counts": (1, 2, 3, 6), "strengths": (0.0, 0.4)}
RUNTIME = Runtime(device="cpu", quiet=True)


def corrected(seed, planted, **how):
    """Return the correction, the task's scores, PSNR to the clean twin on broken samples, and the change of others."""
    return _corrected(seed, tuple(planted.items()), tuple({**FEW, **how}.items()))


@functools.cache
def _corrected(seed, planted, how):
    task = PlantedArtifacts(**dict(planted))
    problem = task.problem(seed)
    samples, clean = problem.inputs, problem.truth["clean"]
    explainer = gx.create("explainer/correct-units", **problem.decided, **dict(how))
    found = explainer.explain(problem.model, samples, runtime=RUNTIME.with_(seed=seed))
    judge = problem.decided["classifier"] if found.condition else None
    with torch.no_grad():
        images = gx.create("generator/edited", base=problem.model, edits=found, judge=judge)(samples.latents)
    broken = samples.labels == 1
    error = (images - clean)[broken].double().square().mean()
    change = (images - samples.images)[~broken].abs().mean() / 2
    return found, task.score(problem, found), float(10 * torch.log10(4 / error)), float(change)


@pytest.mark.parametrize("masks", ["given", GRADCAM], ids=["true masks", "grad-cam"])
@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_all_units_that_stamp_are_found_and_nothing_else(planted, masks):
    """Of Grad-CAM's masks of an exact judge the same is true: they need not be sharp to put these units first."""
    for seed in SEEDS:
        found, scores, psnr, change = corrected(seed, planted, masks=masks)
        assert (scores["precision"], scores["recall"]) == (1.0, 1.0)
        assert psnr >= 35
        assert change < 0.01
        assert float(found.rates[found.chosen]) == 0 < found.unedited
        assert found.notes["masks"] == ("given" if masks == "given" else "explainer/cam")


@pytest.mark.parametrize("planted", [{}, {"overlap": True}], ids=str)
def test_an_artifact_of_one_layer_is_corrected_in_that_layer(planted):
    for seed in SEEDS:
        _, scores, psnr, change = corrected(seed, planted, strategy="one-layer")
        assert (scores["precision"], scores["recall"]) == (1.0, 1.0)
        assert psnr >= 35
        assert change < 0.01


@pytest.mark.parametrize("planted", [{"spread": True}, {"spread": True, "artifacts": 6}], ids=str)
def test_where_artifacts_are_spread_the_sequential_correction_beats_that_of_one_layer(planted):
    for seed in SEEDS:
        both, scores, psnr, _ = corrected(seed, planted, masks="given")
        one, scores_of_one, psnr_of_one, _ = corrected(seed, planted, strategy="one-layer")
        assert float(both.rates[both.chosen]) == 0
        assert one.chosen is None or float(one.rates[one.chosen]) > 0
        assert scores["correction"] > 0.99
        assert scores_of_one["correction"] < 0.5
        assert psnr > 35 > 30 > psnr_of_one


@pytest.mark.parametrize("planted", [{}, {"overlap": True}], ids=str)
def test_scores_alone_take_units_that_coincide_for_units_that_cause(planted):
    """Shadows are active on the whole stamp, and stampers on a third: only ablation tells them apart."""
    for seed in SEEDS:
        _, scores, _, _ = corrected(seed, planted, causal=False)
        assert scores["recall"] == 1.0
        assert scores["precision"] <= 0.6


def test_under_a_condition_samples_that_were_fine_keep_every_bit():
    for seed in SEEDS:
        found, scores, psnr, change = corrected(seed, {}, conditional=True)
        assert found.condition == {"target": 1, "above": 0.5}
        assert (scores["precision"], scores["recall"], change) == (1.0, 1.0, 0.0)
        assert psnr >= 35


def test_it_takes_part_in_the_contest():
    task = PlantedArtifacts()
    board = contest.run([Spec("explainer/correct-units")], [task], range(2))
    assert not board.failures
    found = [row for row in board.means() if row["contestant"] == "explainer/correct-units"]
    assert {row["measure"] for row in found} == {measure.name for measure in task.measures}
    for row in found:
        assert row["mean"] == next(measure.perfect for measure in task.measures if measure.name == row["measure"])
