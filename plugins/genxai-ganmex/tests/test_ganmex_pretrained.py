"""The weights that ship: small, as their card and recipe say, and believed by others than who trained them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from genxai_ganmex.measuring import measured, wilson
from genxai_ganmex.stargan import StarGAN

from genxai_core import Spec, create, draws, pipeline, pretrained, saving

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.fixture(scope="module")
def digits():
    """What the training saw, and what it held out."""
    data = create("dataset/digits", size=16)
    order = draws.permutation(0, 0, len(data), stream="holdout").tolist()
    held = round(len(data) * 0.2)
    return data[order[held:]], data[order[:held]]


@pytest.fixture(scope="module")
def shipped():
    return create("generator/stargan", pretrained="digits")


@pytest.fixture(scope="module")
def moved(shipped, digits):
    """Held-out images moved to all classes: images ``[N·10, …]``, targets, and which pairs are of two classes."""
    images = digits[1].images
    targets = torch.arange(10).repeat(len(images))
    with torch.no_grad():
        repeated = images.repeat_interleave(10, 0)
        made = torch.cat([shipped.translate(x, t) for x, t in zip(repeated.split(500), targets.split(500))])
    return made, targets, targets != digits[1].labels.repeat_interleave(10)


def test_it_is_small_and_the_card_says_how_it_was_made(shipped):
    folder = Path(StarGAN.pretrained_folder)
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 1_500_000
    assert list(pretrained.cards(StarGAN)) == ["digits"]
    card = pretrained.cards(StarGAN)["digits"]
    source = pipeline.read(RECIPES.parent / card["recipe"])
    data, training = pipeline.plan(source).steps.values()
    assert card["training"] == saving.describe(Spec(training.use, training.params))
    assert card["data"] == saving.describe(Spec(data.use, data.params))
    assert card["seed"] == source.pipeline.seed == 0
    assert not shipped.training
    assert all(v.dtype == torch.float32 for v in shipped.state_dict().values())
    assert "pretrained" not in saving.recipe_of(shipped).params


def test_it_flips_the_classifier_as_often_as_the_card_says(shipped, digits):
    card = pretrained.cards(StarGAN)["digits"]["metrics"]
    classifier, images = create("discriminator/classifier", pretrained="digits"), digits[1].images
    with torch.no_grad():
        classes = classifier(images).argmax(1)
    found = measured(shipped.translate, classifier, images, classes, 10, 2.0, 500)
    for name, value in found.items():
        assert value == pytest.approx(card[name], abs=0.003), name
    assert found["flips"] >= 0.97
    assert card["witness_flips"] >= 0.9
    assert card["images"] == len(images)
    assert (found["flips_low"], found["flips_high"]) == pytest.approx(wilson(found["flips"], len(images)))


def test_a_machine_of_another_kind_believes_it_too(moved, digits):
    """A support vector machine on pixels, which has no gradient that a generator could have followed."""
    svm = pytest.importorskip("sklearn.svm").SVC(C=10)
    seen, held = digits
    svm.fit(seen.images.flatten(1).numpy(), seen.labels.numpy())
    assert svm.score(held.images.flatten(1).numpy(), held.labels.numpy()) > 0.97
    made, targets, other = moved
    right = torch.from_numpy(svm.predict(made.flatten(1).numpy())) == targets
    assert float(right[other].double().mean()) > 0.95


def test_it_is_nearer_than_the_nearest_image_of_the_class_that_it_was_trained_on(moved, digits):
    seen, held = digits
    made, _, other = moved
    change = (made - held.images.repeat_interleave(10, 0)).abs().flatten(1).mean(1)
    apart = torch.cdist(held.images.flatten(1), seen.images.flatten(1), p=1) / 256
    nearest = torch.stack([apart[:, seen.labels == t].amin(1) for t in range(10)], 1).flatten()
    assert float(change[other].mean()) < float(nearest[other].mean())
    assert float(change[~other].mean()) < float(change[other].mean()) / 2
