"""The classifier and its trainer: accuracy on real digits, exact resume, refusals."""

import dataclasses

import pytest
import torch
from genxai_zoo.classifier import Classifier, ClassifierTrainer
from genxai_zoo.holdout import split
from sklearn.datasets import load_digits
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import models
from genxai_core.errors import BadParameter, InputError, TrainingDiverged

NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def digits():
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 8 - 1
    images = F.interpolate(images, 16, mode="bilinear", align_corners=False)
    return gx.Samples(images, labels=torch.tensor(raw.target), value_range=(-1.0, 1.0), class_names=NAMES)


class Failing(gx.Dataset):
    """The digits, until the disk is pulled out."""

    class_names = NAMES

    def __init__(self, samples, reads):
        self.samples, self.left, self.image_shape = samples, reads, samples.image_shape

    def __len__(self):
        return len(self.samples)

    def _samples(self, rows):
        if self.left == 0:
            raise OSError("the disk is gone")
        self.left -= 1
        return self.samples[rows]


def runtime(tmp_path=None, **changes):
    return gx.Runtime(device="cpu", quiet=True, checkpoints=tmp_path, checkpoint_seconds=0.0, **changes)


# -- the model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 28, 33, 64])
def test_any_size_from_eight_pixels_on(size):
    model = Classifier(size=size, channels=3, num_classes=4, width=8, feature_size=12)
    images = torch.randn(2, 3, size, size)
    assert model(images).shape == (2, 4)
    assert model.features(images).shape == (2, 12)
    torch.testing.assert_close(model.head(model.features(images)), model(images))
    assert model.class_names == ("0", "1", "2", "3")
    assert models.require(model, models.HasFeatures, by="test") is model


def test_features_have_mean_zero_and_mean_square_one():
    features = Classifier(size=8).features(10 * torch.randn(5, 1, 8, 8)).detach()
    torch.testing.assert_close(features.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.square().mean(1), torch.ones(5), atol=1e-3, rtol=0)


def test_a_logit_depends_on_its_own_image_only_even_in_training():
    model = Classifier(size=16).train()
    images = torch.randn(6, 1, 16, 16)
    torch.testing.assert_close(model(images)[:1], model(images[:1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 4}, "size 4"),
        ({"num_classes": 1}, "num_classes 1"),
        ({"feature_size": 2}, "feature_size 2"),
        ({"width": 12}, "multiple of 8"),
        ({"class_names": ("a", "b")}, "2 class_names for 10 classes"),
    ],
)
def test_parameters_out_of_bounds_are_refused(wrong, message):
    with pytest.raises(BadParameter, match=message):
        gx.create("discriminator/classifier", **{"size": 16, **wrong})


# -- training ---------------------------------------------------------------------------------------------------


def test_digits_are_learnt_with_the_defaults(digits, tmp_path):
    trained = gx.create("trainer/classifier").fit(digits, runtime())
    model = trained.classifier
    assert trained.info["held_out_accuracy"] >= 0.97
    assert trained.info["held_out"] == round(0.2 * len(digits))
    assert not model.training
    assert model.class_names == NAMES
    assert len(trained.history["loss"]) == trained.info["steps"] == 400
    gx.save_model(model, tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    assert loaded.class_names == NAMES
    assert torch.equal(loaded(digits.images[:8]), model(digits.images[:8]))


def test_the_held_out_accuracy_is_that_of_images_outside_training(digits):
    """Taught labels that are all off by one, and judged by right ones, it must be as wrong as it was taught to be."""
    trainer = ClassifierTrainer(steps=100)
    train, held = split(len(digits), trainer.holdout, seed=0, by="trainer/classifier")
    assert sorted(train + held) == list(range(len(digits)))
    taught = digits.labels.clone()
    taught[train] = (taught[train] + 1) % 10
    trained = trainer.fit(dataclasses.replace(digits, labels=taught), runtime())
    with torch.no_grad():
        predicted = trained.classifier(digits[held].images).argmax(1)
    assert float((predicted == (digits[held].labels + 1) % 10).float().mean()) > 0.9
    assert trained.info["held_out_accuracy"] == pytest.approx(float((predicted == digits[held].labels).float().mean()))
    assert trained.info["held_out_accuracy"] < 0.1


def test_a_training_that_broke_off_goes_on_to_the_same_bits(digits, tmp_path):
    trainer = ClassifierTrainer(steps=12, batch=16, holdout=0.1)
    straight = trainer.fit(digits, runtime())
    with pytest.raises(OSError, match="disk is gone"):
        trainer.fit(Failing(digits, reads=8), runtime(tmp_path))  # of which one is a checkpoint's look at the data
    with pytest.raises(OSError, match="disk is gone"):
        trainer.fit(Failing(digits, reads=0), runtime(tmp_path))
    resumed = trainer.fit(Failing(digits, reads=-1), runtime(tmp_path))
    before, after = straight.classifier.state_dict(), resumed.classifier.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert resumed.history == straight.history
    assert resumed.info == straight.info


def test_a_resumed_training_reads_only_the_steps_that_are_left(digits, tmp_path):
    trainer = ClassifierTrainer(steps=12, batch=16, holdout=0)
    with pytest.raises(OSError, match="disk is gone"):
        trainer.fit(Failing(digits, reads=8), runtime(tmp_path))  # of which one is a checkpoint's look at the data
    rest = Failing(digits, reads=6)
    trainer.fit(rest, runtime(tmp_path))
    assert rest.left == 0


def test_half_of_each_batch_on_each_of_two_processes_averages_to_the_whole(digits, monkeypatch):
    """Two processes are played one after the other; their exchange is replaced by recording what they would send."""
    sent = []

    def record(self, tensors):
        sent.append([t.clone() for t in tensors])

    trainer = ClassifierTrainer(steps=1, batch=16, holdout=0)
    monkeypatch.setattr(gx.Runtime, "average", record)
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        trainer.fit(digits, runtime())
    whole, left, right = [grads for grads in sent if len(grads) > 1]
    for w, a, b in zip(whole, left, right):
        torch.testing.assert_close((a + b) / 2, w, atol=1e-6, rtol=1e-4)
    assert any(not torch.equal(a, b) for a, b in zip(left, right))


def test_bfloat16_trains(digits):
    trained = ClassifierTrainer(steps=80).fit(digits, runtime(precision="bfloat16"))
    assert trained.info["held_out_accuracy"] > 0.9
    assert all(p.dtype == torch.float32 for p in trained.classifier.parameters())


# -- refusals ---------------------------------------------------------------------------------------------------


def test_data_without_labels_are_refused(digits):
    unlabelled = gx.Samples(digits.images, value_range=(-1.0, 1.0))
    named = gx.Samples(digits.images, value_range=(-1.0, 1.0), class_names=NAMES)
    for data in (unlabelled, named):
        with pytest.raises(InputError, match="needs labels"):
            ClassifierTrainer(steps=1).fit(data, runtime())


def test_class_names_default_to_the_numbers_of_the_labels(digits):
    bare = gx.Samples(digits.images, labels=digits.labels, value_range=(-1.0, 1.0))
    assert ClassifierTrainer(steps=1).fit(bare, runtime()).classifier.class_names == NAMES


@pytest.mark.parametrize(("label", "shown"), [(-100, "-100"), (10, "10")])
def test_labels_outside_the_classes_are_refused(digits, label, shown):
    wrong = gx.Samples(
        digits.images, labels=torch.full_like(digits.labels, label), value_range=(-1.0, 1.0), class_names=NAMES
    )
    with pytest.raises(InputError, match=rf"label {shown} is none of the model's classes 0…9"):
        ClassifierTrainer(steps=1).fit(wrong, runtime())


def test_another_value_range_is_refused(digits):
    with pytest.raises(InputError, match=r"samples\.rescale\(\(-1\.0, 1\.0\)\)"):
        ClassifierTrainer(steps=1).fit(digits.rescale((0.0, 1.0)), runtime())


def test_images_that_are_not_square_are_refused(digits):
    wide = gx.Samples(digits.images[:, :, :12], labels=digits.labels, value_range=(-1.0, 1.0), class_names=NAMES)
    with pytest.raises(InputError, match="square images, not 12×16"):
        ClassifierTrainer(steps=1).fit(wide, runtime())


def test_a_holdout_that_leaves_nothing_is_refused(digits):
    with pytest.raises(InputError, match="leave none to train on"):
        ClassifierTrainer(steps=1, holdout=0.9).fit(digits[:2], runtime())


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"holdout": 1.0}, {"holdout": -0.1}])
def test_trainer_parameters_out_of_bounds_are_refused(wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        gx.create("trainer/classifier", **wrong)


def test_data_that_are_not_finite_stop_the_training_before_it_steps(digits):
    images = digits.images.clone()
    images[:] = float("nan")
    broken = gx.Samples(images, labels=digits.labels, value_range=(-1.0, 1.0), class_names=NAMES)
    with pytest.raises(TrainingDiverged, match="at step 0; it was not stepped on"):
        ClassifierTrainer(steps=5).fit(broken, runtime())


def test_an_infinite_learning_rate_is_caught(digits):
    with pytest.raises(TrainingDiverged, match="at step 1"):
        ClassifierTrainer(steps=5, lr=float("inf")).fit(digits, runtime())
