"""Colours from which the concept of a pixel can be read back exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Samples, Segmenter
from genxai_core.errors import InputError

COLOURS = {
    "red": (0.9, -0.9, -0.9),
    "green": (-0.9, 0.9, -0.9),
    "blue": (-0.9, -0.9, 0.9),
    "yellow": (0.9, 0.9, -0.9),
    "magenta": (0.9, -0.9, 0.9),
    "cyan": (-0.9, 0.9, 0.9),
}
"""RGB in [-1, 1]; any two are at least 1.8 apart."""

GRAY = 0.45
"""Backgrounds stay within ± this in every channel, so at least 0.78 from every colour."""

NEAR = 0.6
"""Distance up to which a pixel shows a colour: one painted at an opacity of 0.84 or more is within 0.5 of it, whatever
lies beneath."""


class PaletteSegmenter(Segmenter):
    """The pixels that show each concept's colour, ``[N, concepts, H, W]``: those within 0.6 of it in RGB.

    Exact for pictures of the planted generators, edited or not: what an edit removes is not there any more.

    Parameters
    ----------
    concepts
        Names of colours: red, green, blue, yellow, magenta, cyan.
    """

    def __init__(self, concepts: tuple[str, ...] = tuple(COLOURS)) -> None:
        unknown = [c for c in concepts if c not in COLOURS]
        if unknown:
            raise ValueError(f"concept {unknown[0]!r} is not one of {', '.join(COLOURS)}")
        self.concepts = tuple(concepts)

    def _segment(self, samples: Samples) -> Tensor:
        if samples.image_shape[0] != 3:
            raise InputError(f"a palette segmenter reads RGB images, not {list(samples.image_shape)}")
        return shown(samples.rescale((-1.0, 1.0)).images, self.concepts)


def shown(images: Tensor, concepts: tuple[str, ...]) -> Tensor:
    """Return which pixels show which colours: bool ``[N, concepts, H, W]`` for images ``[N, 3, H, W]`` in [-1, 1]."""
    palette = torch.tensor([COLOURS[c] for c in concepts], dtype=images.dtype, device=images.device)
    apart = (images[:, None] - palette[:, :, None, None]).square().sum(2)
    return apart < NEAR**2
