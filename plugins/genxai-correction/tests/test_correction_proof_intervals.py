"""Intervals and controls of a proof against slow, literal versions."""

from __future__ import annotations

import copy
import math
import statistics

import pytest
import torch
from genxai_correction import proof_controls as controls
from genxai_correction import proof_intervals as intervals
from genxai_correction import proof_measures as measures
from torch import nn

from genxai_core import Runtime, Samples, UnitEdits, create
from genxai_core.errors import InputError
from genxai_core.testing.models import LinearDiscriminator, LinearGenerator, PatchDiscriminator

Z = 1.959963984540054


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (1, 10), (7, 20), (150, 500), (20, 20)])
def test_wilson_ends_are_the_shares_whose_distance_is_just_not_significant(hits, n):
    value, low, high = intervals.of_share(torch.arange(n) < hits)
    assert value == hits / n
    for end in (low, high):
        assert (value - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / n, abs=1e-12)
    assert 0 <= low <= value <= high <= 1
    assert (low == 0, high == 1) == (hits == 0, hits == n)  # exactly: 6e-18 would be shown
    assert low < high


def test_wilson_as_published():
    """Agresti and Coull 1998, and every textbook: 0 of 10 gives (0, 0.2775)."""
    assert intervals.of_share(torch.zeros(10, dtype=torch.bool))[1:] == pytest.approx((0, 0.2775), abs=1e-4)


def literal_difference(first: list[bool], second: list[bool]) -> tuple[float, float, float]:
    cells = {(i, j): 0.5 for i in (True, False) for j in (True, False)}
    for pair in zip(first, second):
        cells[pair] += 1
    n = sum(cells.values())
    p = {cell: count / n for cell, count in cells.items()}
    middle = p[True, False] - p[False, True]
    error = math.sqrt((p[True, False] + p[False, True] - middle**2) / n)
    return (sum(first) - sum(second)) / len(first), middle - Z * error, middle + Z * error


@pytest.mark.parametrize("seed", range(4))
def test_the_paired_difference_is_that_of_four_cells_with_half_a_sample_more(seed):
    drawn = torch.rand(2, 37, generator=torch.Generator().manual_seed(seed))
    first, second = drawn[0] < 0.3, (drawn[0] < 0.5) & (drawn[1] < 0.6)
    found = intervals.of_difference(first, second)
    assert found == pytest.approx(literal_difference(first.tolist(), second.tolist()), abs=1e-12)
    turned = intervals.of_difference(second, first)
    assert turned == pytest.approx((-found[0], -found[2], -found[1]), abs=1e-12)


def test_of_many_intervals_all_hold_as_often_as_one_does():
    """Twenty runs that differ from the first by chance alone: none of the intervals may lie apart from 0."""
    chance = torch.Generator().manual_seed(0)
    apart = {1: 0, 20: 0}
    for _ in range(300):
        runs = torch.rand(21, 60, generator=chance) < 0.3
        for comparisons in apart:
            ends = [intervals.of_difference(runs[0], run, comparisons)[1:] for run in runs[1:]]
            apart[comparisons] += any(low > 0 or high < 0 for low, high in ends)
    assert apart[1] / 300 > 0.2
    assert apart[20] / 300 < 0.1  # 0.067: far out, the normal tail is a little thin


def test_runs_that_agree_everywhere_still_have_an_interval():
    same = torch.tensor([True] * 5 + [False] * 15)
    value, low, high = intervals.of_difference(same, same)
    assert value == 0
    assert -0.1 < low < 0 < high < 0.1
    assert low == -high


def test_the_paired_interval_holds_the_truth_about_as_often_as_it_says():
    chance = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(1500):
        drawn = torch.rand(40, generator=chance)  # hit in the first run below 0.3, in the second from 0.2 to 0.4
        _, low, high = intervals.of_difference(drawn < 0.3, (drawn > 0.2) & (drawn < 0.4))
        held += low <= 0.1 <= high
    assert 0.93 <= held / 1500 <= 0.985


def test_the_mean_is_that_of_the_standard_library():
    values = torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    mean, spread = statistics.mean(values.tolist()), statistics.stdev(values.tolist())
    half = Z * spread / math.sqrt(30)
    assert intervals.of_mean(values) == pytest.approx((mean, mean - half, mean + half), abs=1e-12)
    assert intervals.of_mean(torch.tensor([0.0, 0.0, 1.0], dtype=torch.double))[1] == 0  # not below it


# -- controls ---------------------------------------------------------------------------------------------------


EDITS = UnitEdits(
    ("a", "b", "a", "a", "b"),
    torch.tensor([4, 1, 2, 4, 0]),
    torch.tensor([0.0, 0.5, 0.25, 2.0, 1.0]),
    torch.tensor([0.0, 1.0, 0.0, 0.0, 3.0]),
    torch.arange(5 * 4).reshape(5, 2, 2) % 3 > 0,
    {"target": 1, "above": 0.5},
)


def test_a_control_has_the_edits_of_the_correction_on_other_units():
    found = controls.moved(EDITS, {"a": [7, 0], "b": [3, 5]})
    assert found.layers == EDITS.layers
    assert found.units.tolist() == [7, 3, 0, 7, 5]  # a's 4 → 7 both times, a's 2 → 0, b's 1 → 3, b's 0 → 5
    for name in ("factors", "values", "locations"):
        assert torch.equal(getattr(found, name), getattr(EDITS, name))
    assert found.condition == EDITS.condition
    assert type(found) is UnitEdits


def test_random_units_are_as_many_each_once_and_follow_from_seed_and_draw():
    wide = UnitEdits.ablate({"a": [0, 1, 2], "b": [9]})
    found = {
        (seed, draw): controls.random_units(wide, {"a": 50, "b": 10}, seed, draw) for seed in (0, 1) for draw in (0, 1)
    }
    for edits in found.values():
        chosen = controls.edited_units(edits)
        assert {layer: len(units) for layer, units in chosen.items()} == {"a": 3, "b": 1}
        assert max(chosen["a"]) < 50
        assert max(chosen["b"]) < 10
    assert len({tuple(edits.units.tolist()) for edits in found.values()}) == 4
    again = controls.random_units(wide, {"a": 50, "b": 10}, 1, 1)
    assert again.units.tolist() == found[1, 1].units.tolist()


def test_units_in_common_are_counted_by_layer_each_once():
    other = UnitEdits.ablate({"a": [4, 1, 7], "b": [0, 4]})
    assert controls.in_common(EDITS, other) == 2  # a's 4, which is edited twice, and b's 0
    assert controls.in_common(EDITS, UnitEdits.ablate({})) == 0


def test_random_units_are_drawn_from_all_of_the_layer():
    one = UnitEdits.ablate({"a": [3]})
    drawn = {int(controls.random_units(one, {"a": 5}, 0, draw).units) for draw in range(60)}
    assert drawn == {0, 1, 2, 3, 4}


def test_the_most_active_units_are_those_of_the_largest_mean_magnitude():
    model = LinearGenerator().eval()
    with torch.no_grad():
        model.layers.weight[1] *= -5.0  # large and of both signs: the magnitude counts
        model.layers.weight[3] *= 3.0
    found = controls.mean_activity(model, ["layers"], 0, 40, 21, 8)["layers"]
    latents = model.sample_latents(21, 0, start=40)
    literal = [
        sum(float(model.layers(z[None, :, None, None]).detach()[0, u].abs().mean()) for z in latents) / 21
        for u in range(4)
    ]
    assert found.tolist() == pytest.approx(literal, rel=1e-5)
    edits = controls.most_active(UnitEdits.ablate({"layers": [0, 2]}), {"layers": found})
    assert edits.units.tolist() == sorted(range(4), key=lambda u: -literal[u])[:2]
    assert controls.most_active(UnitEdits.ablate({"l": [5, 6]}), {"l": torch.ones(8)}).units.tolist() == [0, 1]


def test_activity_that_is_not_finite_is_refused():
    model = LinearGenerator().eval()
    with torch.no_grad():
        model.layers.weight[1] = float("inf")
    with pytest.raises(InputError, match=r"layer 'layers' returns NaN or infinity"):
        controls.mean_activity(model, ["layers"], 0, 0, 4, 4)


# -- measures ---------------------------------------------------------------------------------------------------


def test_the_change_outside_a_mask_is_that_of_a_loop():
    chance = torch.Generator().manual_seed(2)
    change = torch.rand(5, 3, 5, 6, generator=chance, dtype=torch.double)
    inside = torch.rand(5, 1, 5, 6, generator=chance) < 0.4
    inside[2], inside[3] = True, False
    literal = []
    for i in (0, 1, 4):
        outside = [
            float(change[i, c, y, x]) for c in range(3) for y in range(5) for x in range(6) if not inside[i, 0, y, x]
        ]
        literal.append(sum(outside) / len(outside))
    assert measures.mean_outside(change, inside).tolist() == pytest.approx(literal, abs=1e-12)


def test_features_that_were_read_once_give_what_the_metrics_give_of_images():
    extractor = LinearDiscriminator()
    model = LinearGenerator().eval()
    real, made = model.sample(40, 1), model.sample(30, 2)
    read = measures.Extractor(extractor)
    missing: dict[str, str] = {}
    rows = {"one": [read(made[:11].images, made.value_range), read(made[11:].images, made.value_range)]}
    found = measures.quality(rows, read(real.images, real.value_range), missing, Runtime(device="cpu"))
    assert not missing
    for use, names in measures.QUALITY.items():
        told = create(use, extractor=extractor).measure(real=real, generated=made)
        for name in names:
            assert found[name] == [pytest.approx((told[name], told[f"{name}_low"], told[f"{name}_high"]), rel=1e-6)]


def test_fid_of_too_few_images_is_told_to_be_missing():
    rows = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    missing: dict[str, str] = {}
    found = measures.quality({"one": [rows]}, rows + 0.1, missing, Runtime(device="cpu"))
    assert set(found) == {"kid", "precision", "recall", "density", "coverage"}
    assert "more than 16 images" in missing["fid"]


def test_features_are_read_in_the_range_of_their_model():
    extractor = LinearDiscriminator()
    images = torch.rand(3, 1, 16, 16)
    found = measures.Extractor(extractor)(images, (0.0, 1.0))
    assert torch.allclose(found, extractor.features(images * 2 - 1), atol=1e-6)


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_the_same_weights_are_known_under_other_names():
    judge = PatchDiscriminator()
    assert measures.same_weights(judge, judge)
    assert measures.same_weights(judge, PatchDiscriminator())
    assert measures.same_weights(judge, Wrapped(PatchDiscriminator()))
    assert not measures.same_weights(judge, PatchDiscriminator(sign=-1.0))
    assert not measures.same_weights(judge, LinearDiscriminator())
    assert not measures.same_weights(judge, nn.Identity())
    assert measures.same_weights(nn.Identity(), nn.Identity())
    assert not measures.same_weights(nn.Identity(), nn.ReLU())
    assert not measures.same_weights(nn.Identity(), judge)
    assert measures.same_weights(judge, PatchDiscriminator().double())


def test_a_fingerprint_is_of_values_shapes_and_order():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    found = measures.fingerprint(one)
    assert len(found) == 64
    assert measures.fingerprint(one.train()) == found
    changed = copy.deepcopy(one)
    changed[1].running_mean[2] += 1e-6  # a buffer, by little
    turned = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(3, 4))
    turned.load_state_dict({f"{1 - int(name[0])}{name[1:]}": value for name, value in one.state_dict().items()})
    flat, tall = nn.ParameterList([torch.zeros(6)]), nn.ParameterList([torch.zeros(2, 3)])
    assert len({found, *map(measures.fingerprint, (changed, turned, flat, tall, nn.ReLU()))}) == 6
    assert measures.fingerprint(nn.ReLU()) == ""


@pytest.mark.parametrize("rows", [torch.zeros(3, 2, 2), torch.zeros(2, 4), torch.full((3, 4), torch.nan), "rows"])
def test_features_that_are_none_are_refused(rows):
    class Bad(nn.Module):
        def features(self, images):
            return rows

    with pytest.raises(InputError, match=r"features (are|hold)"):
        measures.Extractor(Bad())(torch.zeros(3, 1, 4, 4), (-1.0, 1.0))


@pytest.mark.parametrize("made", ["images", Samples(torch.zeros(2, 1, 4, 4), value_range=(-1, 1))])
def test_samples_that_are_none_are_refused(made):
    class Bad:
        def sample(self, n, seed, labels=None, start=0):
            return made

    with pytest.raises(InputError, match="it must return 3 samples"):
        measures.drawn(Bad(), 3, 0, 0)
