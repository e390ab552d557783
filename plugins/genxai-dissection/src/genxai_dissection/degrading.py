"""Makes images worse, as a generator's are: for a segmenter that learns from clean images and sees generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Samples, draws


def degrade(samples: Samples, seed: int, rows: Sequence[int], strength: float = 1.0) -> Samples:
    """Change contrast, colours, sharpness and noise of images. What is done to one depends on ``(seed, row)`` only.

    With the range brought to (-1, 1) and u's drawn anew, for each image and where named for each of its channels:

    - contrast and brightness, per channel: x ← (1 + 0.3 u₁) x + 0.2 u₂, the u's uniform on (-1, 1);
    - blur: x ← (1 − w) x + w · b(b(x)), w uniform on (0, 1), b a 3×3 binomial filter;
    - noise: x ← x + 0.12 (u₃ n + u₄ m), the u's uniform on (0, 1), n white Gaussian noise, and m noise that is smooth
      over 4 pixels.

    Parameters
    ----------
    samples
        Images in their value range; what else is known of them stays.
    seed
        Together with the row it decides every number.
    rows
        One number per image.
    strength
        0 changes nothing; 1 as above; in between, every change is that much smaller.

    Returns
    -------
    Samples
        Images in the same range, clipped to it.
    """
    if strength == 0:
        return samples
    images = samples.rescale((-1.0, 1.0)).images
    channels, height, width = samples.image_shape

    def drawn(what: str, *shape: int) -> Tensor:
        return draws.uniform(seed, rows, shape, stream=f"degrade {what}").to(images)

    def noise(what: str, *size: int) -> Tensor:
        return draws.normal(seed, rows, (channels, *size), stream=f"degrade {what}").to(images)

    gain, offset = 2 * drawn("gain", channels, 1, 1) - 1, 2 * drawn("offset", channels, 1, 1) - 1
    images = (1 + 0.3 * strength * gain) * images + 0.2 * strength * offset
    weight = strength * drawn("blur", 1, 1, 1)
    images = (1 - weight) * images + weight * _blur(_blur(images))
    coarse = noise("coarse", (height + 3) // 4 + 1, (width + 3) // 4 + 1)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    white = drawn("white share", 1, 1, 1) * noise("white", height, width)
    images = images + 0.12 * strength * (white + drawn("smooth share", 1, 1, 1) * smooth)
    return replace(samples, images=images.clamp(-1, 1), value_range=(-1.0, 1.0)).rescale(samples.value_range)


def _blur(images: Tensor) -> Tensor:
    """Filter every channel with (1, 2, 1)ᵀ(1, 2, 1) / 16; beyond the edge an image goes on as at the edge."""
    line = torch.tensor([0.25, 0.5, 0.25]).to(images)
    kernel = torch.outer(line, line).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])
