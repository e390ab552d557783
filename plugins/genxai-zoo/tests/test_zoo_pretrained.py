"""The weights that ship: small, whole, as their cards and recipes say, and as good as they say."""

from pathlib import Path

import pytest
import torch
from genxai_zoo.classifier import Classifier
from genxai_zoo.dcgan import DCGANGenerator
from genxai_zoo.dcgan_discriminator import DCGANDiscriminator
from genxai_zoo.flow import Flow
from genxai_zoo.holdout import split
from genxai_zoo.vae import VAE

from genxai_core import Spec, create, pipeline, pretrained, registry, saving

CLASSES = {
    "generator/dcgan": DCGANGenerator,
    "discriminator/dcgan": DCGANDiscriminator,
    "generator/vae": VAE,
    "generator/flow": Flow,
    "discriminator/classifier": Classifier,
}
SHIPPED = [(use, name) for use, cls in CLASSES.items() for name in pretrained.cards(cls)]
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
FOLDER = Path(VAE.pretrained_folder).parent

each = pytest.mark.parametrize(("use", "name"), SHIPPED, ids=lambda v: str(v))


def test_everything_that_is_promised_is_there():
    everywhere = {"generator/dcgan", "discriminator/dcgan", "generator/vae", "discriminator/classifier"}
    promised = {(use, name) for use in everywhere for name in ("digits", "scenes-32", "scenes-64")}
    assert set(SHIPPED) == promised | {("generator/flow", "digits")}


def test_all_weights_together_are_small():
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 12_000_000
    assert {p.parent.name for p in FOLDER.rglob("*.safetensors")} == {name for _, name in SHIPPED}


@each
def test_weights_load_and_the_card_says_how_they_were_made(use, name):
    model, card = create(use, pretrained=name), pretrained.cards(registry.resolve(use))[name]
    assert not model.training
    assert all(v.dtype == torch.float32 for v in model.state_dict().values() if v.is_floating_point())
    source = pipeline.read(RECIPES.parent / card["recipe"])
    data, training = pipeline.plan(source).steps.values()
    assert card["training"] == saving.describe(Spec(training.use, training.params))
    assert card["data"] == saving.describe(Spec(data.use, data.params))
    assert card["seed"] == source.pipeline.seed
    assert model.image_shape[1] == card["data"]["with"]["size"]
    recipe = saving.recipe_of(model)
    assert "pretrained" not in recipe.params


@pytest.mark.parametrize("use", ["generator/dcgan", "generator/vae", "generator/flow"])
def test_digits_are_nearer_to_real_ones_than_a_gaussian_is_and_as_near_as_the_card_says(use):
    card = pretrained.cards(registry.resolve(use))["digits"]["metrics"]
    assert card["kid_high"] < card["gaussian_kid_low"]
    digits = create("dataset/digits", size=16)
    kid = create("metric/kid", extractor=create("discriminator/classifier", pretrained="digits"))
    drawn = create("dataset/generated", n=898).load(model=create(use, pretrained="digits"))
    real, other = digits[:898], digits[898:1796]
    assert kid.measure(real=real, generated=drawn)["kid"] == pytest.approx(card["kid"], abs=2e-3)
    assert kid.measure(real=real, generated=other)["kid"] == pytest.approx(card["real_kid"], abs=1e-3)


def test_the_classifier_of_digits_is_as_good_as_its_card_says():
    digits = create("dataset/digits", size=16)
    card = pretrained.cards(Classifier)["digits"]
    _, held = split(len(digits), 0.2, card["seed"], "a test")
    unseen = digits[held]
    with torch.no_grad():
        right = create("discriminator/classifier", pretrained="digits")(unseen.images).argmax(1) == unseen.labels
    assert float(right.float().mean()) == pytest.approx(card["metrics"]["held_out_accuracy"], abs=0.006)
    assert card["metrics"]["held_out_accuracy"] > 0.97


@pytest.mark.parametrize(("name", "size"), [("scenes-32", 32), ("scenes-64", 64)])
def test_the_classifier_of_scenes_is_as_good_as_its_card_says(name, size):
    card = pretrained.cards(Classifier)[name]["metrics"]
    unseen = create("dataset/scenes", n=200, size=size, start=90_000)[:]
    with torch.no_grad():
        right = create("discriminator/classifier", pretrained=name)(unseen.images).argmax(1) == unseen.labels
    assert float(right.float().mean()) > card["accuracy"] - 0.1
    assert card["accuracy"] > 0.6


def test_weights_for_another_size_are_refused():
    from genxai_core.errors import BadParameter

    with pytest.raises(BadParameter, match="size: the weights 'digits' are for 16, not 32"):
        create("generator/dcgan", pretrained="digits", size=32)
