"""Planted units do what their construction says: counted by brute force, and by switching them on and off."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from genxai_bench.models.planted_generator import LAYERS, LOUDEST, opacity
from genxai_bench.tasks.units import PlantedUnits
from torch.nn import functional as F

from genxai_core import Samples, UnitScores, units
from genxai_core.errors import InputError

SEEDS = range(5)


@pytest.fixture(scope="module")
def task():
    return PlantedUnits()


@pytest.fixture(scope="module")
def problem(task):
    return task.problem(0)


def chosen(problem, layer, kind, part=None):
    roles = problem.truth["roles"][layer]
    return [(u, r.concept) for u, r in enumerate(roles) if r.kind == kind and part in (None, r.part)]


def edited(problem, *edits, **how):
    """Images of the given latents with units edited: (layer, units), …"""
    with torch.no_grad():
        if not edits:
            return problem.model(problem.inputs.latents)
        (layer, chosen_units), *rest = edits
        with units.edit(problem.model, layer, chosen_units, **how):
            return edited(problem, *rest, **how)


def masks_of(problem, images):
    return problem.decided["segmenter"].segment(Samples(images, value_range=(-1.0, 1.0)))


# -- the IoU that was constructed ---------------------------------------------------------------------------------


def dissected(problem, n=40, cells=False):
    """Plain dissection: thresholds from one set of latents, IoU from another."""
    model, layers = problem.model, problem.decided["layers"]
    size = None if cells else model.image_shape[1:]
    quantile = problem.decided["quantile"]
    with torch.no_grad():
        with units.threshold(model, layers, quantile, size=size) as found:
            model(model.sample_latents(n, seed=11))
        with units.tally(model, found.values()) as counts:
            samples = model.sample(n, seed=12)
            counts.add(samples.masks)
    return UnitScores(counts.iou(), found.values(), problem.decided["concepts"])


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"cover": 1, "noise": 0.0},
        {"cover": 3, "noise": LOUDEST},
        {"size": 24, "concepts": 3, "noise": LOUDEST},
        {"size": 64, "concepts": 6, "units": 24, "decoys": 7, "redundant": 2, "split": 3},
    ],
)
def test_iou_is_the_constructed_one_for_whatever_latents(how):
    made = PlantedUnits(**how)
    for seed in range(2):
        problem = made.problem(seed)
        found = dissected(problem)
        for layer, constructed in problem.truth["iou"].items():
            known = ~constructed.isnan()
            assert float((found.scores[layer] - constructed)[known].abs().max()) < 1e-12
            assert float(found.scores[layer][~known].max()) < 0.06  # noise: chance is about the share of the area


def test_thresholds_of_cells_give_the_same_iou(problem):
    pixels, cells = dissected(problem), dissected(problem, cells=True)
    assert not torch.equal(pixels.thresholds["layer1"], cells.thresholds["layer1"])
    for layer, constructed in problem.truth["iou"].items():
        known = ~constructed.isnan()
        assert torch.equal(cells.scores[layer][known], pixels.scores[layer][known])


def test_iou_counted_literally(problem):
    """Without any of the core's counting: upsample, sort, count."""
    masks = problem.inputs.masks
    for layer, activation in problem.model.activations(problem.inputs.latents).items():
        maps = F.interpolate(activation, (32, 32), mode="bilinear", align_corners=False)
        for unit, role in enumerate(problem.truth["roles"][layer]):
            if role.kind == "noise":
                continue
            values = np.sort(maps[:, unit].numpy().ravel())
            top = 24 * len(masks)
            active = maps[:, unit] > float(values[-top] + values[-top - 1]) / 2
            assert int(active.sum()) == top
            for concept in range(4):
                both = int((active & masks[:, concept]).sum())
                either = int((active | masks[:, concept]).sum())
                assert both / either == pytest.approx(float(problem.truth["iou"][layer][unit, concept]), abs=1e-12)


def test_the_gap_about_a_threshold_is_as_wide_as_was_worked_out():
    """For every image, with the loudest noise: inside at least h·9/16, outside at most (1 + 3·l)/4."""
    problem = PlantedUnits(noise=LOUDEST, images=64, decoys=0).problem(3)
    maps = F.interpolate(
        problem.model.activations(problem.inputs.latents)["layer1"], (32, 32), mode="bilinear", align_corners=False
    )
    for unit, concept in chosen(problem, "layer1", "cause", "whole"):
        mask = problem.inputs.masks[:, concept]
        assert float(maps[:, unit][mask].min()) >= 0.9 * 9 / 16
        assert float(maps[:, unit][~mask].max()) <= (1 + 3 * LOUDEST) / 4
    lowest, highest, corner = 0.9 * 9 / 16, (1 + 3 * LOUDEST) / 4, (9 + 7 * LOUDEST) / 16
    assert (0.25 * 0.9 + lowest) / 2 >= highest  # the lowest threshold that can come out
    assert (highest + corner) / 2 <= lowest  # and the highest


def test_every_concept_covers_24_pixels_of_every_image(problem):
    assert problem.inputs.masks.sum((2, 3)).unique().tolist() == [24]
    assert bool((problem.inputs.masks.sum(1) <= 1).all())
    assert problem.decided["quantile"] == 1 - 24 / 1024


# -- what happens when units are switched -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_what_misleads_changes_no_bit(task, seed):
    problem = task.problem(seed)
    before = edited(problem)
    for layer, kind in itertools.product(LAYERS, ("decoy", "noise")):
        found = [u for u, _ in chosen(problem, layer, kind)]
        assert found
        assert torch.equal(edited(problem, (layer, found)), before)
        assert torch.equal(edited(problem, (layer, found), factor=0.0, value=1.0), before)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_cause_takes_its_concept_with_it(task, seed, layer):
    problem = task.problem(seed)
    before, paired = problem.inputs.masks, {u for pair in problem.truth["pairs"][layer] for u in pair[:2]}
    plain = [(u, c) for u, c in chosen(problem, layer, "cause", "whole") if u not in paired]
    assert len(plain) == 2
    for unit, concept in plain:
        images = edited(problem, (layer, [unit]))
        after = masks_of(problem, images)
        assert not after[:, concept].any()
        rest = [c for c in range(4) if c != concept]
        assert torch.equal(after[:, rest], before[:, rest])
        elsewhere = ~before[:, concept][:, None].expand_as(images)
        assert torch.equal(images[elsewhere], problem.inputs.images[elsewhere])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_redundant_pair_is_found_only_by_joint_ablation(task, seed, layer):
    problem = task.problem(seed)
    ((first, second, concept),) = problem.truth["pairs"][layer]
    before = edited(problem)
    assert torch.equal(edited(problem, (layer, [first])), before)
    assert torch.equal(edited(problem, (layer, [second])), before)
    assert not masks_of(problem, edited(problem, (layer, [first, second])))[:, concept].any()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_half_takes_half_of_its_concept_with_it(problem, layer):
    halves = chosen(problem, layer, "cause", "first") + chosen(problem, layer, "cause", "second")
    assert len(halves) == 2
    left = [masks_of(problem, edited(problem, (layer, [unit])))[:, concept] for unit, concept in halves]
    whole = problem.inputs.masks[:, halves[0][1]]
    assert all(half.sum((1, 2)).unique().tolist() == [12] for half in left)
    assert torch.equal(left[0] | left[1], whole)
    assert not (left[0] & left[1]).any()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_cause_that_is_inserted_draws_there(problem, layer):
    where = torch.zeros(2 * [16 if layer == "layer1" else 32], dtype=torch.bool)
    where[: len(where) // 2] = True
    for unit, concept in chosen(problem, layer, "cause"):
        images = edited(problem, (layer, [unit]), value=0.95, where=where)
        shown = masks_of(problem, images)[:, concept, :16]
        later = problem.inputs.masks[:, concept + 1 :, :16].any(1)  # painted over it
        ghost = problem.model.bank1.regions(problem.model.scene(problem.inputs.latents))[1][:, unit].bool()
        if layer == "layer2":
            ghost = problem.model.bank2.regions(problem.model.scene(problem.inputs.latents))[1][:, unit].bool()
        else:
            ghost = ghost.repeat_interleave(2, 1).repeat_interleave(2, 2)
        assert bool((shown | later | ghost[:, :16]).all())


def test_both_layers_are_needed(problem):
    """A concept that one layer says and the other does not pass on is not there."""
    for layer in LAYERS:
        gone = sorted({u for u, _ in chosen(problem, layer, "cause")})
        assert not masks_of(problem, edited(problem, (layer, gone))).any()


def test_scaling_dims_and_then_removes(problem):
    ((unit, concept), *_) = [
        x for x in chosen(problem, "layer2", "cause", "whole") if x[0] not in problem.truth["pairs"]["layer2"][0][:2]
    ]
    inside = problem.inputs.masks[:, concept]
    apart = [
        (edited(problem, ("layer2", [unit]), factor=f) - problem.inputs.images).square().sum(1)[inside].mean()
        for f in (1.0, 0.75, 0.5, 0.2)
    ]
    assert float(apart[0]) == 0
    assert apart[0] < apart[1] < apart[2] < apart[3]
    assert opacity(torch.tensor([0.0, 0.2, 0.6, 1.0, 3.0])).tolist() == pytest.approx([0, 0, 0.5, 1, 1])


# -- the score ----------------------------------------------------------------------------------------------------


def test_plain_dissection_is_exact_and_takes_decoys_for_causes(task):
    """By closed form: 6 causes and 4 decoys of IoU ½ reach the cut; the decoys beat the two halves of IoU ⅓."""
    for seed in SEEDS:
        problem = task.problem(seed)
        found = task.score(problem, dissected(problem))
        assert found["recall"] == 1
        assert found["precision"] == 6 / 10
        assert found["f1"] == pytest.approx(2 * 0.6 / 1.6)
        assert found["causal-rank"] == pytest.approx(4 / 6)
        assert found["iou-error"] < 1e-6


def test_where_decoys_correlate_little_dissection_finds_all():
    made = PlantedUnits(cover=1)
    for seed in SEEDS:
        problem = made.problem(seed)
        assert made.score(problem, dissected(problem)) == {
            "f1": 1,
            "precision": 1,
            "recall": 1,
            "causal-rank": 1,
            "iou-error": pytest.approx(0, abs=1e-6),
        }


def test_decoys_that_are_always_there_with_the_concept_are_beyond_iou():
    made = PlantedUnits(cover=3)
    problem = made.problem(0)
    found = made.score(problem, dissected(problem))
    assert found["causal-rank"] == pytest.approx(0.5 * 4 / 6)  # level with four causes, above two


def effects(problem, insert):
    """Each unit's average effect on the area of each concept, inserted (or left) against ablated."""
    scores = {}
    for layer, roles in problem.truth["roles"].items():
        rows = []
        for unit in range(len(roles)):
            on = edited(problem, (layer, [unit]), value=0.95) if insert else edited(problem)
            off = edited(problem, (layer, [unit]))
            areas = [masks_of(problem, images).double().mean((0, 2, 3)) for images in (on, off)]
            rows.append(areas[0] - areas[1])
        scores[layer] = torch.stack(rows)
    return UnitScores(scores, concepts=problem.decided["concepts"], measure="ace")


def test_causal_effects_by_insertion_find_all_and_no_decoy(task):
    for seed in SEEDS:
        problem = task.problem(seed)
        found = task.score(problem, effects(problem, insert=True))
        assert (found["f1"], found["causal-rank"], found["iou-error"]) == (1, 1, 1)


def test_single_ablation_misses_redundant_pairs(task, problem):
    found = task.score(problem, effects(problem, insert=False))
    assert found["precision"] == 1
    assert found["recall"] == 4 / 6
    assert found["causal-rank"] == pytest.approx((4 + 0.5 * 2) / 6)


def test_random_is_near_chance_over_many_seeds():
    made = PlantedUnits(images=1)
    found = [made.score(p, made.random(p)) for p in map(made.problem, range(60))]
    for measure in made.measures:
        assert abs(np.mean([f[measure.name] for f in found]) - measure.chance) < 0.05


def test_concepts_may_come_in_another_order_and_with_others(task, problem):
    right = task.oracle(problem)
    turned = {k: torch.cat([v.flip(1), torch.full((16, 1), 0.9)], 1) for k, v in right.scores.items()}
    other = UnitScores(turned, concepts=(*right.concepts[::-1], "sky"))
    assert task.score(problem, other) == task.score(problem, right)


def test_scale_does_not_matter_where_the_measure_is_no_iou(task, problem):
    right = task.oracle(problem)
    for factor in (1e-6, 1e6):
        scaled = dataclasses.replace(right, scores={k: factor * v for k, v in right.scores.items()}, measure="ace")
        assert task.score(problem, scaled)["f1"] == 1
    negative = dataclasses.replace(right, scores={k: -v - 1 for k, v in right.scores.items()}, measure="ace")
    assert task.score(problem, negative)["f1"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"concepts": ("a", "b", "c", "d")}, "concept 'red'"),
        ({"higher_is_better": False}, "better when low"),
        ({"scores": {"layer1": torch.zeros(16, 4)}}, "no scores of 'layer2'"),
        ({"scores": {k: torch.zeros(9, 4) for k in LAYERS}}, "scores of 9 units"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(task, problem, change, said):
    with pytest.raises(InputError, match=said):
        task.score(problem, dataclasses.replace(task.oracle(problem), **change))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"units": 9}, "fewer than the 10"),
        ({"size": 30}, "multiple of 8"),
        ({"concepts": 7}, "from 1 to 6"),
        ({"size": 16}, "from 1 to 3 at size 16"),
        ({"noise": 0.2}, "noise"),
        ({"cover": 4}, "cover"),
        ({"redundant": 3, "split": 2}, "exceed the 4"),
        ({"images": 0}, "images"),
    ],
)
def test_parameters_out_of_bounds_are_refused(how, said):
    with pytest.raises(ValueError, match=said):
        PlantedUnits(**how)
