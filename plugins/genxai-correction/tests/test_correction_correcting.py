"""Corrections against the algorithm done in loops, and what of them is refused."""

import dataclasses

import pytest
import torch
from corner_chain import LAYERS, RUNTIME, Chain, Corner, given
from genxai_correction import strategies
from genxai_correction.correcting import CorrectUnits
from genxai_correction.defects import artifact_thresholds
from torch import nn
from torch.nn import functional as F

from genxai_core import units
from genxai_core.errors import InputError, TargetError


def literal(model, latents, masks, thresholds, count, strength):
    """Return the sequential correction as (layer, unit) -> factor, in order, one sample and one unit at a time."""
    factors = {}
    for layer in LAYERS:
        sums = [0.0] * len(thresholds[layer])
        for latent, mask in zip(latents, masks):
            maps = forward(model, latent[None], factors)[layer]
            for unit, level in enumerate(thresholds[layer].tolist()):
                up = F.interpolate(maps[:, unit : unit + 1], mask.shape[1:], mode="bilinear", align_corners=False)[0]
                both, either = 0, 0
                for active, inside in zip((up > level).flatten().tolist(), mask.flatten().tolist()):
                    both, either = both + (active and inside), either + (active or inside)
                sums[unit] += both / either if either else 0.0
        scores = [each / len(latents) for each in sums]
        top = sorted(range(len(scores)), key=lambda unit: (-scores[unit], unit))[:count]
        factors |= {(layer, unit): strength * (1 - scores[unit]) for unit in top if scores[unit] > 0}
    return factors


@torch.no_grad()
def forward(model, latent, factors):
    """Run the generator without hooks, units of each layer multiplied; return its activations."""
    found = {"one": F.relu(model.start(latent).view(-1, 5, 2, 2))}
    for layer, after, follows in (("one", "two", model.first), ("two", "three", model.second), ("three", "", None)):
        for (at, unit), factor in factors.items():
            if at == layer:
                found[layer][:, unit] *= factor
        if follows is not None:
            found[after] = F.relu(follows(found[layer]))
    found["image"] = torch.tanh(0.5 * model.end(found["three"]))
    return found


@pytest.mark.parametrize(("count", "strength"), [(1, 0.9), (2, 0.5), (3, 0.0)])
def test_the_sequential_correction_is_that_of_the_algorithm(count, strength):
    model, _, samples = given()
    bad = samples[samples.labels.nonzero()[:, 0].tolist()][:9]
    thresholds = artifact_thresholds(model, samples.latents, LAYERS, RUNTIME, 0.9)
    wanted = literal(model, bad.latents, bad.masks, thresholds, count, strength)
    _, score = strategies.scorer(model, bad.latents, bad.masks, thresholds, RUNTIME)
    found = list(strategies.sequential(LAYERS, score, None, [count], [strength]))
    for stop, candidate in enumerate(found):
        units_of = list(zip(candidate.edits.layers, candidate.edits.units.tolist()))
        assert units_of == [unit for unit in wanted if unit[0] in LAYERS[: stop + 1]]
        torch.testing.assert_close(candidate.edits.factors, torch.tensor([wanted[unit] for unit in units_of]))
        torch.testing.assert_close(
            strength * (1 - candidate.defects), torch.tensor([wanted[unit] for unit in units_of]).double()
        )
    with torch.no_grad(), units.applied(model, found[-1].edits):
        images = model(bad.latents)
    torch.testing.assert_close(images, forward(model, bad.latents, wanted)["image"])


def test_later_layers_are_scored_on_corrected_inputs():
    model, _, samples = given()
    bad = samples[samples.labels.nonzero()[:, 0].tolist()]
    thresholds = artifact_thresholds(model, samples.latents, LAYERS, RUNTIME, 0.9)
    plain, score = strategies.scorer(model, bad.latents, bad.masks, thresholds, RUNTIME)
    last = list(strategies.sequential(LAYERS, score, None, [2], [0.3]))[-1]
    alone = {(layer, unit): float(plain[layer][unit]) for layer in LAYERS for unit in range(len(plain[layer]))}
    found = dict(zip(zip(last.edits.layers, last.edits.units.tolist()), last.defects.tolist()))
    assert all(alone[unit] == score for unit, score in found.items() if unit[0] == "one")
    assert any(alone[unit] != score for unit, score in found.items() if unit[0] == "two")


def test_one_layer_scales_the_top_units_of_one_layer():
    model, _, samples = given()
    bad = samples[samples.labels.nonzero()[:, 0].tolist()]
    thresholds = artifact_thresholds(model, samples.latents, LAYERS, RUNTIME, 0.9)
    plain, score = strategies.scorer(model, bad.latents, bad.masks, thresholds, RUNTIME)
    found = list(strategies.one_layer(LAYERS, score, {"one": [0], "two": [3, 1, 5], "three": []}, [1, 0.5], [0.0, 0.4]))
    assert [each is None for each in found] == [False] * 8 + [True] * 4
    two = found[4:8]
    best = sorted([1, 3, 5], key=lambda unit: -float(plain["two"][unit]))
    assert [each.edits.units.tolist() for each in two] == [best[:1], best[:1], best[:3], best[:3]]
    assert [each.edits.factors.tolist() for each in two][2:] == [[0.0] * 3, [pytest.approx(0.4)] * 3]
    assert two[3].defects.tolist() == plain["two"][best[:3]].tolist()


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, [2]), (2, [2, 0]), (9, [2, 0, 3]), (0.2, [2]), (0.21, [2, 0]), (0.5, [2, 0, 3])]
)
def test_units_are_counted_or_a_share_and_those_without_a_score_left_out(count, wanted):
    scores = torch.tensor([0.3, 0.0, 0.5, 0.3, 0.0]).double()
    assert strategies.ordered(scores, None, count) == wanted
    assert strategies.ordered(scores, [1, 3], count) == [3, 1][: 2 if count in (2, 9, 0.21, 0.5) else 1]  # as allowed


@pytest.mark.parametrize(
    ("effect", "causes"),
    [
        ([-0.01] * 9, True),
        ([-0.0009] * 9, False),  # too little
        ([0.01] * 9, False),  # the wrong way
        ([-0.5, 0.4] * 5, False),  # may be chance: −0.05 ± 0.29
        ([-0.5, 0.1] * 5, True),  # −0.2 ± 0.196
        ([-0.9], False),  # of one sample nothing is known
    ],
    ids=str,
)
def test_a_unit_causes_if_it_is_enough_and_no_chance(effect, causes):
    assert strategies._falls(torch.tensor(effect).double()) == causes


def test_units_that_stand_in_for_each_other_cause_though_neither_does_alone():
    """Three units draw an image: max of the first two (either will do), and the third, which coincides."""

    class Spare(Chain):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, latents):
            a = self.layer(latents[:, :3].abs()[:, :, None, None].expand(-1, -1, 8, 8) * 0 + 0.9)
            return torch.maximum(a[:, :1], a[:, 1:2]) + 0 * a[:, 2:]

    model = Spare().eval()
    latents = model.sample_latents(6, 0)
    found = strategies.causes(model, latents, Corner().eval(), 1, {"layer": [2, 1, 0]}, RUNTIME)
    assert found == {"layer": [1, 0]}


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"layers": ()},
        {"layers": ("one", "one")},
        {"strategy": "both"},
        {"counts": ()},
        {"counts": (0,)},
        {"counts": (1.5,)},
        {"counts": (0.0,)},
        {"strengths": ()},
        {"strengths": (1.1,)},
        {"above": 1.0},
        {"mask_threshold": -0.1},
        {"quantile": 1.0},
        {"holdout": 0.0},
        {"bound": -0.1},
        {"bound": float("nan")},
        {"checked": 0},
        {"examples": -1},
    ],
    ids=str,
)
def test_parameters_out_of_bounds_are_refused(how):
    with pytest.raises(ValueError, match=next(iter(how))):
        CorrectUnits(Corner(), **how)


def test_inputs_that_cannot_be_corrected_are_refused():
    model, judge, samples = given()
    refused = [
        (dataclasses.replace(samples, latents=None), "no latents"),
        (dataclasses.replace(samples, latents=samples.latents[:, :5]), r"latents are \(5,\)"),
        (dataclasses.replace(samples, latents=samples.latents / 0), "latents hold NaN"),
        (dataclasses.replace(samples, labels=samples.labels * 0), "0 of 40 samples are broken, too few"),
    ]
    for inputs, said in refused:
        with pytest.raises(InputError, match=said):
            CorrectUnits(judge, LAYERS).explain(model, inputs, runtime=RUNTIME)
    for parameters, said in (({"layers": ("four",)}, "four"), ({"classifier": Chain()}, "not a Discriminator")):
        with pytest.raises(InputError, match=said):
            CorrectUnits(**{"classifier": judge, "layers": LAYERS, **parameters}).explain(model, samples)
    judge.class_names = ("real",)
    with pytest.raises(InputError, match="named 'real'"):
        CorrectUnits(judge, LAYERS).explain(model, samples, runtime=RUNTIME)
    judge.class_names = ("normal", "artifact")
    with pytest.raises((InputError, TargetError), match="target 2"):
        CorrectUnits(judge, LAYERS).explain(model, samples, target=2)


def test_a_layer_that_takes_no_part_is_refused():
    model, judge, samples = given()
    model.idle = nn.ReLU()
    with pytest.raises(InputError, match="'idle' takes no part"):
        CorrectUnits(judge, ("one", "idle")).explain(model, samples)
