"""mode: reference against a literal version of what the authors' code does, and its faults, one by one."""

import copy

import pytest
import torch
from genxai_xai_gan.guidance import InputGradient, MaskGuide
from genxai_xai_gan.reference import ReferenceMask
from torch.nn.functional import binary_cross_entropy

from genxai_core import Runtime, Spec, create, draws
from genxai_core.errors import BadParameter, ExplainerError

CPU = Runtime(device="cpu", seed=3)


def literal_mask(D, images, prediction):
    """The published algorithm: one saliency of σ(D) after another in train mode, then the batch as a whole."""
    values = torch.ones_like(images)
    rejected = [i for i in range(len(images)) if prediction[i] < 0.5]
    if len(rejected) > 1:
        for i in rejected:
            x = images[i : i + 1].detach().clone().requires_grad_()
            values[i] = torch.autograd.grad(torch.sigmoid(D(x)).sum(), x)[0][0].abs()
    low = min(v for v in values.flatten().tolist())
    values = values - low
    high = max(v for v in values.flatten().tolist())
    return values / high if high > 0 else torch.zeros_like(values)


def game(discriminator="tiny", accepted=3):
    """A generator's batch of 8 of which some are accepted: the bias is set to lie between."""
    torch.manual_seed(0)
    G = create("generator/tiny", size=16, channels=3)
    D = create(f"discriminator/{discriminator}", channels=3).train()
    fake = G(G.sample_latents(8, seed=1))
    for _ in range(30):  # the power iteration comes to rest
        D(fake.detach())
    with torch.no_grad():
        D.eval()
        order = D(fake)[:, 0].sort(descending=True).values
        edge = (
            order[0] + 1
            if accepted == 0
            else order[-1] - 1
            if accepted == 8
            else order[accepted - 1 : accepted + 1].mean()
        )
        D.head.bias -= edge
    return G, D.train(), fake


@pytest.mark.parametrize("accepted", [0, 3, 6, 7, 8])
def test_the_weighted_gradient_is_the_references(accepted):
    G, D, fake = game(accepted=accepted)
    weights = list(G.parameters())
    logits = D(fake)
    prediction = torch.sigmoid(logits)
    assert (prediction >= 0.5).sum() == accepted
    M = literal_mask(copy.deepcopy(D), fake, prediction[:, 0].tolist())
    loss = binary_cross_entropy(prediction, torch.ones(8, 1))
    g = torch.autograd.grad(loss, fake, retain_graph=True)[0]
    expected = torch.autograd.grad(fake, weights, g + 0.2 * (g * M), retain_graph=True)

    mask = ReferenceMask(InputGradient(), D, CPU, absolute=True)
    torch.testing.assert_close(mask(0, fake, logits), M, rtol=0, atol=1e-6)
    MaskGuide(0.2, first=0, mask=mask, how="")(0, fake, logits)
    loss.backward()
    for weight, wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, wanted, rtol=0, atol=1e-6)
    assert M.any() == (accepted < 7)  # one rejected image, or none: no mask at all
    if 0 < accepted < 7:
        assert torch.equal(M[(prediction[:, 0] >= 0.5)], torch.ones(accepted, 3, 16, 16))  # the fault: full weight


def test_batch_statistics_are_those_of_one_image():
    _, D, fake = game("batch-norm", accepted=2)
    prediction = torch.sigmoid(D(fake))
    M = literal_mask(copy.deepcopy(D), fake, prediction[:, 0].tolist())
    torch.testing.assert_close(
        ReferenceMask(InputGradient(), D, CPU, absolute=True)(0, fake, D(fake)), M, rtol=0, atol=1e-6
    )


def test_dropout_takes_part_and_is_drawn_from_seed_and_step():
    _, D, fake = game("dropout")
    logits = -torch.ones(8, 1)
    mask = ReferenceMask(InputGradient(), D, CPU, absolute=True)
    assert torch.equal(mask(4, fake, logits), mask(4, fake, logits))
    assert not torch.equal(mask(4, fake, logits), mask(5, fake, logits))
    torch.manual_seed(3 + 4)
    torch.testing.assert_close(
        mask(4, fake, logits), literal_mask(copy.deepcopy(D), fake, [0.0] * 8), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("discriminator", ["tiny", "batch-norm", "dropout"])
def test_it_trains_with_any_discriminator(train, discriminator):
    trained = train("xai-gan", mode="reference", start=0.0, discriminator=Spec(f"discriminator/{discriminator}"))
    assert any(m > 0 for m in trained.history["mask_mean"])


@pytest.mark.parametrize("discriminator", ["tiny", "batch-norm", "dropout"])
def test_unlike_the_reference_it_leaves_the_discriminator_as_it_was(discriminator):
    _, D, fake = game(discriminator)
    before = {k: v.clone() for k, v in D.state_dict().items()}
    random = torch.get_rng_state()
    ReferenceMask(InputGradient(), D, CPU, absolute=True)(0, fake, -torch.ones(8, 1))
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in D.modules())
    assert all(p.requires_grad and p.grad is None for p in D.parameters())


def test_it_trains_from_half_on_and_says_so(train, same_weights):
    plain, reference = train(steps=12), train("xai-gan", mode="reference", steps=12)
    assert reference.history["d_loss"][:7] == plain.history["d_loss"][:7]
    assert "rejected images, train mode, scaled over the batch" in reference.info["mask"]
    assert not same_weights(reference, train("xai-gan", steps=12))
    assert same_weights(train("xai-gan", mode="reference", alpha=0.0), train())


def test_other_explainers_enter_with_their_sign():
    _, D, fake = game()
    a = draws.normal(7, range(1), (16, 16)) - 3

    class Fixed:
        def attribute(self, model, images, target):
            assert 0 < model(images).item() < 1  # it sees D, not the logit
            return a

    logits = torch.tensor([-1.0, -1, 1, 1, 1, 1, 1, 1])[:, None]
    M = ReferenceMask(Fixed(), D, CPU, absolute=False)(0, fake, logits)
    torch.testing.assert_close(M[0, 0], (a[0] - a.min()) / (1 - a.min()))
    assert torch.equal(M[2:], torch.ones(6, 3, 16, 16))


def test_explainers_that_cannot_are_refused(train):
    with pytest.raises(ExplainerError, match=r"Misshapen\.attribute returned \[1, 3, 3\]"):
        train("xai-gan", mode="reference", start=0.0, explainer=Spec("explainer/misshapen"), steps=40)
    with pytest.raises(BadParameter, match="mode"):
        create("trainer/xai-gan", mode="paper")
