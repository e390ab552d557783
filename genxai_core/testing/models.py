"""Tiny models with closed-form answers, to hold explainers, metrics and trainers against. None has 10,000 parameters.

They are registered, as ``generator/tiny-linear`` and so on, while a conformance class or the fixture
`isolated_registry` is at work, and nowhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..draws import normal
from ..errors import InputError
from ..models import Discriminator, Generator
from ..samples import Samples

PATCH = (8, 4, 4)
"""Row, column and side of the patch that `PatchDiscriminator` looks at, off the diagonals."""


class LinearGenerator(Generator):
    """Latents ``[N, 4]`` to images ``[N, C, size, size]``: x = W z + b, with z_k painting quadrant k.

    W has the columns 0.2 · (indicator of quadrant k), quadrants in reading order, and b is 0.05 everywhere, so that
    ∂x/∂z_k is known at every pixel, and z = Wᵀ(x − b) / ‖W_k‖² exactly. ``layers`` is a layer of 4 units at 4×4, of
    which unit k draws quadrant k and nothing else. Latents are standard normal, cut at ±4, so images lie in
    [-0.75, 0.85].

    Parameters
    ----------
    size
        Height and width of the images, a multiple of 4.
    channels
        Channels, all alike.
    """

    value_range = (-1.0, 1.0)
    latent_shape = (4,)
    gain, offset = 0.2, 0.05

    def __init__(self, size: int = 16, channels: int = 1) -> None:
        if size % 4 or size < 4 or channels < 1:
            raise ValueError(f"size {size} must be a multiple of 4, and channels {channels} at least 1")
        super().__init__()
        self.image_shape = (channels, size, size)
        self.layers = nn.ConvTranspose2d(4, 4, 4, bias=False)
        self.enlarge = nn.Upsample(scale_factor=size // 4, mode="nearest")
        self.to_image = nn.Conv2d(4, channels, 1)
        with torch.no_grad():
            self.layers.weight.zero_()
            for k in range(4):
                self.layers.weight[k, k, 2 * (k // 2) :, 2 * (k % 2) :][:2, :2] = 1.0
            self.to_image.weight.fill_(self.gain)
            assert self.to_image.bias is not None
            self.to_image.bias.fill_(self.offset)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images for latents ``[N, 4]``.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        if latents.shape[1:] != self.latent_shape:
            raise InputError(f"generator/tiny-linear takes latents [N, 4], not {list(latents.shape)}")
        images: Tensor = self.to_image(self.enlarge(self.layers(latents[:, :, None, None])))
        return images

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents ``[N, 4]`` that images come from, in closed form (for the weights that it starts with)."""
        return (F.adaptive_avg_pool2d(images, 2).mean(1).flatten(1) - self.offset) / self.gain

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw ``[n, 4]``; latent i depends on ``(seed, start + i)`` only."""
        return normal(seed, range(start, start + n), self.latent_shape).clamp(-4, 4).to(self.layers.weight.device)

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images with their latents.

        Raises
        ------
        InputError
            If labels are given: it is unconditional.
        """
        if labels is not None:
            raise InputError("generator/tiny-linear is unconditional; leave labels out")
        latents = self.sample_latents(n, seed, start)
        return Samples(self(latents), latents, value_range=self.value_range)


class _Judge(Discriminator):
    """What the tiny discriminators share: shape, class names, and features ``[N, 16]``, the means of 4×4 blocks."""

    value_range = (-1.0, 1.0)

    def __init__(self, size: int, channels: int, num_classes: int = 1) -> None:
        if size % 4 or size < 4 or channels < 1 or num_classes < 1:
            raise ValueError(
                f"size {size} must be a multiple of 4; channels {channels} and num_classes {num_classes} at least 1"
            )
        super().__init__()
        self.image_shape = (channels, size, size)
        self.class_names = ("real",) if num_classes == 1 else tuple(f"class {k}" for k in range(num_classes))

    def features(self, images: Tensor) -> Tensor:
        """Return ``[N, 16]``: the mean of each cell of a 4×4 grid."""
        return F.adaptive_avg_pool2d(images, 4).mean(1).flatten(1)


class LinearDiscriminator(_Judge):
    """Images ``[N, C, size, size]`` to logits ``[N, K]``: f_k(x) = w_k · x + b_k.

    The gradient of logit k is ``w_k`` at any image, and w_k · (x − x₀) is every complete attribution. w_k is
    cos(2π (k + 1)(row + column) / size) / size, b_k is k / 10.

    Parameters
    ----------
    size
        Height and width of the images, a multiple of 4.
    channels
        Channels, all with the same weights.
    num_classes
        K.
    """

    def __init__(self, size: int = 16, channels: int = 1, num_classes: int = 1) -> None:
        super().__init__(size, channels, num_classes)
        self.head = nn.Linear(channels * size * size, num_classes)
        at = torch.arange(size, dtype=torch.float32)
        phase = 2 * torch.pi * (at[:, None] + at) / size
        with torch.no_grad():
            for k in range(num_classes):
                self.head.weight[k] = (torch.cos((k + 1) * phase) / size).repeat(channels, 1, 1).flatten()
            self.head.bias.copy_(torch.arange(num_classes) / 10)

    @property
    def weights(self) -> Tensor:
        """The gradients ``[K, C, size, size]``."""
        return self.head.weight.detach().view(-1, *(self.image_shape or ()))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, K]``."""
        logits: Tensor = self.head(images.flatten(1))
        return logits


class QuadraticDiscriminator(_Judge):
    """Images ``[N, C, size, size]`` to one logit ``[N, 1]``: f(x) = w · x + ½ Σ a x² + b.

    Its gradient is w + a ⊙ x; its integrated gradients from x₀ are (x − x₀) ⊙ (w + a ⊙ (x + x₀) / 2), which sum to
    f(x) − f(x₀). w is that of `LinearDiscriminator`, a is 1/8 in the left half and −1/8 in the right one, b is 0.

    Parameters
    ----------
    size
        Height and width of the images, a multiple of 4.
    channels
        Channels.
    """

    def __init__(self, size: int = 16, channels: int = 1) -> None:
        super().__init__(size, channels)
        self.linear = nn.Parameter(LinearDiscriminator(size, channels).weights[0].clone())
        curvature = torch.full((channels, size, size), 1 / 8)
        curvature[..., size // 2 :] = -1 / 8
        self.curvature = nn.Parameter(curvature)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        terms = images * self.linear + 0.5 * self.curvature * images.square()
        return terms.flatten(1).sum(1, keepdim=True) + self.bias


class PatchDiscriminator(_Judge):
    """Images ``[N, C, size, size]`` to one logit ``[N, 1]``: the signed sum of the pixels of one patch, over channels.

    f(x) = sign · Σ_patch mean_C(x). The convolution ``detect`` splits it into brightness and darkness, each rectified,
    and ``head`` subtracts the second from the first inside the patch: linear in the pixels, yet with a layer of maps
    for methods that look at one. The gradient is sign / C inside the patch and 0 outside.

    Parameters
    ----------
    size
        Height and width of the images, a multiple of 4.
    channels
        Channels.
    patch
        Row, column and side.
    sign
        1, or -1 for a patch that speaks against.
    """

    def __init__(
        self, size: int = 16, channels: int = 1, patch: tuple[int, int, int] = PATCH, sign: float = 1.0
    ) -> None:
        row, column, side = patch
        if min(row, column) < 0 or side < 1 or max(row, column) + side > size:
            raise ValueError(f"patch {patch} (row, column, side) does not lie within {size} px")
        super().__init__(size, channels)
        self.inside = torch.zeros(size, size, dtype=torch.bool)
        self.inside[row : row + side, column : column + side] = True
        self.detect = nn.Conv2d(channels, 2, 1)
        self.rectify = nn.ReLU()
        self.head = nn.Linear(2 * size * size, 1)
        with torch.no_grad():
            self.detect.weight[0], self.detect.weight[1] = 1 / channels, -1 / channels
            self.head.weight.copy_(torch.stack([self.inside, -1.0 * self.inside]).flatten()[None] * sign)
            for layer in (self.detect, self.head):
                assert layer.bias is not None
                layer.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        logits: Tensor = self.head(self.rectify(self.detect(images)).flatten(1))
        return logits


class ConstantDiscriminator(PatchDiscriminator):
    """Images ``[N, C, size, size]`` to the logit 1 ``[N, 1]``, whatever the image: a right map of it is zero.

    Parameters
    ----------
    size
        Height and width of the images, a multiple of 4.
    channels
        Channels.
    """

    def __init__(self, size: int = 16, channels: int = 1) -> None:
        super().__init__(size, channels, (0, 0, 1))
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.fill_(1.0)


def planted_images(n: int = 5, size: int = 16, channels: int = 1, seed: int = 0) -> Tensor:
    """Return ``[n, channels, size, size]`` in (-1, 1): faint noise, bright in `PATCH`, more or less so by image."""
    row, column, side = PATCH
    images = 0.02 * normal(seed, range(n), (channels, size, size), "planted").clamp(-3, 3)
    for i in range(n):
        images[i, :, row : row + side, column : column + side] += 0.9 - 0.1 * (i % 5)
    return images.clamp(-1, 1)
