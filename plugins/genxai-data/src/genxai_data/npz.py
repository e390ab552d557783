"""Images in a NumPy file, with what is known of them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genxai_core import Dataset, Samples
from genxai_core.errors import StorageError

from .images import check_range, check_size, resized, scaled

MAX_BYTES = 2**33
"""Of one array, unpacked: a file that announces more is not opened."""

MAX_CLASSES = 100_000
"""Labels beyond it are numbers of something else, such as rows of a table."""


class NPZDataset(Dataset):
    """Images of an ``.npz`` file (``numpy.savez``), with labels, masks and factors from other arrays of it.

    Files with Python objects in them are refused: nothing is unpickled.

    Parameters
    ----------
    file
        The file.
    images
        Name of the images' array: uint8 ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``, with C 1 or 3.
    labels
        Name of the labels' array, integers ``[N]``.
    class_names
        What the labels mean; default: their numbers.
    masks
        Name of the masks' array: integers ``[N, H, W]``, each pixel the number of its concept, or bool
        ``[N, concepts, H, W]``, where concepts may overlap.
    concepts
        Their names, in order; given together with ``masks``.
    factors
        Name of the factors' array, ``[N, F]``.
    factor_names
        Their F names; given together with ``factors``.
    size
        Height and width in pixels, 8 to 256: images are resized bilinearly (antialiased, ``align_corners=False``); a
        pixel of a mask then belongs to the concept of which it shows most, or to each of which it shows more than half.
        By default as they are.
    value_range
        Smallest and largest pixel value.
    limit
        Take only the first images.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    StorageError
        If the file is missing or damaged, or an array is missing or has another type or shape.
    """

    def __init__(
        self,
        file: Path,
        images: str = "images",
        labels: str | None = None,
        class_names: tuple[str, ...] = (),
        masks: str | None = None,
        concepts: tuple[str, ...] = (),
        factors: str | None = None,
        factor_names: tuple[str, ...] = (),
        size: int | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit {limit} must be at least 1")
        for what, given, names in (("masks", masks, concepts), ("factors", factors, factor_names)):
            if (given is None) != (not names):
                raise ValueError(f"{what} and {'concepts' if what == 'masks' else 'factor_names'} are given together")
        self.value_range = check_range(value_range)
        self.class_names, self.concepts, self.factor_names = tuple(class_names), tuple(concepts), tuple(factor_names)
        wanted = [name for name in (images, labels, masks, factors) if name is not None]
        arrays = {name: array[:limit].copy() for name, array in _read(Path(file), wanted).items()}
        self._images = _channels_first(arrays[images], f"{file}: {images}")
        n, channels, height, width = self._images.shape
        self._labels = None if labels is None else _integers(arrays[labels], (n,), f"{file}: {labels}")
        self._masks = None if masks is None else self._planes(arrays[masks], (height, width), f"{file}: {masks}")
        wide = (n, len(self.factor_names))
        self._factors = None if factors is None else _numbers(arrays[factors], wide, f"{file}: {factors}")
        if self._labels is not None:
            most = int(self._labels.max())
            if most >= MAX_CLASSES:
                raise StorageError(f"{file}: {labels} reach {most:,}; labels are numbers of classes, from 0")
            self.class_names = self.class_names or tuple(str(i) for i in range(most + 1))
            if most >= len(self.class_names):
                raise StorageError(f"{file}: label {most} has no name; give one class_name per label")
        if size is not None:
            height = width = check_size(size, 8, 256)
        self.size, self.image_shape = size, (channels, height, width)

    def __len__(self) -> int:
        return len(self._images)

    def _samples(self, rows: list[int]) -> Samples:
        images = scaled(self._images[rows], 255, self.value_range)
        return Samples(
            images if self.size is None else resized(images, self.size),
            labels=None if self._labels is None else self._labels[rows],
            masks=None if self._masks is None else self._resized_masks(self._masks[rows]),
            factors=None if self._factors is None else self._factors[rows],
            value_range=self.value_range,
            class_names=self.class_names,
            concepts=self.concepts,
            factor_names=self.factor_names,
        )

    def _planes(self, masks: np.ndarray, size: tuple[int, int], what: str) -> Tensor:
        """Check masks, of either kind."""
        n, concepts = len(self._images), len(self.concepts)
        if masks.dtype == np.bool_ and masks.shape == (n, concepts, *size):
            return torch.from_numpy(masks)
        if masks.dtype.kind not in "iu" or masks.shape != (n, *size):
            raise StorageError(
                f"{what} is {masks.dtype} {list(masks.shape)}; masks are integers {[n, *size]} or bool "
                f"{[n, concepts, *size]}"
            )
        if n and not 0 <= int(masks.min()) <= int(masks.max()) < concepts:
            raise StorageError(
                f"{what} holds {int(masks.min())} to {int(masks.max())} and there are {concepts} concepts; name all"
            )
        return torch.from_numpy(masks.astype(np.int64 if concepts > 255 else np.uint8))

    def _resized_masks(self, masks: Tensor) -> Tensor:
        """Return bool ``[N, concepts, H, W]``."""
        numbered = masks.ndim == 3
        planes = masks[:, None] == torch.arange(len(self.concepts)).view(-1, 1, 1) if numbered else masks
        if self.size is None or planes.shape[2:] == (self.size, self.size):
            return planes
        shares = resized(planes.float(), self.size)
        if not numbered:
            return shares > 0.5
        return shares.argmax(1, keepdim=True) == torch.arange(len(self.concepts)).view(-1, 1, 1)


def _read(file: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Read arrays of a file by name, without unpickling anything."""
    if not file.is_file():
        raise StorageError(f"{file}: no such file")
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        missing = [name for name in names if name not in sizes]
        if missing:
            raise StorageError(f"{file}: holds no array {missing[0]!r}; it has {', '.join(sorted(sizes)) or 'none'}")
        if max(sizes[name] for name in names) > MAX_BYTES:
            raise StorageError(f"{file}: announces an array of more than {MAX_BYTES:,} bytes; split it")
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in names}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, zlib.error, MemoryError) as error:
        said = "holds Python objects" if "pickle" in str(error) else f"is no .npz file ({error})"
        raise StorageError(f"{file}: {said}; write it with numpy.savez from arrays of numbers") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.ndim == 0:  # a member of another kind comes back as bytes
            raise StorageError(f"{file}: {name} is no array with rows; write it with numpy.savez")
    return found


def _channels_first(images: np.ndarray, what: str) -> Tensor:
    if images.dtype == np.uint8 and len(images):
        if images.ndim == 3:
            return torch.from_numpy(images[:, None])
        if images.ndim == 4 and images.shape[3] in (1, 3):
            return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        if images.ndim == 4 and images.shape[1] in (1, 3):
            return torch.from_numpy(images)
    raise StorageError(
        f"{what} is {images.dtype} {list(images.shape)}; images are uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with "
        f"C 1 or 3, and at least one"
    )


def _numbers(values: np.ndarray, shape: tuple[int, ...], what: str) -> Tensor:
    if values.dtype.kind not in "biuf" or values.shape != shape or not np.isfinite(values).all():
        raise StorageError(f"{what} is {values.dtype} {list(values.shape)}; factors are finite numbers {list(shape)}")
    return torch.from_numpy(values.astype(np.float32))


def _integers(values: np.ndarray, shape: tuple[int, ...], what: str) -> Tensor:
    if (
        values.dtype.kind not in "iu"
        or values.shape != shape
        or not 0 <= int(values.min()) <= int(values.max()) < 2**62
    ):
        raise StorageError(f"{what} is {values.dtype} {list(values.shape)}; labels are integers {list(shape)} from 0")
    return torch.from_numpy(values.astype(np.int64))
