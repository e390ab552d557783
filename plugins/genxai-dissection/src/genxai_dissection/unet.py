"""A small U-Net that says where concepts are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Samples, Segmenter
from genxai_core.errors import InputError


class UNet(nn.Module, Segmenter):
    """Images ``[N, channels, H, W]`` to masks ``[N, concepts, H, W]``: where a concept's logit is above zero.

    A U-Net (Ronneberger et al., MICCAI 2015): pairs of 3×3 convolutions, each followed by group normalisation (Wu and
    He, ECCV 2018; 8 groups) and ReLU, at full size and at ``depth`` halvings, then up again beside what was seen on the
    way down. Every concept has a logit of its own, so concepts may overlap, and a pixel may show none of them. There
    are no batch statistics: the masks of an image depend on that image only. The network follows the images to their
    device.

    Parameters
    ----------
    concepts
        Names of the concepts, all different.
    channels
        1 for gray, 3 for colour.
    width
        Units at full size, a multiple of 8; each halving has twice as many, up to four times.
    depth
        Number of halvings, at least 1.
    value_range
        Smallest and largest pixel value that the network sees; samples in another range are brought to it.
    sizes
        Smallest and largest size, in pixels, at which the network was trained. An image whose shorter side lies outside
        is resized to the nearer one, and its logits are resized back. None takes every image as it is.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If a number is out of these bounds, or the concepts are none or not all different.
    """

    pretrained_folder = Path(__file__).parent / "pretrained" / "unet"

    def __init__(
        self,
        concepts: tuple[str, ...],
        channels: int = 3,
        width: int = 16,
        depth: int = 3,
        value_range: tuple[float, float] = (-1.0, 1.0),
        sizes: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if not concepts or len(set(concepts)) < len(concepts) or not all(concepts):
            raise ValueError(f"concepts {list(concepts)} must be names, at least one, all different")
        if channels < 1 or depth < 1:
            raise ValueError(f"channels ({channels}) and depth ({depth}) must be at least 1")
        if width < 8 or width % 8:
            raise ValueError(f"width {width} must be a multiple of 8")
        if not value_range[0] < value_range[1]:
            raise ValueError(f"value_range {value_range} is empty; give (smallest, largest)")
        if sizes is not None and not 2**depth <= sizes[0] <= sizes[1]:
            raise ValueError(f"sizes {sizes} must be (smallest, largest), from {2**depth} px on at depth {depth}")
        self.concepts = tuple(concepts)
        self.channels, self.depth = channels, depth
        self.value_range, self.sizes = value_range, sizes
        widths = [width * min(4, 2**i) for i in range(depth + 1)]
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip([channels, *widths], widths))
        self.up = nn.ModuleList(_pair(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1]))
        self.head = nn.Conv2d(width, len(self.concepts), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, concepts, H, W]`` for images in ``value_range``, at the size that they have."""
        seen: list[Tensor] = []
        x = images
        for i, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if i else x)
            seen.append(x)
        for layer, beside in zip(self.up, seen[-2::-1]):
            enlarged = F.interpolate(x, beside.shape[2:], mode="bilinear", align_corners=False)
            x = layer(torch.cat([enlarged, beside], 1))
        logits: Tensor = self.head(x)
        return logits

    def probabilities(self, samples: Samples) -> Tensor:
        """Return the probability of each concept at each pixel, differentiably: above one half where its mask is.

        Parameters
        ----------
        samples
            Images ``[N, channels, H, W]``, in any range and size that `segment` takes.

        Returns
        -------
        Tensor
            ``[N, concepts, H, W]``, in [0, 1]; concepts may overlap.

        Raises
        ------
        InputError
            If the images have other channels, or are too small.
        """
        return self._logits(samples).sigmoid()

    def _segment(self, samples: Samples) -> Tensor:
        return self._logits(samples) > 0

    def _logits(self, samples: Samples) -> Tensor:
        channels, *size = samples.image_shape
        if channels != self.channels:
            raise InputError(f"segmenter/unet takes images of {self.channels} channels, not {channels}; convert them")
        images = samples.rescale(self.value_range).images.float()
        self.to(images.device)
        side = min(size)
        least, most = self.sizes or (2**self.depth, side)
        if self.sizes is None and side < least:
            raise InputError(f"segmenter/unet takes images from {least} px on, not {size[0]}×{size[1]}; enlarge them")
        wanted = min(max(side, least), most)
        if wanted == side:
            return self.forward(images)
        fitting = [round(s * wanted / side) for s in size]
        resized = F.interpolate(images, fitting, mode="bilinear", align_corners=False, antialias=True)
        return F.interpolate(self.forward(resized), size, mode="bilinear", align_corners=False)


def _pair(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in (inside, outside):
        layers += [nn.Conv2d(i, outside, 3, padding=1, bias=False), nn.GroupNorm(8, outside), nn.ReLU()]
    return nn.Sequential(*layers)
