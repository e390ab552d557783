"""trainer/gan: the step against a literal version of it, what comes back, what is refused."""

import pytest
import torch
from torch.nn.functional import softplus

from genxai_core import Runtime, Samples, Spec, create, draws
from genxai_core.errors import BadParameter, InputError, MissingCapability


def literal_training(samples, *, seed, steps, batch, lr):
    """Goodfellow et al. 2014, algorithm 1 with k = 1 and the non-saturating loss, written out."""
    torch.manual_seed(seed)
    G, D = create("generator/tiny", size=16, channels=1), create("discriminator/tiny", channels=1)
    adam_g = torch.optim.Adam(G.parameters(), lr=lr, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(D.parameters(), lr=lr, betas=(0.5, 0.999))
    history = []
    for i in range(steps):
        x = samples.images[draws.batch_indices(seed, i, batch, len(samples))]
        fake = G(G.sample_latents(batch, seed, start=i * batch))
        on_real, on_fake = D(x), D(fake.detach())
        d_loss = softplus(-on_real).mean() + softplus(on_fake).mean()
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()
        g_loss = softplus(-D(fake)).mean()
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        history.append([d_loss.item(), g_loss.item(), on_real.mean().item(), on_fake.mean().item()])
    return G, D, history


def test_training_equals_the_literal_algorithm(train, samples):
    trained = train(betas=(0.5, 0.999))
    G, D, history = literal_training(samples, seed=3, steps=6, batch=8, lr=0.01)
    for name, model in (("generator", G), ("discriminator", D)):
        for key, value in model.state_dict().items():
            torch.testing.assert_close(trained.models[name].state_dict()[key], value, rtol=1e-5, atol=1e-6)
    for row, literal in zip(trained.table(), history, strict=True):
        assert [row[k] for k in ("d_loss", "g_loss", "logit_real", "logit_fake")] == pytest.approx(literal, rel=1e-4)


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_generator_is_the_running_average_of_its_weights(train, decay):
    steps = [train(steps=n).generator.state_dict() for n in range(1, 7)]  # step i does not know how many will follow
    trained = train(steps=6, ema=decay)
    for key, value in trained.generator.state_dict().items():
        literal = steps[0][key]
        for n, weights in enumerate(steps[1:], start=1):
            d = min(decay, (1 + n) / (10 + n))
            literal = d * literal + (1 - d) * weights[key]
        torch.testing.assert_close(value, literal, rtol=1e-5, atol=1e-6)
        assert not torch.equal(value, steps[-1][key])
    assert all(p.requires_grad for p in trained.generator.parameters())
    for key, value in train(steps=6).discriminator.state_dict().items():
        assert torch.equal(trained.discriminator.state_dict()[key], value)  # averaging changes nothing in the game


def test_training_teaches_both(train):
    trained = train(steps=150, batch=16, generator_lr=0.005, discriminator_lr=0.005)
    h = trained.history
    assert max(h["logit_real"][k] - h["logit_fake"][k] for k in range(60)) > 0.3  # the discriminator tells them apart
    generated = trained.generator(trained.generator.sample_latents(32, seed=9)).mean().item()
    untrained = train(steps=1, generator_lr=1e-9).generator
    before = untrained(untrained.sample_latents(32, seed=9)).mean().item()
    assert abs(generated + 0.5) < abs(before + 0.5)  # the mean brightness of the bars is about −0.5


def test_models_come_back_in_eval_mode_whole_and_buildable(train):
    trained = train()
    assert set(trained.models) == {"generator", "discriminator"}
    assert trained.info == {"steps": 6, "batch": 8}
    assert list(trained.history) == ["step", "d_loss", "g_loss", "logit_real", "logit_fake"]
    for model in trained.models.values():
        assert not any(module.training for module in model.modules())
        assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())


def test_what_was_frozen_in_the_discriminator_stays_frozen():
    from genxai_xai_gan.training import frozen

    D = create("discriminator/tiny", channels=1)
    D.first.requires_grad_(False)
    flags = [p.requires_grad for p in D.parameters()]

    def leave():
        with frozen(D):
            assert not any(p.requires_grad for p in D.parameters())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert [p.requires_grad for p in D.parameters()] == flags
    assert True in flags
    assert False in flags


def test_bfloat16_trains_and_keeps_float32_weights(train):
    trained = train(runtime=Runtime(device="cpu", seed=3, precision="bfloat16"))
    assert {p.dtype for p in trained.generator.parameters()} == {torch.float32}
    exact = train()
    assert trained.history["d_loss"] == pytest.approx(exact.history["d_loss"], rel=0.05)
    assert trained.history["d_loss"] != exact.history["d_loss"]


def test_other_value_range_is_refused_by_name(train, samples):
    with pytest.raises(InputError, match=r"data lie in \(0\.0, 1\.0\), the generator generator/tiny.*rescale"):
        train(data=samples.rescale((0.0, 1.0)))


def test_images_that_are_not_square_are_refused(train):
    with pytest.raises(InputError, match="square images, not 16×24"):
        train(data=Samples(torch.zeros(8, 1, 16, 24), value_range=(-1.0, 1.0)))


def test_generator_without_latents_is_refused(samples):
    trainer = create("trainer/gan", generator=Spec("generator/no-latents"), discriminator=Spec("discriminator/tiny"))
    with pytest.raises(MissingCapability, match="trainer/gan needs the capability HasLatents"):
        trainer.fit(samples)


def test_generator_of_another_size_is_refused(samples):
    trainer = create(
        "trainer/gan", generator=Spec("generator/tiny", {"size": 8}), discriminator=Spec("discriminator/tiny")
    )
    with pytest.raises(InputError, match=r"makes images \(1, 8, 8\), the data are \(1, 16, 16\)"):
        trainer.fit(samples, Runtime(device="cpu"))


def test_classifier_as_discriminator_is_refused(train):
    with pytest.raises(InputError, match=r"one logit per image, \[8, 1\].*gives \[8, 2\]"):
        train(discriminator=Spec("discriminator/tiny", {"logits": 2}))


@pytest.mark.parametrize(
    ("name", "params", "match"),
    [
        ("gan", {"steps": 0}, "steps is 0"),
        ("gan", {"batch": -1}, "batch is -1"),
        ("gan", {"generator_lr": 0.0}, "generator_lr is 0.0"),
        ("gan", {"discriminator_lr": float("nan")}, "discriminator_lr is nan"),
        ("gan", {"betas": [0.5, 1.0]}, "betas"),
        ("gan", {"betas": [0.5]}, "betas"),
        ("gan", {"steps": "6"}, "steps"),
        ("gan", {"alpha": 0.2}, "no such parameter"),
        ("xai-gan", {"alpha": -0.1}, "alpha is -0.1"),
        ("xai-gan", {"start": 1.5}, "start is 1.5"),
        ("xai-gan", {"explainer": "explainer/saliency"}, "explainer"),
    ],
)
def test_bad_parameters_are_refused(name, params, match):
    with pytest.raises(BadParameter, match=match):
        create(f"trainer/{name}", **params)
