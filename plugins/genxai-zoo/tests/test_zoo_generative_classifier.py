"""Bayes' rule by class densities: against Gaussians, whose posteriors are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from genxai_zoo.class_evidence import ClassEvidence, GenerativeEvidence, margins
from genxai_zoo.generative_classifier import GenerativeClassifier
from genxai_zoo.generative_training import GenerativeClassifierTrainer
from genxai_zoo.holdout import split
from torch import nn

from genxai_core import Generator, Runtime, Samples, Spec, create, draws, saving
from genxai_core.errors import BadParameter, ExplainerError, InputError, MissingCapability, StorageError
from genxai_core.training import Loop

SIDE, SIGMA = 4, 0.5
D = SIDE * SIDE
RUNTIME = Runtime(device="cpu", quiet=True)


class Gaussian(Generator):
    """Pixels N(mean, SIGMA²), independent."""

    value_range = (-4.0, 4.0)
    image_shape = (1, SIDE, SIDE)

    def __init__(self, mean):
        super().__init__()
        self.mean = nn.Parameter(mean)

    def log_prob(self, images):
        return -((images - self.mean) / SIGMA).square().flatten(1).sum(1) / 2 - D * math.log(
            SIGMA * math.sqrt(2 * math.pi)
        )


MEANS = 0.3 * draws.normal(7, range(3), (1, SIDE, SIDE))
PRIORS = (0.5, 0.3, 0.2)


def bayes():
    return GenerativeClassifier([Gaussian(mean) for mean in MEANS], PRIORS, ("a", "b", "c")).eval()


def drawn(n, seed=0):
    images = SIGMA * draws.normal(seed, range(n), (1, SIDE, SIDE))
    labels = torch.arange(n) % 3
    return Samples(images + MEANS[labels], labels=labels, value_range=(-4.0, 4.0), class_names=("a", "b", "c"))


# -- the classifier -----------------------------------------------------------------------------------------------


def test_posteriors_of_gaussians_are_the_linear_discriminant():
    images = drawn(9).images
    logits = bayes()(images)
    for i, x in enumerate(images.double()):
        weights = [math.log(p) + float((x * m).sum() - m.square().sum() / 2) / SIGMA**2 for p, m in zip(PRIORS, MEANS)]
        total = sum(math.exp(w) for w in weights)
        expected = torch.tensor([math.exp(w) / total for w in weights])
        torch.testing.assert_close(torch.softmax(logits[i], 0), expected, atol=1e-4, rtol=1e-4)


def test_a_logit_is_the_joint_log_density_and_log_prob_the_marginal_one():
    images, model = drawn(5).images, bayes().requires_grad_(False)
    for i, x in enumerate(images):
        each = [
            p * math.exp(float(torch.distributions.Normal(m, SIGMA).log_prob(x).double().sum()))
            for p, m in zip(PRIORS, MEANS)
        ]
        assert float(model.log_prob(images)[i]) == pytest.approx(math.log(sum(each)), abs=1e-3)
        assert float(model(images)[i, 1]) == pytest.approx(math.log(each[1]), abs=1e-3)


def test_priors_are_normalised_and_equal_unless_given():
    densities = [Gaussian(mean) for mean in MEANS]
    images = drawn(4).images
    torch.testing.assert_close(GenerativeClassifier(densities, [5, 3, 2])(images), bayes()(images))
    assert torch.allclose(GenerativeClassifier(densities).log_priors, torch.full((3,), -math.log(3)))


def test_images_beyond_the_range_are_clipped_and_precision_does_not_round_densities():
    images, model = drawn(4).images, bayes()
    beyond = images.clone()
    beyond[0, 0, 0, 0] = 9.0
    at_the_end = images.clone()
    at_the_end[0, 0, 0, 0] = 4.0
    torch.testing.assert_close(model(beyond), model(at_the_end), rtol=0, atol=0)
    with RUNTIME.with_(precision="bfloat16").autocast():
        assert torch.equal(model(images), bayes()(images))


class TwoEach(Gaussian):
    def log_prob(self, images):
        return super().log_prob(images)[:, None].expand(-1, 2)


def test_densities_that_do_not_make_a_classifier_are_refused():
    one, other = Gaussian(MEANS[0]), Gaussian(MEANS[1])
    with pytest.raises(MissingCapability, match="needs the capability HasDensity"):
        GenerativeClassifier([one, nn.Linear(1, 1)])
    other.value_range = (0.0, 1.0)
    with pytest.raises(ValueError, match=r"different spaces.*value_range"):
        GenerativeClassifier([one, other])
    for wrong, message in [
        ({"densities": [one]}, "1 densities"),
        ({"densities": [one, one], "priors": [1.0]}, "1 priors for 2"),
        ({"densities": [one, one], "priors": [1.0, 0.0]}, "must be above 0"),
        ({"densities": [one, one], "class_names": ("a",)}, "1 class_names for 2"),
    ]:
        with pytest.raises(BadParameter, match=message):
            create("discriminator/generative-classifier", **wrong)
    with pytest.raises(InputError, match=r"log_prob of class '0' is \[3, 2\] for 3 images"):
        GenerativeClassifier([TwoEach(MEANS[0]), one])(drawn(3).images)


def test_flows_of_other_levels_do_not_compare():
    flows = [create("generator/flow", size=8, levels=levels, hidden=4, transforms=1) for levels in (17, 9)]
    with pytest.raises(ValueError, match=r"levels \[17, 9\]"):
        GenerativeClassifier(flows)


def test_densities_and_log_probabilities_do_not_compare():
    vaes = [create("generator/vae", size=8, width=4, likelihood=name) for name in ("gaussian", "bernoulli")]
    with pytest.raises(ValueError, match=r"do not compare: likelihood \['gaussian', 'bernoulli'\]"):
        GenerativeClassifier(vaes)
    assert GenerativeClassifier(vaes[1:] * 2).likelihood == "bernoulli"


# -- its training -------------------------------------------------------------------------------------------------

FLOW = Spec(
    "trainer/flow",
    {
        "model": Spec("generator/flow", {"native": 0, "levels": 0, "transforms": 1, "hidden": 8, "bins": 4}),
        "steps": 60,
        "lr": 1e-2,
        "holdout": 0.0,
        "whiten": True,
    },
)


@pytest.fixture(scope="module")
def gaussians():
    """Two classes of linear-Gaussian images, x = A_y z + m_y: 600 to train on, 500 others, and the true log p(x|y)."""
    factors = torch.eye(4) + 0.4 * draws.normal(1, range(2), (4, 4))
    means = torch.tensor([[0.5, 0, 0, 0], [-0.5, 0, 0.2, 0]])
    noise, labels = draws.normal(0, range(1100), (4,)), (torch.arange(1100) % 3 == 0).long()
    images = torch.einsum("nij,nj->ni", factors[labels], noise) + means[labels]
    truth = torch.stack(
        [
            torch.distributions.MultivariateNormal(
                m.double(), scale_tril=torch.linalg.cholesky((f @ f.T).double())
            ).log_prob(images.double())
            for f, m in zip(factors, means)
        ],
        1,
    )
    samples = Samples(images.view(-1, 1, 2, 2), labels=labels, value_range=(-6.0, 6.0), class_names=("odd", "third"))
    return samples, truth + torch.tensor([2 / 3, 1 / 3]).log()


@pytest.fixture(scope="module")
def trained(gaussians):
    return create("trainer/generative-classifier", density=FLOW).fit(gaussians[0][:600], RUNTIME)


def test_fitted_to_linear_gaussian_classes_it_comes_near_bayes(gaussians, trained):
    samples, joint = gaussians[0][600:], gaussians[1][600:]
    with torch.no_grad():
        logits = trained.classifier(samples.images)
    best = (joint.argmax(1) == samples.labels).float().mean()
    found = (logits.argmax(1) == samples.labels).float().mean()
    guess = (samples.labels == 0).float().mean()
    assert float(best) - float(guess) > 0.1
    assert float(best - found) < 0.03
    odds, true_odds = logits.double().diff(dim=1)[:, 0], joint.diff(dim=1)[:, 0]
    assert float(torch.corrcoef(torch.stack([odds, true_odds]))[0, 1]) > 0.97
    assert float((torch.logsumexp(joint, 1) - torch.logsumexp(logits.double(), 1)).mean()) < 0.2  # nats of four pixels


def test_what_it_says_of_the_held_out_images_is_so(gaussians, trained):
    samples = gaussians[0][:600]
    train, held = split(600, 0.2, 0, "test")
    assert (trained.info["trained_on"], trained.info["held_out"]) == (480, 120)
    with torch.no_grad():
        logits = trained.classifier(samples[held].images)
    marginal = torch.logsumexp(logits, 1)
    accuracy = sum(int(a) == int(b) for a, b in zip(logits.argmax(1), samples[held].labels)) / 120
    assert trained.info["held_out_accuracy"] == pytest.approx(accuracy)
    assert trained.info["held_out_log_prob"] == pytest.approx(float(marginal.mean()), rel=1e-4)
    assert trained.info["floor"] == pytest.approx(sorted(marginal.tolist())[1], rel=1e-4)  # 1 % of 119 steps is 1
    shares = torch.bincount(samples[train].labels).float() / 480
    torch.testing.assert_close(trained.classifier.log_priors.exp(), shares)
    assert trained.classifier.class_names == ("odd", "third")


def test_its_history_is_the_mean_over_the_classes(gaussians):
    trainer = create("trainer/generative-classifier", density=FLOW, holdout=0.0, priors="equal")
    found = trainer.fit(gaussians[0][:200], RUNTIME)
    assert found.classifier.log_priors.exp().tolist() == pytest.approx([0.5, 0.5])
    assert float(found.classifier.floor) == -math.inf
    alone = []
    for c in range(2):
        rows = [i for i in split(200, 0.0, 0, "test")[0] if int(gaussians[0].labels[i]) == c]
        alone.append(create(FLOW.use, **FLOW.params).fit(gaussians[0][rows], RUNTIME))
    for i in (0, 17, 59):
        assert found.history["loss"][i] == pytest.approx(sum(t.history["loss"][i] for t in alone) / 2)
    assert found.history["step"] == [float(i) for i in range(60)]
    with torch.no_grad():
        logit = found.classifier(gaussians[0][:5].images)[:, 1] - math.log(0.5)
        torch.testing.assert_close(alone[1].generator.log_prob(gaussians[0][:5].images), logit)


def test_a_class_that_is_fitted_is_not_fitted_again_and_only_by_the_same_training(gaussians, tmp_path, monkeypatch):
    runtime, data = RUNTIME.with_(checkpoints=tmp_path), gaussians[0][:200]
    trainer = GenerativeClassifierTrainer(FLOW)
    whole = trainer.fit(data, RUNTIME)
    calls = []
    fit = GenerativeClassifierTrainer._train

    def stop_at_the_second(self, data, runtime):
        calls.append(len(data))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, data, runtime)

    monkeypatch.setattr(GenerativeClassifierTrainer, "_train", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, runtime)
    resumed = trainer.fit(data, runtime)
    assert len(calls) == 3
    assert calls[1] == calls[2] != calls[0]
    for (name, one), other in zip(whole.classifier.state_dict().items(), resumed.classifier.state_dict().values()):
        assert torch.equal(one, other), name
    with pytest.raises(StorageError, match="is of another training"):
        trainer.fit(data, runtime.with_(seed=1))
    for other in (
        replace(data, images=-data.images),
        replace(data, labels=1 - data.labels),
        data[list(range(199, -1, -1))],
    ):
        with pytest.raises(StorageError, match="is of another training"):
            trainer.fit(other, runtime)


def test_a_class_that_was_stopped_does_not_go_on_with_other_images(gaussians, tmp_path, monkeypatch):
    data, trainer = gaussians[0][:200], GenerativeClassifierTrainer(FLOW)
    runtime = RUNTIME.with_(checkpoints=tmp_path, checkpoint_seconds=0)
    update, calls = Loop.update, []

    def stop_at_the_tenth(self, *given):
        calls.append(given)
        if len(calls) == 10:
            raise KeyboardInterrupt
        update(self, *given)

    monkeypatch.setattr(Loop, "update", stop_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, runtime)
    with pytest.raises(StorageError, match=r"class-0/training-\w+: is of another training"):
        trainer.fit(replace(data, images=-data.images), runtime)
    resumed = trainer.fit(data, runtime)
    assert len(calls) == 10 + 2 * 60 - 9
    whole = trainer.fit(data, RUNTIME)
    for (name, one), other in zip(whole.classifier.state_dict().items(), resumed.classifier.state_dict().values()):
        assert torch.equal(one, other), name


def test_what_it_cannot_train_on_is_refused(gaussians):
    data, trainer = gaussians[0][:60], GenerativeClassifierTrainer(FLOW)
    with pytest.raises(InputError, match="needs labels"):
        trainer.fit(replace(data, labels=None), RUNTIME)
    with pytest.raises(InputError, match=r"label 2 is none of the classes 0…1"):
        trainer.fit(replace(data, labels=data.labels + 1), RUNTIME)
    with pytest.raises(InputError, match="class 'third' has no images"):
        trainer.fit(replace(data, labels=0 * data.labels), RUNTIME)
    alone = replace(data, labels=(torch.arange(60) == int(split(60, 0.2, 0, "test")[0][0])).long())
    with pytest.raises(InputError, match=r"class 'third': trainer/flow: training images \(1\) that do not differ"):
        trainer.fit(alone, RUNTIME)
    with pytest.raises(InputError, match="class 'odd': the images hold NaN or infinity; remove those"):
        trainer.fit(replace(data, images=data.images * math.nan), RUNTIME)
    bigger = Samples(torch.zeros(40, 1, 8, 8), labels=torch.arange(40) % 2, value_range=(-1, 1), class_names=("a", "b"))
    with pytest.raises(InputError, match="trainer/classifier trained 0 models with log_prob"):
        GenerativeClassifierTrainer(Spec("trainer/classifier", {"steps": 1})).fit(bigger, RUNTIME)
    for wrong in ({"priors": "guessed"}, {"holdout": 1.0}, {"outliers": -0.1}, {"density": Spec("generator/flow")}):
        with pytest.raises(BadParameter):
            create("trainer/generative-classifier", **wrong)


def test_what_it_trained_is_loaded_with_its_floor(trained, gaussians, tmp_path):
    again = saving.load_model(saving.save_model(trained.classifier, tmp_path / "model"))
    assert torch.equal(again.floor, trained.classifier.floor)
    images = gaussians[0][:5].images
    assert torch.equal(again(images), trained.classifier(images))


# -- its evidence -------------------------------------------------------------------------------------------------


def test_margins_are_the_definition():
    joint = draws.normal(0, range(6), (4,))
    target = torch.tensor([0, 1, 2, 3, 1, 1])
    found, rivals = margins(joint, target)
    for i, row in enumerate(joint.tolist()):
        own = row[int(target[i])]
        others = {y: value for y, value in enumerate(row) if y != int(target[i])}
        assert float(found[i]) == pytest.approx(own - max(others.values()))
        assert int(rivals[i]) == max(others, key=others.get)


def test_evidence_of_gaussians_is_the_closed_form_and_does_not_depend_on_the_batch():
    samples, model = drawn(7), bayes()
    model.floor.fill_(float(model.log_prob(samples.images).detach().sort().values[2]))
    found = GenerativeEvidence().explain(model, samples, target=samples.labels, runtime=RUNTIME.with_(batch_size=2))
    joint = torch.stack(
        [math.log(p) + torch.distributions.Normal(m, SIGMA).log_prob(samples.images).flatten(1).sum(1)
         for p, m in zip(PRIORS, MEANS)], 1
    )  # fmt: skip
    torch.testing.assert_close(found.joint, joint, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.posterior, joint.softmax(1), atol=1e-3, rtol=1e-3)
    assert torch.equal(found.decision, joint.argmax(1))
    assert torch.equal(found.scores > 0, joint.argmax(1) == samples.labels)
    assert int(found.supported.sum()) == 5
    row = found.table()[0]
    assert row["target"] == "a"
    assert row["decision"] == "abc"[int(joint[0].argmax())]
    assert row["log_density"] == pytest.approx(float(torch.logsumexp(joint[0], 0)), abs=1e-3)
    assert [r["supported"] for r in found.table()] == found.supported.tolist()
    assert found[2:4].table()[0]["score"] == pytest.approx(found.table()[2]["score"])


def test_an_image_of_no_class_has_a_decision_that_nothing_supports():
    far = Samples(torch.full((1, 1, SIDE, SIDE), 3.5), value_range=(-4.0, 4.0))
    model = bayes()
    inside = model.log_prob(drawn(90).images)
    model.floor.fill_(float(inside.min()))
    found = GenerativeEvidence().explain(model, far, target=0)
    assert float(found.posterior.max()) > 0.9
    assert not bool(found.supported)


def test_a_classifier_that_tells_apart_only_is_refused():
    with pytest.raises(MissingCapability, match="use what trainer/generative-classifier trains"):
        GenerativeEvidence().explain(create("discriminator/classifier", size=8), torch.zeros(2, 1, 8, 8), target=0)


def test_evidence_that_does_not_fit_is_refused():
    good = GenerativeEvidence().explain(bayes(), drawn(3), target=0)
    for wrong, message in [
        ({"joint": good.joint[:, :2]}, "joint must be finite"),
        ({"joint": good.joint * math.nan}, "joint must be finite"),
        ({"target": good.target + 3}, "targets must be"),
        ({"target": good.target.float()}, "target must be integers"),
        ({"target": good.target + 1}, "scores are not the margins"),
        ({"scores": good.scores + 1}, "scores are not the margins"),
    ]:
        with pytest.raises(ExplainerError, match=message):
            replace(good, **wrong)


def test_images_that_nothing_supports_have_a_star(monkeypatch):
    seen = {}
    monkeypatch.setattr("genxai_core.plots.image_grid", lambda images, value_range, **given: seen.update(given))
    found = GenerativeEvidence().explain(bayes(), drawn(3), target=1)
    unknown = replace(found, floor=float(found.log_density.sort().values[1]))
    unknown.plot()
    order = found.scores.argsort().tolist()
    assert [label.startswith("*") for label in seen["labels"]] == [not bool(unknown.supported[i]) for i in order]
    lowest = found.table()[order[0]]
    assert seen["labels"][0].lstrip("*") == f"{lowest['score']:+.0f} b|{lowest['rival']}".replace("-", "−")
    assert ClassEvidence.concat([found[:1], found[1:]]).table() == found.table()
