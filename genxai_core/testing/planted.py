"""A discriminator of two logits with a patch each, in colour images that need not be square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..draws import normal
from ..models import Discriminator
from ..samples import Samples

CELLS = ((1, 2), (2, 1))
"""Row and column of each logit's patch in a 4×4 grid: inside, off the diagonal, one where the other's mirror is."""

COLOURS = ((2.0, 1.0, 0.0), (0.0, 1.0, 2.0))
"""What each logit multiplies red, green and blue with: no channel alone tells its sign."""

PAINTS = ((0.9, -0.6, 0.3), (0.3, -0.6, 0.9))
"""The patches' colours: each speaks for its own logit (by 1.2) in sum, against it in green, and not of the other."""


class TwoPatches(Discriminator):
    """Images ``[N, 3, H, W]`` to logits ``[N, 2]``: f_k(x) = Σ_(patch k) v_k · x, with v_k of `COLOURS`.

    As in `PatchDiscriminator`, a convolution and rectifiers split each v_k · x into for and against, so that there is a
    layer of maps; ∂f_k/∂x is v_k inside patch k and 0 outside.

    Parameters
    ----------
    height, width
        Of the images, multiples of 16: cells have whole fours of pixels.
    """

    value_range = (-1.0, 1.0)
    class_names = ("first", "second")

    def __init__(self, height: int = 32, width: int = 16) -> None:
        super().__init__()
        self.image_shape = (3, height, width)
        self.inside = torch.zeros(2, height, width, dtype=torch.bool)
        for k, (row, column) in enumerate(CELLS):
            rows, columns = (slice(at * n // 4, (at + 1) * n // 4) for at, n in ((row, height), (column, width)))
            self.inside[k, rows, columns] = True
        self.detect = nn.Conv2d(3, 4, 1)
        self.rectify = nn.ReLU()
        self.head = nn.Linear(4 * height * width, 2)
        planes = torch.zeros(2, 4, height, width)
        with torch.no_grad():
            for k, colour in enumerate(torch.tensor(COLOURS)):
                self.detect.weight[2 * k, :, 0, 0], self.detect.weight[2 * k + 1, :, 0, 0] = colour, -colour
                planes[k, 2 * k], planes[k, 2 * k + 1] = 1.0 * self.inside[k], -1.0 * self.inside[k]
            self.head.weight.copy_(planes.flatten(1))
            for layer in (self.detect, self.head):
                assert layer.bias is not None
                layer.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 2]``."""
        logits: Tensor = self.head(self.rectify(self.detect(images)).flatten(1))
        return logits

    def images(self, n: int = 5, seed: int = 0) -> Samples:
        """Return ``[n, 3, H, W]``: faint noise, both patches in their colours, more or less so; mask k is patch k."""
        images = 0.02 * normal(seed, range(n), (3, *self.inside.shape[1:]), "two patches").clamp(-3, 3)
        for i in range(n):
            for inside, paint in zip(self.inside, torch.tensor(PAINTS)):
                images[i] += (1 - 0.1 * (i % 5)) * paint[:, None, None] * inside
        masks = self.inside.expand(n, *self.inside.shape).clone()
        return Samples(images.clamp(-1, 1), masks=masks, value_range=self.value_range, concepts=self.class_names)
