"""Losses and penalties inside the training step: the step against literal versions, and every loss trains."""

import math
from typing import get_args

import pytest
import torch
from torch.nn.functional import softplus

from genxai_core import Spec, create, draws
from genxai_core.adversarial import LossName
from genxai_core.errors import BadParameter


def literal(samples, d_objective, g_objective, steps=6, batch=8, lr=0.01, seed=3):
    """Alternating steps of Adam, written out."""
    torch.manual_seed(seed)
    G, D = create("generator/tiny", size=16, channels=1), create("discriminator/tiny", channels=1)
    adam_g = torch.optim.Adam(G.parameters(), lr=lr, betas=(0.0, 0.9))
    adam_d = torch.optim.Adam(D.parameters(), lr=lr, betas=(0.0, 0.9))
    for i in range(steps):
        x = samples.images[draws.batch_indices(seed, i, batch, len(samples))].clone().requires_grad_()
        fake = G(G.sample_latents(batch, seed, start=i * batch))
        adam_d.zero_grad()
        d_objective(D, x, fake.detach(), i).backward()
        adam_d.step()
        adam_g.zero_grad()
        g_objective(D(fake)).backward()
        adam_g.step()
    return {"generator": G, "discriminator": D}


def assert_trained_alike(trained, models):
    for name, model in models.items():
        for key, value in model.state_dict().items():
            torch.testing.assert_close(trained.models[name].state_dict()[key], value, rtol=1e-4, atol=1e-5)


def squared_slopes(logits, x):
    return torch.autograd.grad(logits.sum(), x, create_graph=True)[0].flatten(1).square().sum(1)


def test_wasserstein_with_gradient_penalty_equals_the_literal_algorithm(train, samples):
    def d_objective(D, x, fake, i):
        on_real, on_fake = D(x), D(fake)
        mix = draws.uniform(3, range(8 * i, 8 * i + 8), (1, 1, 1), "interpolation")
        between = (mix * x + (1 - mix) * fake).detach().requires_grad_()
        return on_fake.mean() - on_real.mean() + 7.0 * ((squared_slopes(D(between), between).sqrt() - 1) ** 2).mean()

    trained = train(loss="wasserstein-gp", gradient_penalty=7.0)
    assert_trained_alike(trained, literal(samples, d_objective, lambda v: -v.mean()))
    assert all(0 < penalty < math.inf for penalty in trained.history["gradient_penalty"])


def test_r1_equals_the_literal_algorithm(train, samples):
    def d_objective(D, x, fake, i):
        on_real, on_fake = D(x), D(fake)
        return softplus(-on_real).mean() + softplus(on_fake).mean() + 5.0 / 2 * squared_slopes(on_real, x).mean()

    trained = train(r1=5.0)
    assert_trained_alike(trained, literal(samples, d_objective, lambda v: softplus(-v).mean()))
    assert list(trained.history) == ["step", "d_loss", "g_loss", "logit_real", "logit_fake", "r1"]


def test_smoothed_labels_equal_the_literal_algorithm(train, samples):
    bce = torch.nn.functional.binary_cross_entropy_with_logits

    def d_objective(D, x, fake, i):
        on_real, on_fake = D(x), D(fake)
        return bce(on_real, torch.full_like(on_real, 0.9)) + bce(on_fake, torch.zeros_like(on_fake))

    trained = train(label_smoothing=0.1, loss="minimax")
    assert_trained_alike(trained, literal(samples, d_objective, lambda v: -softplus(v).mean()))


@pytest.mark.parametrize("loss", get_args(LossName))
def test_every_loss_trains_plain_and_guided_and_differs_from_the_others(train, same_weights, loss):
    params = {"loss": loss, "steps": 8, "generator_lr": 0.001, "discriminator_lr": 0.001}
    plain = train(**params)
    assert all(math.isfinite(value) for row in plain.table() for value in row.values())
    assert same_weights(plain, train("xai-gan", alpha=0.0, start=0.0, **params))
    guided = train("xai-gan", start=0.0, **params)
    assert all(0 < m < 1 for m in guided.history["mask_mean"])
    assert "running backward pass" in guided.info["mask"]
    assert loss == "non-saturating" or not same_weights(plain, train(**{**params, "loss": "non-saturating"}))


@pytest.mark.parametrize("discriminator", ["dropout", "batch-norm"])
def test_penalties_work_with_any_discriminator_in_bfloat16_too(train, discriminator):
    from genxai_core import Runtime

    trained = train(
        "xai-gan",
        loss="wasserstein-gp",
        r1=1.0,
        discriminator=Spec(f"discriminator/{discriminator}"),
        runtime=Runtime(device="cpu", seed=3, precision="bfloat16"),
    )
    assert {p.dtype for p in trained.generator.parameters()} == {torch.float32}
    assert all(v > 0 for v in trained.history["r1"])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"loss": "logistic"}, "loss"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "'hinge' has no labels to smooth; these have: non-saturating"),
        ({"label_smoothing": 0.5}, "below 0.5"),
        ({"r1": -1.0}, "r1 is -1.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"gradient_penalty": float("nan")}, "gradient_penalty is nan"),
    ],
)
@pytest.mark.parametrize("name", ["gan", "xai-gan"])
def test_bad_parameters_are_refused(name, params, match):
    with pytest.raises(BadParameter, match=match):
        create(f"trainer/{name}", **params)
