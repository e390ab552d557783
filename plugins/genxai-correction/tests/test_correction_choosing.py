"""Held-out figures against their literal definitions, the division of samples, and the order of candidates."""

import pytest
import torch
from genxai_correction.choosing import HeldOut, Measured, best, split
from torch import nn

from genxai_core import Discriminator, Generator, Runtime, UnitEdits, draws, units
from genxai_core.errors import InputError

RUNTIME = Runtime(device="cpu", batch_size=7, quiet=True)


class Two(Generator):
    """Latents [N, 4] to images [N, 1, 6, 6] in [0, 10]: the sum of two units; unit 1 is too bright at times."""

    value_range = (0.0, 10.0)
    latent_shape = (4,)

    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(4, 2, 1, bias=False)
        with torch.no_grad():
            self.units.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])[:, :, None, None])

    def sample_latents(self, n, seed, start=0):
        return draws.uniform(seed, range(start, start + n), self.latent_shape) * 4

    def forward(self, latents):
        return self.units(latents[:, :, None, None].expand(-1, -1, 6, 6)).sum(1, keepdim=True)


class Bright(Discriminator):
    """One logit: how far the mean pixel is above 4 of 10, seen in [-1, 1]."""

    class_names = ("artifact",)
    value_range = (-1.0, 1.0)

    def forward(self, images):
        return 4 * ((images.mean((1, 2, 3)) + 1) * 5 - 4)[:, None]


def held_out(**how):
    model = Two().eval()
    latents = model.sample_latents(23, 0)
    broken = latents[:, 1] > 2.5
    return HeldOut(model, Bright().eval(), 0, latents, broken, RUNTIME, **how), latents, broken


HALF = UnitEdits(("units",), torch.tensor([1]), torch.tensor([0.5]))


@pytest.mark.parametrize("condition", [None, 0.7])
def test_figures_are_those_of_their_definitions(condition):
    proof, latents, broken = held_out(above=0.6, condition=condition)
    found = proof.measure(HALF)
    hits, before_hits, probability, changes = 0, 0, 0.0, []
    for (a, b, *_), bad in zip(latents.double().tolist(), broken.tolist()):
        before = a + b
        p = 1 / (1 + torch.tensor(-4 * (before - 4)).exp().item())
        after = a + b / 2 if condition is None or p > condition else before
        q = 1 / (1 + torch.tensor(-4 * (after - 4)).exp().item())
        before_hits, hits, probability = before_hits + (p > 0.6), hits + (q > 0.6), probability + q * bad
        changes += [] if bad else [abs(after - before) / 10]
    n = len(latents)
    assert 0 < hits < before_hits < n
    assert proof.rate[0] == pytest.approx(before_hits / n)
    assert found.rate[0] == pytest.approx(hits / n)
    assert found.fall[0] == pytest.approx((before_hits - hits) / n)
    assert found.probability == pytest.approx(probability / int(broken.sum()), abs=1e-5)
    mean = sum(changes) / len(changes)
    spread = (sum((c - mean) ** 2 for c in changes) / (len(changes) - 1) / len(changes)) ** 0.5
    assert found.collateral == pytest.approx((mean, max(0, mean - 1.96 * spread), mean + 1.96 * spread), abs=1e-5)


def test_edits_under_a_condition_leave_the_other_samples_alone():
    proof, latents, _ = held_out(condition=0.5)
    with torch.no_grad(), units.applied(proof.model, HALF):
        edited = proof.model(latents)
    wanted = torch.where((proof.before > 0.5)[:, None, None, None], edited, proof.images)
    torch.testing.assert_close(proof.corrected(HALF), wanted)
    assert 0 < int((proof.before > 0.5).sum()) < len(latents)
    rows = torch.tensor([20, 3, 3])
    torch.testing.assert_close(proof.corrected(HALF, rows), wanted[rows])


def test_no_edits_change_nothing():
    proof, _, _ = held_out()
    found = proof.measure(UnitEdits.ablate({}))
    assert (found.rate, found.fall[0], found.collateral[0]) == (proof.rate, 0.0, 0.0)


def test_a_condition_that_no_sample_meets_changes_nothing():
    proof, _, _ = held_out(condition=0.9999999)
    assert torch.equal(proof.corrected(HALF), proof.images)
    assert proof.measure(HALF).rate == proof.rate


# -- the division of samples ----------------------------------------------------------------------------------------


def test_broken_and_fine_samples_are_divided_in_the_same_shares():
    broken = torch.arange(40) % 4 == 0
    scored, held = split(broken, 0.3, 0)
    assert sorted([*scored.tolist(), *held.tolist()]) == list(range(40))
    assert (int(broken[held].sum()), int((~broken[held]).sum())) == (3, 9)
    assert held.tolist() == sorted(held.tolist())
    again, other = split(broken, 0.3, 0), split(broken, 0.3, 1)
    assert torch.equal(again[1], held)
    assert not torch.equal(other[1], held)


def test_samples_that_are_added_leave_the_order_of_the_others():
    """Rows are drawn by their index, so a row that was held out of few stays ahead of those that were not."""
    broken = torch.arange(24) % 2 == 0
    drawn = draws.uniform(5, range(24), (), "held-out samples")
    _, held = split(broken, 0.5, 5)
    for kind in (True, False):
        rows = [row for row in range(24) if bool(broken[row]) == kind]
        wanted = sorted(rows, key=lambda row: float(drawn[row]))[:6]
        assert set(wanted) == {row for row in held.tolist() if bool(broken[row]) == kind}


@pytest.mark.parametrize(
    ("count", "what"), [(0, "0 of 12 samples are broken"), (3, "3 of 12"), (10, "2 of 12 .* fine")]
)
def test_too_few_samples_are_refused(count, what):
    with pytest.raises(InputError, match=what):
        split(torch.arange(12) < count, 0.5, 0)


# -- the choice -----------------------------------------------------------------------------------------------------


def measured(rate, collateral, probability=0.5):
    return Measured((rate, 0.0, 1.0), (0.0, 0.0, 0.0), (collateral, 0.0, 1.0), probability)


@pytest.mark.parametrize(
    ("found", "numbers", "strengths", "wanted"),
    [
        ([], [], [], None),
        ([measured(0.4, 0.0)], [1], [0], None),
        ([measured(0.1, 0.02), measured(0.3, 0.01)], [1, 1], [0, 0], 1),
        ([measured(0.2, 0.001), measured(0.1, 0.009)], [1, 9], [0, 0], 1),
        ([measured(0.1, 0.001, 0.45), measured(0.1, 0.009, 0.05)], [1, 9], [0, 0], 1),
        ([measured(0.1, 0.002, 0.300), measured(0.1, 0.001, 0.39)], [1, 9], [0, 0], 1),
        ([measured(0.1, 0.001), measured(0.1, 0.001 + 1e-9)], [4, 3], [0, 0], 1),
        ([measured(0.1, 0.001), measured(0.1, 0.001)], [3, 3], [0.3, 0.0], 1),
        ([measured(0.1, 0.001), measured(0.1, 0.001)], [3, 3], [0, 0], 0),
        ([measured(0.3, 0.001, 0.1), measured(0.1, 0.001, 0.4)], [3, 3], [0, 0], 1),
    ],
    ids=["none", "no lower", "bound", "rate", "repair", "least change", "units", "strength", "first", "rate first"],
)
def test_the_best_candidate(found, numbers, strengths, wanted):
    assert best(found, numbers, strengths, 0.01, 0.4) == wanted
