"""trainer/xai-gan: what the hook computes, when it may be used, and that explaining touches nothing."""

import copy
import logging
import random

import numpy as np
import pytest
import torch
from genxai_xai_gan.guidance import InputGradient, MaskGuide, SeparatePass, explains_itself, scaled
from torch.nn.functional import softplus

from genxai_core import Runtime, Spec, create
from genxai_core.errors import ExplainerError, MissingCapability
from genxai_core.saliency import mask

CPU = Runtime(device="cpu")


def game(discriminator="tiny", n=8, channels=3, seed=0):
    torch.manual_seed(seed)
    G = create("generator/tiny", size=16, channels=channels)
    D = create(f"discriminator/{discriminator}", channels=channels)
    return G.train(), D.train(), G(G.sample_latents(n, seed=1))


def shake(D):
    """Change the weights as training does: the power iteration lags behind, and biases are not near zero."""
    with torch.no_grad():
        for p in D.parameters():
            p.add_(0.3 * torch.randn_like(p))


def state(model):
    """Everything of a discriminator that an explanation could disturb."""
    return {
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "grads": {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()},
        "flags": [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
        "random": [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()],
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key in ("flags", "hooks", "random"):
        assert before[key] == after[key], key
    for group in ("values", "grads"):
        for key, value in before[group].items():
            other = after[group][key]
            assert (value is None) == (other is None), key
            assert value is None or torch.equal(value, other), key


def test_mask_from_the_running_backward_pass_is_the_eval_mode_saliency():
    """Made after the train-mode forward, which moves spectral norm's power iteration: then the two are the same."""
    _, D, fake = game()
    shake(D)
    seen = {}

    def look(gradient):
        seen["g"] = gradient

    loss = softplus(-D(fake)).mean()
    separate = mask(SeparatePass(InputGradient(), D, CPU)(0, fake))
    fake.register_hook(look)
    loss.backward()
    torch.testing.assert_close(mask(seen["g"]), separate, rtol=0, atol=2e-6)
    assert separate.std() > 0.05  # a mask that says something


def test_a_saliency_made_before_the_forward_would_not_be_exact():
    """What the order is for: the same pass before the train-mode forward is off by far more than rounding."""
    _, D, fake = game()
    shake(D)
    before = mask(SeparatePass(InputGradient(), D, CPU)(0, fake))
    D(fake)
    after = mask(SeparatePass(InputGradient(), D, CPU)(0, fake))
    assert (before - after).abs().max() > 1e-4


def test_the_hook_gives_the_generator_the_weighted_gradient():
    G, D, fake = game()
    weights = list(G.parameters())
    g = torch.autograd.grad(softplus(-D(fake)).mean(), fake, retain_graph=True)[0]
    M = torch.from_numpy(np.stack([(a := np.abs(s)) * 0 + (a - a.min()) / (a.max() - a.min()) for s in g.numpy()]))
    expected = torch.autograd.grad(fake, weights, g + 0.7 * g * M, retain_graph=True)

    D.eval()  # the power iteration stays where it is
    record = MaskGuide(0.7, first=0, mask=None, how="")(0, fake, D(fake))
    assert record == {"mask_mean": 0.0}
    D.eval()
    state_before = copy.deepcopy(D.state_dict())
    softplus(-D(fake)).mean().backward()
    for weight, wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, wanted, rtol=2e-3, atol=1e-6)
    assert record["mask_mean"].item() == pytest.approx(M.mean().item(), rel=1e-2)
    assert all(torch.equal(v, state_before[k]) for k, v in D.state_dict().items())


def test_another_explainer_weighs_by_its_own_mask():
    _, D, fake = game()
    g = torch.autograd.grad(softplus(-D.eval()(fake)).mean(), fake, retain_graph=True)[0]
    fake.retain_grad()
    guide = MaskGuide(0.5, first=0, mask=scaled(SeparatePass(create("explainer/ramp"), D, CPU)), how="")
    guide(0, fake, D(fake))
    softplus(-D(fake)).mean().backward()
    ramp = torch.linspace(1, 0, 16).expand(8, 1, 16, 16)
    torch.testing.assert_close(fake.grad, g * (1 + 0.5 * ramp))


def test_a_saturated_discriminator_gives_no_gradient_and_no_mask():
    """Where the loss is so flat that its slope is 0 in float32, there is nothing to weigh, and nothing turns to NaN."""
    _, D, fake = game()
    fake.retain_grad()
    record = MaskGuide(0.2, first=0, mask=None, how="")(0, fake, D(fake))
    softplus(-(D(fake) + 1e4)).mean().backward()
    assert torch.equal(fake.grad, torch.zeros_like(fake))
    assert record["mask_mean"].item() == 0


@pytest.mark.parametrize(
    ("discriminator", "exact"), [("tiny", True), ("batch-norm", False), ("dropout", False), ("neighbour", False)]
)
def test_whether_the_running_pass_explains_is_measured(discriminator, exact):
    _, D, fake = game(discriminator)
    D(fake).sum().backward()
    before = state(D)
    assert explains_itself(D, fake.detach()[:4]) is exact
    assert_same(before, state(D))


@pytest.mark.parametrize("discriminator", ["batch-norm", "dropout"])
def test_batch_statistics_and_dropout_take_a_pass_of_their_own_and_say_so(train, caplog, discriminator):
    with caplog.at_level(logging.INFO):
        trained = train("xai-gan", discriminator=Spec(f"discriminator/{discriminator}"))
    assert "separate pass in eval mode" in trained.info["mask"]
    assert "separate pass in eval mode" in caplog.text
    assert "running backward pass" in train("xai-gan").info["mask"]


@pytest.mark.parametrize("discriminator", ["tiny", "batch-norm", "dropout"])
@pytest.mark.parametrize("explainer", [None, "rude"])
def test_a_separate_pass_leaves_the_discriminator_as_it_was(discriminator, explainer):
    _, D, fake = game(discriminator)
    D(fake.detach()).sum().backward()
    loss = softplus(-D(fake)).mean()
    before = state(D)
    SeparatePass(create(f"explainer/{explainer}") if explainer else InputGradient(), D, CPU)(0, fake)
    assert_same(before, state(D))
    if explainer is None:
        loss.backward()  # the graph that was pending is still valid


@pytest.mark.parametrize("explainer", ["rude", "noisy"])
def test_an_explainer_changes_nothing_but_the_mask(train, same_weights, explainer):
    """With alpha 0 the mask does not count: what is left of the explanation is its side effects, and there are none."""
    assert same_weights(train("xai-gan", explainer=Spec(f"explainer/{explainer}"), alpha=0.0, start=0.0), train("gan"))


def test_alpha_zero_is_plain_training_bit_for_bit(train, same_weights):
    plain, guided = train("gan", steps=12), train("xai-gan", steps=12, alpha=0.0, start=0.0)
    assert same_weights(plain, guided)
    assert guided.history["g_loss"] == plain.history["g_loss"]
    assert all(0 < m < 1 for m in guided.history["mask_mean"])


def test_before_start_it_is_plain_training_bit_for_bit_and_then_no_longer(train, same_weights):
    plain = train("gan", steps=12)
    never, late = train("xai-gan", steps=12, start=1.0), train("xai-gan", steps=12, start=0.5, alpha=2.0)
    assert same_weights(plain, never)
    assert never.info["guided"] == 0
    assert late.history["d_loss"][:7] == plain.history["d_loss"][:7]  # step 6 is the first whose generator differs
    assert late.history["d_loss"][7] != plain.history["d_loss"][7]
    assert not same_weights(plain, late)


def test_info_says_how_it_was_guided(train):
    trained = train("xai-gan", steps=8, start=0.25)
    masks = trained.history["mask_mean"]
    assert masks[:2] == [0, 0]
    assert all(0 < m < 1 for m in masks[2:])
    assert trained.info == {
        "steps": 8,
        "batch": 8,
        "alpha": 0.2,
        "mask": "saliency, from the running backward pass",
        "guided": 0.75,
        "mask_mean": pytest.approx(sum(masks[2:]) / 6),
    }


def test_random_explainers_draw_anew_at_every_step_and_the_same_in_every_run(train, same_weights):
    params = {"explainer": Spec("explainer/noisy"), "start": 0.0}
    first, second = train("xai-gan", **params), train("xai-gan", **params)
    assert same_weights(first, second)
    assert len(set(first.history["mask_mean"])) == 6


def test_explainers_that_cannot_are_refused_by_name(train):
    with pytest.raises(MissingCapability, match=r"explainer/offline cannot explain inside a training step"):
        train("xai-gan", explainer=Spec("explainer/offline"))
    with pytest.raises(ExplainerError, match=r"Misshapen\.attribute returned \[8, 3, 3\]"):
        train("xai-gan", explainer=Spec("explainer/misshapen"))
    with pytest.raises(ExplainerError, match=r"Broken\.attribute returned values that are not finite"):
        train("xai-gan", explainer=Spec("explainer/broken"))
