"""Images together with what is known of them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

Index = int | slice | Sequence[int]

PER_SAMPLE = ("images", "latents", "labels", "masks", "factors", "captions")
MEANINGS = {"labels": "class_names", "masks": "concepts", "factors": "factor_names"}


@dataclass(frozen=True, eq=False)
class Samples:
    """N images and, where known, their latents, labels, masks, factors and captions.

    Parameters
    ----------
    images
        ``[N, C, H, W]``, floating point, in ``value_range``.
    latents
        ``[N, …]``, what a generator made them from.
    labels
        ``[N]`` integers, indices into ``class_names``.
    masks
        ``[N, K, H, W]`` bool, one plane per concept; concepts may overlap.
    factors
        ``[N, F]`` floats, the factors of variation.
    captions
        N texts.
    value_range
        Smallest and largest value that a pixel may have.
    class_names, concepts, factor_names
        What the labels, mask planes and factor columns mean.

    Raises
    ------
    InputError
        If a type, a shape or a length does not fit.
    """

    images: Tensor
    latents: Tensor | None = None
    labels: Tensor | None = None
    masks: Tensor | None = None
    factors: Tensor | None = None
    captions: tuple[str, ...] | None = None
    _: KW_ONLY
    value_range: tuple[float, float]
    class_names: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    factor_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        import torch

        for name in ("images", *PER_SAMPLE[1:-1]):
            value = getattr(self, name)
            if not isinstance(value, torch.Tensor) and (value is not None or name == "images"):
                raise InputError(f"{name} must be a torch.Tensor, not {type(value).__name__}; convert them")
        images = self.images
        if images.ndim != 4 or not images.is_floating_point():
            raise InputError(
                f"images must be floating point [N, C, H, W], not {images.dtype} {list(images.shape)}; "
                f"add the missing axis or convert them"
            )
        low, high = map(float, self.value_range)
        if not low < high:
            raise InputError(f"value_range {self.value_range} is empty; give (smallest, largest), such as (-1.0, 1.0)")
        object.__setattr__(self, "value_range", (low, high))  # a list, as files have it, would equal no model's range
        for name in ("captions", *MEANINGS.values()):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in PER_SAMPLE[1:]:
            value = getattr(self, name)
            if value is not None and len(value) != len(images):
                raise InputError(f"{name} has {len(value)} rows for {len(images)} images; give one row per image")
        if self.labels is not None and (self.labels.ndim != 1 or self.labels.is_floating_point()):
            raise InputError(
                f"labels must be integers [N], not {self.labels.dtype} {list(self.labels.shape)}; "
                f"give each image's index into class_names"
            )
        if self.masks is not None and (self.masks.dtype != torch.bool or self.masks.shape[2:] != images.shape[2:]):
            raise InputError(
                f"masks {self.masks.dtype} {list(self.masks.shape)} do not fit images {list(images.shape)}: "
                f"give bool [N, concepts, H, W] at the images' size"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __getitem__(self, index: Index) -> Samples:
        """Select samples. An integer gives Samples of length one, so that the result is always Samples."""
        import torch

        rows = indices(index, len(self))
        at = torch.as_tensor(rows, dtype=torch.long)
        chosen: dict[str, Any] = {}
        for name in PER_SAMPLE:
            value = getattr(self, name)
            if value is None:
                continue
            chosen[name] = (
                tuple(value[i] for i in rows) if name == "captions" else value.index_select(0, at.to(value.device))
            )
        return replace(self, **chosen)

    def __iter__(self) -> Iterator[Samples]:
        """Go through the samples, each as Samples of length one."""
        return (self[row] for row in range(len(self)))

    @classmethod
    def concat(cls, parts: Sequence[Samples]) -> Samples:
        """Join samples end to end. What only some of them know is dropped.

        Raises
        ------
        InputError
            If there are none, or their value ranges, image shapes, or the meanings of what is joined differ.
        """
        import torch

        if not parts:
            raise InputError("there are no samples to join")
        first = parts[0]
        for part in parts[1:]:
            if part.value_range != first.value_range or part.image_shape != first.image_shape:
                raise InputError(
                    f"samples of {first.image_shape} in {first.value_range} and of {part.image_shape} in "
                    f"{part.value_range} cannot be joined; bring them to one size and range"
                )
        joined: dict[str, Any] = {}
        for name in PER_SAMPLE:
            values = [getattr(part, name) for part in parts]
            if any(v is None for v in values):
                joined[name] = None
            elif name == "captions":
                joined[name] = tuple(text for value in values for text in value)
            else:
                _agree(parts, name)
                joined[name] = torch.cat(values)
        return replace(first, **joined)

    def to(self, device: Any) -> Samples:
        """Move every tensor to a device."""
        moved = {n: v.to(device) for n in PER_SAMPLE if n != "captions" and (v := getattr(self, n)) is not None}
        return replace(self, **moved)

    def rescale(self, value_range: tuple[float, float]) -> Samples:
        """Map the images linearly from their range to another."""
        (a, b), (c, d) = self.value_range, value_range
        return replace(self, images=(self.images - a) * ((d - c) / (b - a)) + c, value_range=value_range)

    def plot(self, n: int = 64, title: str = "") -> Figure:
        """Draw the first n images in a grid."""
        from .plots import image_grid

        names = None
        if self.labels is not None and self.class_names:
            known = dict(enumerate(self.class_names))
            names = [known.get(int(i), str(int(i))) for i in self.labels[:n]]
        return image_grid(self.images[:n], self.value_range, labels=names, title=title)

    def _repr_html_(self) -> str:
        from .plots import html

        return html(self.plot(), f"{len(self)} samples of {self.image_shape}")


def _agree(parts: Sequence[Samples], name: str) -> None:
    """Refuse to join rows that mean different things: label 1 of (cat, dog) and label 1 of (red, blue)."""
    found = {str(list(getattr(part, name).shape[1:])) for part in parts}
    if len(found) == 1 and name in MEANINGS:
        found = {str(getattr(part, MEANINGS[name])) for part in parts}
    if len(found) > 1:
        differ = " and ".join(sorted(found))
        raise InputError(f"the samples' {name} differ in meaning ({differ}); bring them to one form or leave them out")


def indices(index: Index, length: int) -> list[int]:
    """Resolve an index, slice or sequence against a length, with Python's rules.

    Raises
    ------
    InputError
        If an index is out of range, or is not an integer (a mask of booleans is not a list of indices).
    """
    if isinstance(index, slice):
        return list(range(*index.indices(length)))
    single = getattr(index, "ndim", None) == 0 or not hasattr(index, "__iter__")
    rows: list[int] = []
    for i in [index] if single else list(index):  # type: ignore[arg-type]
        try:
            row = i if type(i) is int else integer(i)
        except TypeError:
            raise InputError(f"index {i!r} is not an integer; turn a mask into indices with mask.nonzero()") from None
        if not -length <= row < length:
            raise InputError(f"index {row} is out of range for {length} samples")
        rows.append(row % length)
    return rows


def integer(value: Any) -> int:
    """Return an int, a numpy integer or an integer tensor of one element as an int.

    Raises
    ------
    TypeError
        For anything else: 1.7 is not 1, and True, of a mask, is not the second row.
    """
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        raise TypeError(f"{value!r} is not an integer")
    return operator.index(value)
