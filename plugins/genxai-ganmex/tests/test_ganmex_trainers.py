"""Both trainers: the classifier stays as it was, images do change class, and what does not fit is refused."""

from __future__ import annotations

import hashlib

import pytest
import torch
from ganmex_nets import Bright, OneLogit, blobs
from genxai_ganmex.judging import fingerprint
from genxai_ganmex.measuring import measured, wilson

from genxai_core import Runtime, Samples, Spec, create
from genxai_core.errors import BadParameter, InputError, StorageError

GENERATOR = Spec("generator/stargan", {"width": 8, "blocks": 1})
DISCRIMINATOR = Spec("discriminator/stargan", {"width": 8})
BRIEF = {"generator": GENERATOR, "discriminator": DISCRIMINATOR, "steps": 4, "batch": 8}


class OfAnySize(Bright):
    image_shape = None


def data(value_range=(0.0, 1.0), labelled=True):
    images, labels = blobs()
    samples = Samples(
        images, labels=labels if labelled else None, value_range=(0.0, 1.0), class_names=("dark", "bright")
    )
    return samples.rescale(value_range)


def fit(trainer="ganmex", samples=None, runtime=None, **params):
    made = create(f"trainer/{trainer}", **{**BRIEF, **params})
    return made.fit(samples or data(), runtime or Runtime(device="cpu", seed=1))


def hashed(model):
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest()


@pytest.fixture(scope="module")
def trained():
    """A training by a linear classifier, and the hash of the classifier before and after."""
    S = Bright().train()
    before = hashed(S)
    made = fit(classifier=S, steps=150, batch=16, lambda_rec=2.0, lambda_sim=1.0)
    return made, S, before


def test_the_classifier_is_what_it_was(trained):
    _, S, before = trained
    assert hashed(S) == before
    assert S.training
    assert S.weight.requires_grad
    assert S.weight.grad is None
    assert S.seen.item() == 0  # it worked in eval mode


def test_images_flip_the_classifier_and_only_the_patch_that_it_looks_at_needs_to_change(trained):
    made, S, _ = trained
    images, labels = blobs(60)
    x = images[40:] * 2 - 1
    with torch.no_grad():
        y = made.generator.translate(x, 1 - labels[40:])
        seen = S.eval()(y / 2 + 0.5).argmax(1)
    assert seen.tolist() == (1 - labels[40:]).tolist()
    change = (y - x).abs().mean((0, 1))
    inside = change[8:12, 4:8].mean()
    change[8:12, 4:8] = 0
    assert inside > 3 * change.sum() / (256 - 16)


def test_what_it_says_of_held_out_images_is_so(trained):
    made = trained[0]
    assert made.info["held_out"] == 8
    assert made.info["held_out_flips"] == 1.0
    assert made.info["held_out_flips_low"] == pytest.approx(wilson(1.0, 8)[0])
    assert 0.02 < made.info["held_out_change"] < 0.5
    assert made.info["held_out_identity"] < made.info["held_out_change"] / 2


def test_there_and_back_is_near_to_where_it_was(trained):
    """The cycle returns: nearer to the image than the translation is."""
    made, _, _ = trained
    images, labels = blobs(60)
    x, c = images[40:] * 2 - 1, labels[40:]
    with torch.no_grad():
        y = made.generator.translate(x, 1 - c)
        back = made.generator.translate(y, c)
    assert float((back - x).abs().mean()) < float((y - x).abs().mean()) / 2
    inside = (back - x)[:, :, 8:12, 4:8].abs().mean()
    assert inside < (y - x)[:, :, 8:12, 4:8].abs().mean() / 3


def test_stargan_flips_a_classifier_that_it_never_saw():
    made = fit("stargan", steps=150, batch=16, lambda_cls=2.0)
    images, labels = blobs(60)
    with torch.no_grad():
        y = made.generator.translate(images[40:] * 2 - 1, 1 - labels[40:])
        assert Bright().eval()(y / 2 + 0.5).argmax(1).tolist() == (1 - labels[40:]).tolist()
    assert made.info["held_out_cycle"] < made.info["held_out_change"] / 2
    assert made.generator.class_names == ("dark", "bright")


def test_a_recipe_an_object_and_one_logit_train():
    samples = data(labelled=False)
    assert fit(classifier=OneLogit(), samples=samples).generator.class_names == ("not bright", "bright")
    tiny = Spec("discriminator/classifier", {"size": 16, "num_classes": 3, "width": 8})
    built = fit(classifier=tiny, samples=data((-1.0, 1.0)), preset="lecture")
    assert built.generator.num_classes == 3
    assert (built.info["preset"], built.info["lambda_sim"]) == ("lecture", 10.0)


def test_a_recipe_trains_what_its_object_does():
    tiny = Spec("discriminator/classifier", {"pretrained": "digits"})
    digits = create("dataset/digits", size=16)[:40]
    one, other = (fit(classifier=c, samples=digits) for c in (tiny, tiny.build()))
    assert one.history == other.history
    assert hashed(one.generator) == hashed(other.generator)


def test_the_range_of_the_data_does_not_matter():
    one, other = (fit(classifier=Bright(), samples=data(r)) for r in ((0.0, 1.0), (-1.0, 1.0)))
    for name, series in one.history.items():
        assert series == pytest.approx(other.history[name], rel=1e-3, abs=1e-5), name


def test_a_checkpoint_of_another_classifier_is_refused(tmp_path):
    class KilledError(Exception):
        pass

    class Data(type(create("dataset/digits", size=16))):
        """Ends a training in its third batch."""

        reads = 0

        def _samples(self, rows):
            self.reads += 1
            if self.reads == 3:
                raise KilledError
            return super()._samples(rows)

    runtime = Runtime(device="cpu", checkpoints=tmp_path, checkpoint_seconds=0.0, quiet=True)
    trainer = {**BRIEF, "holdout": 0.0}
    S = create("discriminator/classifier", size=16, width=8)
    with pytest.raises(KilledError):
        create("trainer/ganmex", classifier=S, **trainer).fit(Data(size=16), runtime)
    other = create("discriminator/classifier", size=16, width=8)
    with torch.no_grad():
        other.head.bias += 1
    assert fingerprint(S) != fingerprint(other)
    digits = create("dataset/digits", size=16)
    with pytest.raises(StorageError, match="another configuration"):
        create("trainer/ganmex", classifier=other, **trainer).fit(digits, runtime)
    assert len(create("trainer/ganmex", classifier=S, **trainer).fit(digits, runtime).history["step"]) == 4


def test_the_measures_are_what_they_say():
    """Three images of three classes whose mean says the class; a translator that fails for one pair."""
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)

    def sees(x):
        return -((x.mean((1, 2, 3))[:, None] - torch.tensor([0.0, 0.5, 1.0])) ** 2)

    def translate(x, t):
        y = (t / 2.0)[:, None, None, None].expand_as(x).clone()
        stuck = (x.mean((1, 2, 3)) == 0) & (t == 2)  # from class 0 to class 2 it stays where it is
        y[stuck] = 0.0
        return y

    for batch in (1, 4, 64):
        found = measured(translate, sees, images, torch.tensor([0, 1, 2]), 3, 1.0, batch)
        assert found["flips"] == pytest.approx(5 / 6)
        assert found["worst_pair"] == 0.0
        assert found["change"] == pytest.approx((0.5 + 0 + 0.5 + 0.5 + 1.0 + 0.5) / 6)
        assert found["identity"] == 0.0
        assert found["cycle"] == pytest.approx(1.0 / 6)  # 2 goes to 0, and cannot come back
        assert found["flips_low"] < 5 / 6 < found["flips_high"]


def test_wilsons_interval():
    low, high = wilson(0.9, 100)  # worked out by hand: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"holdout": 1.0}, "holdout is 1.0"),
        ({"lambda_cls": -1.0}, "lambda_cls is -1.0"),
        ({"generator_lr": 0.0}, "generator_lr is 0.0"),
        ({"betas": (0.5, 1.0)}, "betas are"),
        ({"shift": -1}, "shift"),
        ({"preset": "fast"}, "preset"),
        ({"loss": "none"}, "loss"),
    ],
)
def test_parameters_out_of_range_are_refused(params, said):
    with pytest.raises(BadParameter, match=said):
        create("trainer/ganmex", classifier=Spec("discriminator/classifier"), **params)


def test_what_does_not_fit_is_refused_in_one_line():
    images = blobs()[0]
    flat = Samples(images[:, :, :8], value_range=(0.0, 1.0))
    with pytest.raises(InputError, match="square images"):
        fit(classifier=OfAnySize(), samples=flat)
    with pytest.raises(InputError, match=r"takes images \(1, 16, 16\), the data are \(1, 12, 12\)"):
        fit(classifier=Bright(), samples=Samples(images[:, :, :12, :12], value_range=(0.0, 1.0)))
    with pytest.raises(InputError, match="not a Discriminator"):
        fit(classifier=Spec("generator/stargan", {"size": 16}))
    with pytest.raises(InputError, match="has 5 classes, and there are 2"):
        fit(classifier=Bright(), generator=Spec("generator/stargan", {"num_classes": 5, "class_names": ()}))
    with pytest.raises(InputError, match=r"needs a discriminator with a class head"):
        fit(classifier=Bright(), discriminator=Spec("discriminator/dcgan", {"width": 8}))
    with pytest.raises(InputError, match="leave none to train on"):
        fit(classifier=Bright(), samples=data()[:1], holdout=0.9)
    with pytest.raises(InputError, match="labelled data of at least two classes"):
        fit("stargan", samples=Samples(images, value_range=(0.0, 1.0)))
    wrong = Samples(images, labels=torch.full((40,), 2), value_range=(0.0, 1.0), class_names=("a", "b"))
    with pytest.raises(InputError, match="label 2 is none of 0…1"):
        fit("stargan", samples=wrong)


def test_any_discriminator_of_one_logit_serves_where_class_and_source_are_judged_apart():
    made = fit(classifier=Bright(), discriminator=Spec("discriminator/dcgan", {"width": 8}), matched=False)
    assert made.info["matched"] is False
    with pytest.raises(InputError, match="one logit per image"):
        fit(
            classifier=Bright(),
            discriminator=Spec("discriminator/classifier", {"width": 8, "num_classes": 2}),
            matched=False,
        )
