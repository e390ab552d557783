"""Masks that are there already."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from genxai_core import Samples, Segmenter
from genxai_core.errors import InputError

TOLERANCE = 1 / 255
"""How far a pixel may lie from that of the image whose masks it gets, as a share of the value range."""


class Fixed(Segmenter):
    """Masks ``[N, concepts, H, W]`` that the user has: the same for every image, or each image its own.

    - A Tensor ``[concepts, H, W]``, or a file with such masks, says where things are in *every* image: the place of the
      eyes in aligned faces, the left and the right half. It is a prior of place; it does not look at the image.
    - Samples with masks, or a file that has images beside its masks, are a set that was annotated, by hand or by a
      program. An image gets the masks of the image of the set that it is, to one 8-bit step at every pixel (so a set
      that was saved as PNG is recognised, and so is one that was generated again in other batches); an image that is
      not in the set is refused.

    Parameters
    ----------
    masks
        A bool Tensor, Samples, or an ``.npz`` file of arrays, without pickles: ``masks``, bool ``[concepts, H, W]`` or
        ``[N, concepts, H, W]``; ``concepts``, their names; and in the second case ``images`` ``[N, C, H, W]``, either
        uint8, or floats with their ``value_range``.
    concepts
        The names of a Tensor's planes. Samples and files have their own.

    Raises
    ------
    ValueError
        If there are no masks or no names, or a shape or type does not fit.
    """

    def __init__(self, masks: Samples | Tensor | Path, concepts: tuple[str, ...] = ()) -> None:
        if concepts and not isinstance(masks, Tensor):
            raise ValueError("concepts name the planes of a Tensor; Samples and files have names of their own")
        self.known: Samples | None = None
        planes: Any = masks
        if isinstance(masks, Path):
            self.known, planes, concepts = _read(masks)
        elif isinstance(masks, Samples):
            self.known, planes, concepts = masks, masks.masks, masks.concepts
        wanted = 3 if self.known is None else 4
        if planes is None or planes.dtype != torch.bool or planes.ndim != wanted or not planes.numel():
            found = "none" if planes is None else f"{planes.dtype} {list(planes.shape)}"
            raise ValueError(
                f"masks must be bool {'[N, concepts, H, W]' if self.known else '[concepts, H, W]'}: {found}"
            )
        if len(concepts) != planes.shape[-3] or len(set(concepts)) < len(concepts) or not all(concepts):
            raise ValueError(
                f"{len(concepts)} names for {planes.shape[-3]} masks; give each one of its own in concepts"
            )
        self.masks: Tensor = planes
        self.concepts = tuple(concepts)

    def _segment(self, samples: Samples) -> Tensor:
        size, own = samples.image_shape[1:], tuple(self.masks.shape[-2:])
        if size != own:
            raise InputError(
                f"segmenter/fixed: the masks are {own[0]}×{own[1]}, the images {size[0]}×{size[1]}; "
                f"bring them to one size"
            )
        if self.known is None:
            return self.masks.expand(len(samples), -1, -1, -1)
        return self.masks[self._rows(samples, self.known)]

    def _rows(self, samples: Samples, known: Samples) -> Tensor:
        """Return which image of the set each one is."""
        if samples.image_shape != known.image_shape:
            raise InputError(
                f"segmenter/fixed: the images are {list(samples.image_shape)}, those with masks "
                f"{list(known.image_shape)}; bring them to one form"
            )
        given, there = (s.rescale((0.0, 1.0)).images.cpu().float().flatten(1) for s in (samples, known))
        apart, rows = torch.cdist(given, there, p=math.inf).min(1)  # the Euclidean one rounds small differences away
        strangers = (apart > 1.001 * TOLERANCE).nonzero().flatten().tolist()  # and what rounding adds to a whole step
        if strangers:
            raise InputError(
                f"segmenter/fixed: {len(strangers)} of {len(samples)} images are not among those that have masks "
                f"(the first is number {strangers[0]} of its batch, and differs by {float(apart[strangers[0]]):.2g} of "
                f"the value range); use the images that the masks were made for"
            )
        return rows


def _read(path: Path) -> tuple[Samples | None, Tensor, tuple[str, ...]]:
    """Read a file: samples where it has images, its masks, its concepts."""
    try:
        file = np.load(path, allow_pickle=False)
        arrays = dict(file) if isinstance(file, np.lib.npyio.NpzFile) else {}
    except (OSError, ValueError, EOFError, BadZipFile):
        raise ValueError(f"{path}: cannot be read as .npz without pickles; write it with numpy.savez") from None
    missing = [name for name in ("masks", "concepts") if name not in arrays]
    if missing:
        raise ValueError(f"{path}: has no {' and no '.join(missing)}; write numpy.savez(path, masks=…, concepts=…)")
    for name in ("masks", "images"):
        if name in arrays and arrays[name].dtype.kind not in "biuf":
            raise ValueError(f"{path}: {name} are {arrays[name].dtype}, not numbers")
    masks, concepts = torch.from_numpy(arrays["masks"]), tuple(str(c) for c in arrays["concepts"].reshape(-1))
    if "images" not in arrays:
        return None, masks, concepts
    images = torch.from_numpy(arrays["images"])
    if images.dtype == torch.uint8:
        images, value_range = images.float(), (0.0, 255.0)
    elif "value_range" in arrays and arrays["value_range"].shape == (2,):
        value_range = (float(arrays["value_range"][0]), float(arrays["value_range"][1]))
    else:
        raise ValueError(f"{path}: images are {images.dtype} without a value_range; give it: value_range=(-1.0, 1.0)")
    try:
        return Samples(images, masks=masks, value_range=value_range, concepts=concepts), masks, concepts
    except InputError as error:
        raise ValueError(f"{path}: {error}") from None
