"""What a pixel is replaced by when it is taken away."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

Baseline = Literal["zero", "low", "mid", "mean", "blur"]
"""``zero``: pixel value 0. ``low``: the smallest pixel value. ``mid``: the centre of the value range. ``mean``: the
image's own mean colour. ``blur``: the image under a Gaussian blur with σ an eighth of its longer side."""


def baseline_of(images: Tensor, kind: Baseline, value_range: tuple[float, float]) -> Tensor:
    """Return one reference ``[N, C, H, W]`` per image ``[N, C, H, W]``."""
    low, high = value_range
    constant = {"zero": 0.0, "low": low, "mid": (low + high) / 2}
    if kind in constant:
        return torch.full_like(images, constant[kind])
    if kind == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    sides = (images.shape[3], images.shape[2])  # the library wants width before height
    sigma = max(sides) / 8
    # three σ on each side hold 99.7 % of the kernel; reflection at the border needs less than the side
    kernel = [2 * min(int(3 * sigma), side - 1) + 1 for side in sides]
    blurred: Tensor = gaussian_blur(images, kernel_size=kernel, sigma=[sigma, sigma])
    return blurred
