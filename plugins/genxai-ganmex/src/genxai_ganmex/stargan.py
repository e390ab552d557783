"""StarGAN's generator, small: an image and a class to an image of that class, changed where a mask says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Generator
from genxai_core.errors import InputError

GROUPS = 8


def halvings(size: int) -> int:
    """Return how often an image of this size is halved: once, then while it is even and larger than 8.

    Raises
    ------
    ValueError
        If the size is odd, or below 8.
    """
    if size < 8 or size % 2:
        raise ValueError(f"size {size} must be even and at least 8; resize the data")
    count, side = 1, size // 2
    while side > 8 and side % 2 == 0:
        count, side = count + 1, side // 2
    return count


def checked_sizes(channels: int, width: int) -> None:
    """Refuse what group normalisation, or an image, cannot have.

    Raises
    ------
    ValueError
        If there is no channel, or the width is no multiple of 8.
    """
    if channels < 1 or width < GROUPS or width % GROUPS:
        raise ValueError(f"channels ({channels}) must be at least 1, and width ({width}) a multiple of {GROUPS}")


def widths(size: int, width: int) -> list[int]:
    """Return the channels at size, size/2, …: doubling, but not beyond four times the first."""
    return [width * min(4, 2**i) for i in range(halvings(size) + 1)]


class ClassNorm(nn.Module):
    """Group normalisation whose scale and shift are a class's: y = (1 + s_t) ⊙ GN(x) + b_t.

    Conditional instance normalisation (Dumoulin, Shlens, Kudlur, "A Learned Representation for Artistic Style", ICLR
    2017) over groups of channels, which also works where maps are a few pixels large. s and b start at 0.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, affine=False)
        self.affine = nn.Embedding(num_classes, 2 * channels)
        nn.init.zeros_(self.affine.weight)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return ``[N, C, H, W]`` for classes ``[N]``."""
        scale, shift = self.affine(target)[..., None, None].chunk(2, 1)
        normed: Tensor = self.norm(x)
        shifted: Tensor = normed * (1 + scale) + shift
        return shifted


class Block(nn.Module):
    """A convolution 3×3, class norm, and ReLU."""

    def __init__(self, inside: int, outside: int, num_classes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.norm = ClassNorm(outside, num_classes)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return ``[N, outside, H/stride, W/stride]``."""
        normed: Tensor = self.norm(self.conv(x), target)
        return F.relu(normed)


class Residual(nn.Module):
    """Two convolutions whose result is added to what came in."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.first = Block(channels, channels, num_classes)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = ClassNorm(channels, num_classes)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return ``[N, channels, H, W]``."""
        changed: Tensor = self.norm(self.conv(self.first(x, target)), target)
        return x + changed


class StarGAN(Generator):
    """Images ``[N, C, size, size]`` in (-1, 1) and classes ``[N]`` to images of those classes, of the same shape.

    Choi et al., "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation", CVPR
    2018: convolutions halve the image, residual blocks work on what is left, and it is enlarged again. Three things are
    ours, since images are small and changes should be. The class enters as planes beside the image, as there, and by
    every `ClassNorm`. What was halved is handed across to where the same size comes again. And the output is

        G(x, t) = x + m ⊙ (c − x),   m in (0, 1) ``[N, 1, H, W]``,   c in (-1, 1) ``[N, C, H, W]``,

    so that it stays in range, and leaving a pixel alone takes no more than m = 0 (an attention mask as in Pumarola et
    al., "GANimation", ECCV 2018). No statistics of the batch: an image depends on itself and its class only.

    Several targets of one image are rows of one batch: ``g.translate(images.repeat_interleave(K, 0),
    torch.arange(K).repeat(len(images)))`` makes ``[N·K, C, size, size]`` in one pass.

    Parameters
    ----------
    size
        Height and width of the images: even, at least 8.
    channels
        1 for gray, 3 for colour.
    num_classes
        Number of classes, at least 2.
    width
        Units of the layers at full size, a multiple of 8; twice as many at each half, up to four times.
    blocks
        Residual blocks where the image is smallest.
    class_names
        What the classes are called; empty where they have no names.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If a number is out of these bounds, or there is not one name per class.
    """

    value_range = (-1.0, 1.0)
    pretrained_folder: ClassVar[Path] = Path(__file__).parent / "pretrained" / "stargan"
    pretrained_free: ClassVar[tuple[str, ...]] = ("class_names",)

    def __init__(
        self,
        size: int,
        channels: int = 1,
        num_classes: int = 10,
        width: int = 32,
        blocks: int = 3,
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        checked_sizes(channels, width)
        if num_classes < 2 or blocks < 0:
            raise ValueError(f"num_classes ({num_classes}) must be at least 2, and blocks ({blocks}) not negative")
        if class_names and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class_names for {num_classes} classes; give one per class, or none")
        units = widths(size, width)
        self.image_shape = (channels, size, size)
        self.num_classes, self.class_names = num_classes, tuple(class_names)
        self.enter = Block(channels + num_classes, units[0], num_classes)
        pairs = list(pairwise(units))
        self.down = nn.ModuleList(Block(a, b, num_classes, stride=2) for a, b in pairs)
        self.middle = nn.ModuleList(Residual(units[-1], num_classes) for _ in range(blocks))
        self.up = nn.ModuleList(Block(b + a, a, num_classes) for a, b in reversed(pairs))
        self.to_image = nn.Conv2d(units[0], channels + 1, 3, padding=1)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Return images of the target classes ``[N]``, differentiably.

        Raises
        ------
        InputError
            If images or classes have another shape, or a class is out of range.
        """
        changed, mask = self.change(images, target)
        return images + mask * (changed - images)

    def translate(self, images: Tensor, target: Tensor | int) -> Tensor:
        """Return images ``[N, C, size, size]`` of the target classes ``[N]``; one integer stands for all.

        Raises
        ------
        InputError
            If images or classes have another shape, or a class is out of range.
        """
        if isinstance(target, int):
            target = torch.full((len(images),), target, dtype=torch.long, device=images.device)
        made: Tensor = self(images, target)
        return made

    def change(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is painted ``[N, C, size, size]`` in (-1, 1), and where ``[N, 1, size, size]`` in (0, 1)."""
        target = self._checked(images, target)
        planes = F.one_hot(target, self.num_classes).to(images)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        x = self.enter(torch.cat([images, planes], 1), target)
        across = []
        for block in self.down:
            across.append(x)
            x = block(x, target)
        for block in self.middle:
            x = block(x, target)
        for block in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, across.pop()], 1), target)
        drawn: Tensor = self.to_image(x)
        return torch.tanh(drawn[:, :-1]), torch.sigmoid(drawn[:, -1:])

    def _checked(self, images: Tensor, target: Tensor) -> Tensor:
        who, n = "generator/stargan", len(images)
        if tuple(images.shape[1:]) != self.image_shape:
            raise InputError(f"{who} takes images {['N', *self.image_shape]}, not {list(images.shape)}; resize them")
        if target.shape != (n,) or target.is_floating_point() or target.dtype == torch.bool:
            raise InputError(
                f"{who} takes integer classes [{n}], one per image, not {target.dtype} {list(target.shape)}"
            )
        if n and not 0 <= int(target.min()) <= int(target.max()) < self.num_classes:
            raise InputError(f"{who}: class {_wrong(target, self.num_classes)} is none of 0…{self.num_classes - 1}")
        return target.to(images.device).long()


def _wrong(target: Tensor, num_classes: int) -> int:
    return int(target[(target < 0) | (target >= num_classes)][0])
