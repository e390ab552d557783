"""Two classes that differ in one mark, of which it is known where: what speaks for the marked one lies in the mark."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Attribution, Discriminator, Runtime, Samples, draws

QUIET = Runtime(device="cpu", quiet=True)
CORNERS = ((1, 1), (1, 10), (13, 1), (13, 10))
TALL, WIDE = 2, 5


class World(NamedTuple):
    """Digits with a stripe in one of four corners (1) or without (0), and a classifier of the two."""

    train: Samples
    marked: Samples
    masks: torch.Tensor
    classifier: Discriminator


@functools.cache
def world() -> World:
    digits = gx.create("dataset/digits", size=16)[:500]
    masks = torch.zeros(len(digits), 1, 16, 16, dtype=torch.bool)
    for i, corner in enumerate(draws.uniform(0, range(len(digits)), (1,), "corner")[:, 0].mul(4).long().tolist()):
        row, column = CORNERS[corner]
        masks[i, :, row : row + TALL, column : column + WIDE] = True
    striped = torch.where(masks, 1.0, digits.images)
    labels = torch.arange(500) % 2
    images = torch.where(labels.bool()[:, None, None, None], striped, digits.images)
    train = Samples(images[:460], labels=labels[:460], value_range=(-1.0, 1.0))
    fitted = gx.create("trainer/classifier", steps=150).fit(train, QUIET)
    marked = Samples(striped[460:], labels=torch.ones(40, dtype=torch.long), value_range=(-1.0, 1.0))
    return World(train, marked, masks[460:], fitted.classifier.eval())


def digits_without() -> torch.Tensor:
    """The held-out digits, before the stripe."""
    return gx.create("dataset/digits", size=16)[460:500].images


@functools.cache
def generator() -> torch.nn.Module:
    trainer = gx.create("trainer/ganmex", classifier=world().classifier, steps=120, batch=32)
    return trainer.fit(world().train, QUIET).generator.eval()


def energy(found: Attribution) -> float:
    metric = gx.create("metric/localisation")
    metric.update(explanation=found, masks=world().masks)
    return metric.compute()["energy"]


def why(baseline) -> Attribution:
    explainer = gx.create("explainer/ganmex-attribution", baseline=baseline, tolerance=0.05, max_steps=64)
    return explainer.explain(world().classifier, world().marked, target=1, runtime=QUIET)


def control(kind: str) -> float:
    images = world().marked.images
    if kind == "random":
        maps = draws.uniform(0, range(len(images)), images.shape[1:], "random")
    else:
        across = F.pad(images, (1, 1, 1, 1), mode="replicate")
        level, upright = (
            across[:, :, 1:-1, 2:] - across[:, :, 1:-1, :-2],
            across[:, :, 2:, 1:-1] - across[:, :, :-2, 1:-1],
        )
        maps = torch.hypot(level, upright)
    return energy(Attribution(maps=maps, target=1, images=images, value_range=(-1.0, 1.0)))


def test_the_classifier_knows_the_mark_and_controls_do_not_find_it():
    for images, expected in ((world().marked.images, 1), (digits_without(), 0)):
        assert (world().classifier(images).argmax(1) == expected).float().mean() >= 0.95
    share = TALL * WIDE / 256
    assert control("random") == pytest.approx(share, abs=0.01)  # it points at nothing
    assert control("edge") < 5 * share


def test_from_the_least_change_energy_is_in_the_mark():
    found = why(gx.create("explainer/counterfactual"))
    assert energy(found) >= 0.4
    assert energy(found) >= max(8 * control("random"), 3 * control("edge"), energy(why("zero")))


@pytest.mark.slow
def test_from_ganmex_energy_is_in_the_mark_more_than_from_any_image_without_class():
    found = why(gx.create("explainer/counterfactual", maker="ganmex", generator=generator()))
    assert found.failures == ("",) * len(world().marked)
    assert energy(found) >= 0.8
    assert energy(found) >= max(10 * control("random"), 5 * control("edge"), 2 * energy(why("zero")))
    for baseline in ("zero", "blur", "low"):
        assert energy(found) > energy(why(baseline))
