"""Reference inputs: the images against which a path method explains."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

Baseline = Literal["low", "mid", "mean", "blur"]


def baseline_of(images: Tensor, kind: Baseline, value_range: tuple[float, float]) -> Tensor:
    """Return one reference per image, made from that image alone.

    Parameters
    ----------
    images
        ``[N, C, H, W]`` in ``value_range``.
    kind
        ``low``: the smallest pixel value, black. ``mid``: the centre of the range, grey; that is the value 0 in
        (-1, 1), but 0.5 in (0, 1). ``mean``: each image's own mean colour. ``blur``: the image under a Gaussian blur
        with σ an eighth of its longer side (Sturmfels, Lundberg, Lee, "Visualizing the Impact of Feature Attribution
        Baselines", Distill 2020).
    value_range
        Smallest and largest pixel value.

    Returns
    -------
    Tensor
        ``[N, C, H, W]``.
    """
    low, high = value_range
    images = images.detach()
    if kind == "low":
        return images.new_full(images.shape, low)
    if kind == "mid":
        return images.new_full(images.shape, (low + high) / 2)
    if kind == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images).contiguous()
    return _blurred(images)


def _blurred(images: Tensor) -> Tensor:
    sides = (images.shape[3], images.shape[2])  # the library wants width before height
    sigma = max(sides) / 8
    # three σ on each side hold 99.7 % of the kernel; reflection at the border needs less than the side
    kernel = [2 * min(int(3 * sigma), side - 1) + 1 for side in sides]
    blurred: Tensor = gaussian_blur(images, kernel_size=kernel, sigma=[sigma, sigma])
    return blurred
