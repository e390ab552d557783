"""FullGrad: completeness, the literal formula, pytorch-grad-cam's terms."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from genxai_attribution.full import FullGrad, _shared
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import genxai_core as gx


class Net(gx.Discriminator):
    """Convolutions with biases, batch normalisation, one activation object twice, in place, pooling, a linear head."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 6, 4, 1, 2)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.act, self.pool, self.head = nn.LeakyReLU(0.2, inplace=True), nn.MaxPool2d(3, 2), nn.Linear(96, 1)
        for p in self.parameters():
            p.data = torch.randn(p.shape) * 0.3
        if norm:
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, images):
        hidden = self.act(self.norm(self.one(images)))
        return self.head(self.pool(self.act(self.two(hidden))).flatten(1))


@pytest.mark.parametrize("norm", [False, True])
def test_the_map_and_the_biases_without_position_are_the_logit(images, norm):
    model = Net(norm).eval()
    result = FullGrad().explain(model, images)
    missing = float(model.head.bias.detach())
    torch.testing.assert_close(result.maps.flatten(1).sum(1) + missing, result.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.delta, torch.full((5,), -missing), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.logits, model(images)[:, 0].detach())


def test_it_is_the_gradient_by_a_bias_at_each_position(images):
    """A bias is added as a map of its own at every position: the gradient by it is what the formula means."""
    model = Net().eval()
    one = model.one.bias.detach()[:, None, None].expand(4, 8, 8).clone().requires_grad_()
    two = model.two.bias.detach()[:, None, None].expand(6, 9, 9).clone().requires_grad_()
    for image, ours in zip(images, FullGrad().explain(model, images).maps):
        leaf = image[None].clone().requires_grad_()
        act = nn.LeakyReLU(0.2)
        hidden = act(nn.functional.conv2d(leaf, model.one.weight, None, 2, 1) + one)
        hidden = act(nn.functional.conv2d(hidden, model.two.weight, None, 1, 2) + two)
        score = model.head(model.pool(hidden).flatten(1)).sum()
        by_image, by_one, by_two = torch.autograd.grad(score, [leaf, one, two])
        literal = (image * by_image[0]).sum(0)
        for bias, gradient in ((one, by_one), (two, by_two)):
            term = (bias * gradient).sum(0).detach()
            for y in range(16):
                for x in range(16):
                    v, u = y * len(term) // 16, x * len(term) // 16
                    rows = sum(k * len(term) // 16 == v for k in range(16))
                    columns = sum(k * len(term) // 16 == u for k in range(16))
                    literal[y, x] += term[v, u] / (rows * columns)
        torch.testing.assert_close(ours, literal.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (16, 16), (5, 7), (17, 20), (1, 3)])
def test_sharing_keeps_the_sum(images, height, width):
    terms = torch.randn(5, height, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_shared(terms, images).sum((1, 2)), terms.sum((1, 2)), atol=1e-4, rtol=1e-4)


def test_the_gradients_are_those_that_the_library_multiplies_by_biases(make_dcgan, images, monkeypatch):
    """The library hides its terms by taking magnitudes and scaling; with both taken out they add up to ours."""
    torch.manual_seed(3)

    class Whole(gx.Discriminator):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 1, 3, 1, 1), nn.Flatten())

        def forward(self, pixels):
            return self.net(pixels).mean(1, keepdim=True)

    model = Whole().eval()
    module = pytorch_grad_cam.fullgrad_cam
    monkeypatch.setattr(module, "scale_accross_batch_and_channels", lambda tensor, size: tensor)
    monkeypatch.setattr(module, "scale_cam_image", lambda image: image)
    monkeypatch.setattr(module.np, "abs", lambda array: array)
    with pytorch_grad_cam.FullGrad(model, []) as library:
        theirs = np.asarray(library(images, [ClassifierOutputTarget(0)] * 5))
    np.testing.assert_allclose(FullGrad().explain(model, images).maps, theirs.reshape(5, 16, 16), atol=1e-6)
