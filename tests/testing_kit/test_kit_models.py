"""The tiny models have the answers that their docstrings state."""

from __future__ import annotations

import pytest
import torch

from genxai_core import Samples, models
from genxai_core.errors import InputError
from genxai_core.testing import (
    ConstantDiscriminator,
    LinearDiscriminator,
    LinearGenerator,
    PatchDataset,
    PatchDiscriminator,
    QuadraticDiscriminator,
    planted_images,
)

ALL = [LinearGenerator, LinearDiscriminator, QuadraticDiscriminator, PatchDiscriminator, ConstantDiscriminator]


@pytest.fixture
def images():
    return torch.rand(4, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def gradient(model, images, k=0):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(model(images)[:, k].sum(), images)[0]


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3)])
def test_none_has_ten_thousand_parameters(cls, size, channels):
    model = cls(size=size, channels=channels)
    assert 0 < sum(p.numel() for p in model.parameters()) < 10_000
    assert model.image_shape == (channels, size, size)


@pytest.mark.parametrize("cls", ALL)
def test_a_size_that_does_not_fit_is_refused(cls):
    with pytest.raises(ValueError, match="multiple of 4"):
        cls(size=18)
    with pytest.raises(ValueError, match="at least 1"):
        cls(channels=0)


def test_linear_generator():
    model = LinearGenerator(size=16, channels=2)
    latents = model.sample_latents(6, seed=3)
    expected = torch.full((6, 2, 16, 16), 0.05)
    for k, (row, column) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        expected[:, :, row : row + 8, column : column + 8] += 0.2 * latents[:, k, None, None, None]
    torch.testing.assert_close(model(latents), expected)
    torch.testing.assert_close(model.encode(expected), latents)
    units = model.layers(latents[:, :, None, None])
    assert units.shape == (6, 4, 4, 4)
    for k in range(4):  # unit k is latent k in quadrant k, and 0 elsewhere
        drawn = torch.zeros(6, 4, 4)
        drawn[:, 2 * (k // 2) : 2 * (k // 2) + 2, 2 * (k % 2) : 2 * (k % 2) + 2] = latents[:, k, None, None]
        assert torch.equal(units[:, k], drawn)
    assert all(isinstance(model, c) for c in (models.CanSample, models.HasLatents, models.HasEncoder))
    drawn = model.sample(3, seed=5, start=4)
    assert isinstance(drawn, Samples)
    assert torch.equal(drawn.images[1:], model.sample(2, seed=5, start=5).images)
    with pytest.raises(InputError, match="unconditional"):
        model.sample(1, 0, labels=torch.zeros(1).long())
    with pytest.raises(InputError, match=r"latents \[N, 4\], not \[2, 3\]"):
        model(torch.zeros(2, 3))


def test_linear_discriminator(images):
    model = LinearDiscriminator(channels=2, num_classes=3)
    assert model.class_names == ("class 0", "class 1", "class 2")
    for k in range(3):
        torch.testing.assert_close(gradient(model, images, k), model.weights[k].expand_as(images))
        expected = (images * model.weights[k]).sum((1, 2, 3)) + k / 10
        torch.testing.assert_close(model(images)[:, k], expected)
    assert model.weights[0].abs().max() > 0.01
    assert model.features(images).shape == (4, 16)
    torch.testing.assert_close(model.features(images)[:, 5], images[:, :, 4:8, 4:8].mean((1, 2, 3)))
    assert isinstance(model, models.HasFeatures)


def test_quadratic_discriminator(images):
    model = QuadraticDiscriminator(channels=2)
    w, a = model.linear.detach(), model.curvature.detach()
    torch.testing.assert_close(gradient(model, images), w + a * images)
    base = torch.full_like(images, -0.5)
    integrated = (images - base) * (w + a * (images + base) / 2)
    torch.testing.assert_close(integrated.sum((1, 2, 3)), (model(images) - model(base))[:, 0], atol=1e-4, rtol=1e-4)
    steps = 64
    points = [(i + 0.5) / steps for i in range(steps)]
    slow = sum(gradient(model, base + p * (images - base)) for p in points) / steps * (images - base)
    torch.testing.assert_close(slow, integrated, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_patch_discriminator(images, sign):
    model = PatchDiscriminator(channels=2, patch=(2, 5, 6), sign=sign)
    expected = torch.zeros(16, 16)
    expected[2:8, 5:11] = sign / 2
    torch.testing.assert_close(gradient(model, images), expected.expand_as(images))
    logits = sign * images[:, :, 2:8, 5:11].mean(1).sum((1, 2))
    torch.testing.assert_close(model(images)[:, 0], logits, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="does not lie within"):
        PatchDiscriminator(patch=(12, 0, 6))


def test_constant_discriminator(images):
    model = ConstantDiscriminator(channels=2)
    assert torch.equal(model(images), torch.ones(4, 1))
    assert not gradient(model, images).any()


def test_planted_images_are_bright_in_the_patch_alone():
    found = planted_images(7)
    inside = PatchDiscriminator().inside
    assert float(found[:, 0, inside].min()) > 0.4
    assert float(found[:, 0, ~inside].abs().max()) <= 0.06
    assert torch.equal(found[2], planted_images(3)[2])


def test_patch_dataset():
    data = PatchDataset(8, channels=2)
    samples = data[:]
    assert samples.labels.tolist() == [1, 0] * 4
    patch = samples.masks[0, 0]
    assert torch.equal(patch, PatchDiscriminator().inside)
    means = samples.images[:, :, patch].mean((1, 2))
    assert ((means > 0) == samples.labels.bool()).all()
    with pytest.raises(ValueError, match="size 8"):
        PatchDataset(size=8)
