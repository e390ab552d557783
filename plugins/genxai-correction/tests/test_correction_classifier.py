"""trainer/artifact-classifier: unequal classes weigh the same, and its reliability is what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from genxai_correction import classifier, reliability
from genxai_correction.classifier import ArtifactClassifierTrainer
from torch.nn import functional as F

from genxai_core import Runtime, Samples, Spec, draws, load_result, save_result
from genxai_core.errors import InputError, StorageError

RUNTIME = Runtime(device="cpu", quiet=True)
SMALL = Spec("discriminator/classifier", {"width": 8, "feature_size": 8})
NAMES = ("normal", "artifact")


def spotted(broken, fine, seed=0, names=NAMES):
    """Return images of noise, the broken ones with a bright spot in a corner; labels in a mixed order."""
    n = broken + fine
    images = 0.3 * draws.normal(seed, range(n), (1, 16, 16))
    labels = torch.zeros(n, dtype=torch.long)
    labels[torch.from_numpy(draws.permutation(seed, 0, n, stream="spots"))[:broken]] = names.index("artifact")
    images[labels == names.index("artifact"), :, 2:6, 2:6] += 1.0
    return Samples(images.clamp(-1, 1), labels=labels, value_range=(-1.0, 1.0), class_names=names)


def fit(data, runtime=RUNTIME, **params):
    return ArtifactClassifierTrainer(**{"model": SMALL, "steps": 60, "batch": 16, **params}).fit(data, runtime)


# -- what it learns ---------------------------------------------------------------------------------------------


def test_it_finds_few_broken_ones_among_many_and_says_how_surely(tmp_path):
    trained = fit(spotted(12, 90))
    assert trained.info["labels"] == {"normal": 90, "artifact": 12}
    assert (trained.info["trained_on"], trained.info["held_out"]) == (102 - 25, 25)  # 22 of 90, 3 of 12
    assert trained.info["held_out_balanced_accuracy"] > 0.9
    assert trained.info["held_out_auc"] > 0.95
    assert 0.5 < trained.info["held_out_auc_low"] < trained.info["held_out_auc"] <= trained.info["held_out_auc_high"]
    assert trained.info["reliability"].startswith("AUC ")
    assert trained.classifier.class_names == NAMES
    unseen = spotted(20, 20, seed=9)
    with torch.no_grad():
        right = trained.classifier(unseen.images).argmax(1) == unseen.labels
    assert right.float().mean() > 0.9
    save_result(trained, tmp_path / "judge")
    assert load_result(tmp_path / "judge").info == dict(trained.info)


def test_labels_that_mean_nothing_are_said_to_be_no_better_than_guessing():
    data = spotted(30, 30)
    shuffled = data.labels[torch.from_numpy(draws.permutation(4, 0, 60, stream="shuffled"))]
    info = fit(replace(data, labels=shuffled), steps=20).info
    assert info["held_out_auc_low"] < 0.5
    assert info["reliability"].startswith("not shown to be better than guessing: AUC ")


@pytest.mark.parametrize("batch", [26, 9])
def test_the_loss_is_that_of_balanced_classes(monkeypatch, batch):
    """Over all images it is the mean over the classes of the mean loss in each; over a part, its share of that."""
    data = spotted(6, 30)
    train, _ = classifier._split(data.labels, NAMES, 0.25, 0)
    assert len(train) == 26
    seen = []
    original = F.cross_entropy

    def look(logits, *arguments, **given):
        seen.append(logits.detach().clone())
        return original(logits, *arguments, **given)

    monkeypatch.setattr(classifier.F, "cross_entropy", look)
    loss = fit(data, steps=1, batch=batch, flip=False).history["loss"][0]
    rows = [train[i] for i in draws.batch_indices(0, 0, batch, 26)]
    labels = data.labels[rows]
    each = original(seen[0], labels, reduction="none").tolist()
    counts = data.labels[train].bincount().tolist()
    balanced = sum(26 / (2 * counts[k]) * value for k, value in zip(labels.tolist(), each)) / batch
    assert loss == pytest.approx(balanced, rel=1e-5)
    assert loss != pytest.approx(sum(each) / batch, rel=1e-3)
    if batch == 26:
        of = [[value for k, value in zip(labels.tolist(), each) if k == c] for c in (0, 1)]
        assert loss == pytest.approx(sum(sum(values) / len(values) for values in of) / 2, rel=1e-5)


def test_the_class_weights_are_those_of_what_is_trained_on():
    labels = spotted(8, 40).labels
    train, held = classifier._split(labels, NAMES, 0.25, 0)
    assert sorted([*train, *held]) == list(range(48))
    assert labels[held].bincount().tolist() == [10, 2]
    assert classifier._split(labels, NAMES, 0.25, 1)[1] != held


def test_half_of_a_batch_is_mirrored_another_half_at_another_step():
    trainer = ArtifactClassifierTrainer(SMALL, batch=200)
    images = draws.normal(0, range(200), (1, 2, 3))
    found = [trainer._mirrored(images, step, RUNTIME) for step in (0, 1)]
    turned = [(f != images).flatten(1).any(1) for f in found]
    for f, which in zip(found, turned):
        assert torch.equal(f[which], images[which].flip(3))
        assert 70 < int(which.sum()) < 130
    assert not torch.equal(*turned)
    assert torch.equal(ArtifactClassifierTrainer(SMALL, batch=200, flip=False)._mirrored(images, 0, RUNTIME), images)


def seen_by(monkeypatch, runtime, data):
    """Return the images and the labels on which three steps are made, and the learning rate of each."""
    images, labels, rates = [], [], []
    mirrored, entropy, stepped = ArtifactClassifierTrainer._mirrored, F.cross_entropy, torch.optim.Adam.step

    def look(trainer, batch, step, runtime):
        images.append(mirrored(trainer, batch, step, runtime))
        return images[-1]

    def loss(logits, target, **given):
        labels.append(target.clone())
        return entropy(logits, target, **given)

    def update(adam, *given):
        rates.append(adam.param_groups[0]["lr"])
        return stepped(adam, *given)

    with monkeypatch.context() as patched:
        patched.setattr(ArtifactClassifierTrainer, "_mirrored", look)
        patched.setattr(classifier.F, "cross_entropy", loss)
        patched.setattr(torch.optim.Adam, "step", update)
        fit(data, runtime, steps=3, batch=8, lr=0.3)
    return images, labels, rates


def test_each_process_takes_its_share_of_every_batch_mirrored_alike(monkeypatch):
    data = spotted(6, 12)
    images, labels, _ = seen_by(monkeypatch, RUNTIME, data)
    assert [len(batch) for batch in images] == [8, 8, 8]
    halves = []
    for which in (0, 1):
        with monkeypatch.context() as patched:
            patched.setattr(Runtime, "shard", lambda _, n, which=which: slice(which * n // 2, (which + 1) * n // 2))
            halves.append(seen_by(monkeypatch, RUNTIME, data)[:2])
    for step in range(3):
        assert torch.equal(torch.cat([half[0][step] for half in halves]), images[step])
        assert torch.equal(torch.cat([half[1][step] for half in halves]), labels[step])


def test_the_learning_rate_falls_linearly_to_zero(monkeypatch):
    assert seen_by(monkeypatch, RUNTIME, spotted(6, 12))[2] == pytest.approx([0.3, 0.2, 0.1])


def test_a_checkpoint_of_other_images_or_labels_is_refused(tmp_path):
    data = spotted(6, 12)
    runtime = RUNTIME.with_(checkpoints=tmp_path, checkpoint_seconds=0.0)
    whole = fit(data, runtime, steps=8)
    assert whole.history == fit(data, runtime, steps=8).history
    other = data.images.clone()
    other[3, 0, 0, 0] += 0.01
    swapped = data.labels.roll(1)
    for changed in (replace(data, images=other), replace(data, labels=swapped)):
        with pytest.raises(StorageError, match="checkpoint of another configuration"):
            fit(changed, runtime, steps=8)


# -- what it refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (replace(spotted(6, 6), class_names=("a", "b")), "needs a class 'artifact' .* the classes .* are a, b; label"),
        (replace(spotted(6, 6), class_names=()), "the classes of these images are not known"),
        (replace(spotted(6, 6), class_names=("artifact",)), "needs a class 'artifact' and another one"),
        (replace(spotted(6, 6), class_names=("artifact", "artifact")), "a class comes twice in artifact, artifact"),
        (replace(spotted(6, 6), images=torch.full((12, 1, 16, 16), torch.nan)), "images hold NaN or infinity; remove"),
        (replace(spotted(6, 6), images=spotted(6, 6).images * 255), r"pixels lie far outside \(-1.0, 1.0\); rescale"),
        (replace(spotted(6, 6), labels=None), "needs labels, and these images have none"),
        (replace(spotted(6, 6), labels=torch.full((12,), 2)), "label 2 is none of the classes 0…1"),
        (spotted(3, 40), "3 images are labelled 'artifact': too few to hold out 2 and train on 2 or more; label more"),
        (spotted(0, 40), "0 images are labelled 'artifact'"),
        (spotted(40, 1), "1 images are labelled 'normal'"),
        (replace(spotted(6, 6), images=torch.zeros(12, 1, 16, 20)), "takes square images, not 16×20"),
        (spotted(6, 6).rescale((0.0, 1.0)), r"images are in \(0.0, 1.0\), the model expects .*samples.rescale"),
    ],
)
def test_data_that_cannot_be_learned_from_are_told(data, said):
    with pytest.raises(InputError, match=said) as told:
        fit(data, steps=1)
    assert "\n" not in str(told.value)


def test_a_model_that_takes_no_names_is_refused():
    with pytest.raises(InputError, match="is no discriminator of the classes normal, artifact; use one that takes"):
        fit(spotted(6, 6), model=Spec("discriminator/dcgan"))


@pytest.mark.parametrize("params", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"holdout": 0.0}, {"holdout": 1.0}])
def test_bad_parameters_are_told(params):
    with pytest.raises(ValueError, match="must be"):
        ArtifactClassifierTrainer(SMALL, **params)


# -- its reliability --------------------------------------------------------------------------------------------


def test_the_auc_is_the_share_of_pairs_in_order():
    broken, fine = torch.tensor([0.9, 0.5, 0.5, 0.2]), torch.tensor([0.5, 0.1, 0.2])
    pairs = [(1.0 if b > f else 0.5 if b == f else 0.0) for b in broken.tolist() for f in fine.tolist()]
    assert reliability.auc(broken, fine) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize(("found", "m", "n"), [(0.9, 5, 40), (1.0, 3, 20), (0.5, 10, 10), (0.0, 4, 4), (0.62, 2, 30)])
def test_the_interval_is_where_the_equation_says(found, m, n):
    """All θ on a fine grid for which |θ − θ̂| is within z standard errors at θ."""
    theta = torch.linspace(0, 1, 200_001, dtype=torch.double)
    c = (m + n) / 2 - 1
    v = theta * (1 - theta) * (1 + c * (1 - theta) / (2 - theta) + c * theta / (1 + theta)) / (m * n)
    inside = theta[(theta - found).abs() <= 1.959964 * v.sqrt()]
    low, high = reliability.auc_interval(found, m, n)
    assert low == pytest.approx(float(inside.min()), abs=1e-5)
    assert high == pytest.approx(float(inside.max()), abs=1e-5)


def test_a_perfect_auc_of_few_labels_is_not_certain():
    low, high = reliability.auc_interval(1.0, 4, 20)
    assert high == 1.0
    assert 0.6 < low < 0.85
    assert reliability.auc_interval(1.0, 40, 200)[0] > 0.97
    with pytest.raises(ValueError, match="there must be some of each"):
        reliability.auc_interval(1.0, 0, 3)


@pytest.mark.parametrize(("shift", "truth"), [(1.0, 0.760250), (2.3, 0.948031)])
def test_the_interval_holds_the_true_auc_as_often_as_it_says(shift, truth):
    """Normal scores d apart have the AUC Φ(d/√2); 6 broken and 25 fine images, 500 times."""
    values = draws.normal(0, range(500), (31,)).double()
    held = 0
    for row in values:
        low, high = reliability.auc_interval(reliability.auc(row[:6] + shift, row[6:]), 6, 25)
        held += low <= truth <= high
    assert 0.92 <= held / 500 <= 0.995


def test_real_images_do_not_flatter_the_auc():
    """They are told from generated ones without any artifact; where there is nothing else they must do."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.0, 0.0])
    names = ("normal", "artifact", "real")
    found = reliability.figures(scores, labels, labels, names, 1)
    assert found["held_out_auc"] == 0
    assert "2 artifact and 2 normal images" in found["reliability"]
    some = labels > 0
    alone = reliability.figures(scores[some], labels[some] - 1, labels[some] - 1, ("artifact", "real"), 0)
    assert alone["held_out_auc"] == 1
    assert "2 artifact and 2 real images" in alone["reliability"]


def test_the_accuracies_are_of_all_images_and_of_all_classes():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    guessed = torch.tensor([0, 0, 0, 0, 0, 1])
    found = reliability.figures(guessed.double(), guessed, labels, NAMES, 1)
    assert found["held_out_accuracy"] == pytest.approx(5 / 6)
    assert found["held_out_balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
