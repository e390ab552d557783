"""Class-conditional training: the step against a literal version of it, every loss, the guides, what is refused."""

from dataclasses import replace

import pytest
import torch
from genxai_xai_gan.guidance import InputGradient, SeparatePass
from genxai_xai_gan.reference import ReferenceMask
from torch.nn.functional import softplus

from genxai_core import Attribution, Explainer, Runtime, Samples, Spec, create, draws
from genxai_core.adversarial import LOSSES
from genxai_core.errors import BadParameter, InputError

CPU = Runtime(device="cpu", seed=3)
CLASSES = 3
CONDITIONAL = {"generator": Spec("generator/conditional", {"num_classes": CLASSES})}
JUDGE = Spec("discriminator/conditional")


@pytest.fixture
def labelled(samples):
    """The bars, with names for their labels."""
    return replace(samples, class_names=("x", "y", "z"))


@pytest.fixture
def conditional(train, labelled):
    """Train the conditional tiny nets on labelled bars."""

    def run(name="gan", *, data=None, **params):
        return train(name, data=data or labelled, **{**CONDITIONAL, "discriminator": JUDGE, **params})

    return run


def literal_training(labelled, *, seed, steps, batch, lr, r1=0.0, penalty=0.0):
    """The non-saturating loss with labels: images of the batch's labels, each player's logit at (image, label)."""
    torch.manual_seed(seed)
    G = create("generator/conditional", size=16, channels=1, num_classes=CLASSES)
    D = create("discriminator/conditional", channels=1, num_classes=CLASSES)
    adam_g = torch.optim.Adam(G.parameters(), lr=lr, betas=(0.0, 0.9))
    adam_d = torch.optim.Adam(D.parameters(), lr=lr, betas=(0.0, 0.9))
    for i in range(steps):
        rows = draws.batch_indices(seed, i, batch, len(labelled))
        x, y = labelled.images[rows].requires_grad_(), labelled.labels[rows]
        fake = G(G.sample_latents(batch, seed, start=i * batch), y)
        on_real, on_fake = D.judged(x, y), D.judged(fake.detach(), y)
        if penalty:
            d_loss = on_fake.mean() - on_real.mean()
            mix = draws.uniform(seed, range(i * batch, (i + 1) * batch), (1, 1, 1), "interpolation")
            points = (mix * x + (1 - mix) * fake).detach().requires_grad_()
            slopes = torch.autograd.grad(D.judged(points, y).sum(), points, create_graph=True)[0]
            d_loss = d_loss + penalty * sum((slope.norm() - 1) ** 2 for slope in slopes) / batch
        else:
            d_loss = softplus(-on_real).mean() + softplus(on_fake).mean()
        if r1:
            slopes = torch.autograd.grad(on_real.sum(), x, create_graph=True)[0]
            d_loss = d_loss + r1 / 2 * sum(slope.norm() ** 2 for slope in slopes) / batch
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()
        judged = D.judged(fake, y)
        adam_g.zero_grad()
        (-judged.mean() if penalty else softplus(-judged).mean()).backward()
        adam_g.step()
    return {"generator": G, "discriminator": D}


@pytest.mark.parametrize(
    ("params", "literal"),
    [
        ({}, {}),
        ({"r1": 2.0}, {"r1": 2.0}),
        ({"loss": "wasserstein-gp", "gradient_penalty": 3.0}, {"penalty": 3.0}),
    ],
)
def test_training_equals_the_literal_algorithm_with_labels(conditional, labelled, params, literal):
    trained = conditional(**params)
    for name, model in literal_training(labelled, seed=3, steps=6, batch=8, lr=0.01, **literal).items():
        for key, value in model.state_dict().items():
            torch.testing.assert_close(trained.models[name].state_dict()[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_on_labels(conditional, loss):
    trained = conditional(loss=loss, r1=0.5, generator_lr=1e-3, discriminator_lr=1e-3)
    assert all(torch.isfinite(p).all() for model in trained.models.values() for p in model.parameters())
    assert trained.generator.class_names == ("x", "y", "z")  # they come from the data
    assert trained.discriminator.num_classes == CLASSES  # filled in


def test_the_labels_count(conditional, labelled, same_weights):
    other = Samples(labelled.images, labels=labelled.labels.flip(0), value_range=(-1.0, 1.0))
    assert same_weights(conditional(), conditional())
    assert not same_weights(conditional(), conditional(data=other))


def test_averaging_keeps_the_generator_conditional(conditional):
    trained = conditional(ema=0.9)
    images = trained.generator(trained.generator.sample_latents(4, seed=0), torch.tensor([0, 1, 2, 1]))
    assert images.shape == (4, 1, 16, 16)


# -- guides ---------------------------------------------------------------------------------------------------------


class Counted(Explainer):
    """Saliency by gradients of three copies of the batch; notes how many images there were."""

    returns = Attribution

    def __init__(self):
        self.seen = []

    def attribute(self, model, images, target):
        self.seen.append(len(images))
        x = images.repeat(3, 1, 1, 1).requires_grad_()
        found = torch.autograd.grad(model(x)[:, target].sum(), x)[0]
        return found.view(3, *images.shape).mean(0)

    def _explain(self, model, images, target):
        return Attribution(maps=self.attribute(model, images, target), target=target)


@pytest.fixture
def judged(labelled):
    torch.manual_seed(0)
    D = create("discriminator/conditional", channels=1, num_classes=CLASSES)
    with torch.no_grad():
        D.embedding.weight.mul_(20)  # so that labels matter
    images, labels = labelled.images[:9], labelled.labels[[9, 0, 1, 19, 2, 3, 5, 29, 4]]
    x = images.clone().requires_grad_()
    exact = torch.autograd.grad(D.eval().judged(x, labels).sum(), x)[0]
    return D.train(), images, labels, exact


def test_a_separate_pass_explains_each_image_given_its_label(judged):
    """Also by an explainer that looks at another number of images than it was given."""
    D, images, labels, exact = judged
    before = {key: value.clone() for key, value in D.state_dict().items()}
    explainer = Counted()
    for each in (InputGradient(), explainer):
        maps = SeparatePass(each, D, CPU)(0, images, labels)
        torch.testing.assert_close(maps, exact, rtol=1e-4, atol=1e-6)
    assert explainer.seen == labels.bincount().tolist()  # class by class
    assert (SeparatePass(InputGradient(), D, CPU)(0, images, labels.flip(0)) - exact).abs().max() > 1e-4
    assert all(torch.equal(value, before[key]) for key, value in D.state_dict().items())
    assert all(module.training for module in D.modules())


def test_the_reference_mask_explains_each_image_given_its_label(judged):
    D, images, labels, _ = judged
    logits = -torch.ones(9, 1)
    found = ReferenceMask(InputGradient(), D.eval(), CPU, absolute=True)(0, images, logits, labels)
    x = images.clone().requires_grad_()
    slopes = torch.autograd.grad(torch.sigmoid(D.judged(x, labels)).sum(), x)[0].abs()
    lifted = slopes - slopes.min()
    torch.testing.assert_close(found, lifted / lifted.max(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("params", "how"),
    [
        ({}, "running backward pass"),
        ({"explainer": Spec("explainer/ramp")}, "separate pass in eval mode"),
        ({"mode": "reference"}, "as the reference makes it"),
        ({"control": "shuffled"}, "a placebo"),
    ],
)
def test_guided_training_takes_labels(conditional, params, how, same_weights):
    trained = conditional("xai-gan", start=0.0, **params)
    assert how in trained.info["mask"]
    assert not same_weights(trained, conditional())
    assert same_weights(conditional("xai-gan", start=0.0, alpha=0.0, **params), conditional())


# -- what is refused ------------------------------------------------------------------------------------------------


def test_data_without_labels_are_refused(conditional, samples):
    with pytest.raises(InputError, match=r"trainer/gan: the models are conditional, and the data have no labels"):
        conditional(data=replace(samples, labels=None))


def test_another_number_of_classes_than_the_data_have_is_refused(conditional):
    with pytest.raises(InputError, match=r"the data have 3 classes, num_classes is 4; give num_classes: 3"):
        conditional(generator=Spec("generator/conditional", {"num_classes": 4, "class_names": ("a",) * 4}))
    with pytest.raises(InputError, match=r"num_classes is 5; give num_classes: 3"):  # not the generator's own refusal
        conditional(generator=Spec("generator/conditional", {"num_classes": 5}))


@pytest.mark.parametrize(
    ("generator", "discriminator", "match"),
    [
        (CONDITIONAL["generator"], Spec("discriminator/tiny"), "conditional has 3 classes.*discriminator/tiny 0"),
        (
            Spec("generator/tiny"),
            Spec("discriminator/conditional", {"num_classes": 3}),
            "tiny has 0 classes.*discriminator/conditional 3",
        ),
        (
            CONDITIONAL["generator"],
            Spec("discriminator/conditional", {"num_classes": 5}),
            "has 3 classes.*discriminator/conditional 5",
        ),
        (
            CONDITIONAL["generator"],
            Spec("discriminator/classes-only", {"num_classes": 3}),
            r"take a discriminator that offers given\(labels=…\)",
        ),
    ],
)
def test_models_of_different_classes_are_refused(conditional, generator, discriminator, match):
    with pytest.raises(InputError, match=match):
        conditional(generator=generator, discriminator=discriminator)


def test_a_number_of_classes_that_a_generator_does_not_take_is_refused(conditional):
    with pytest.raises(BadParameter, match="num_classes: generator/tiny has no such parameter"):
        conditional(generator=Spec("generator/tiny", {"num_classes": 3}))
