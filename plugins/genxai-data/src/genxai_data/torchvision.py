"""The small classic datasets, from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from genxai_core import Dataset, Samples
from genxai_core.errors import StorageError

from . import idx
from .images import check_range, check_size, resized, scaled

_IDX = ("MNIST", "FashionMNIST", "KMNIST")


class TorchvisionDataset(Dataset):
    """MNIST, FashionMNIST, KMNIST (grey, 28 px), CIFAR10, CIFAR100 and SVHN (RGB, 32 px) from files that are there.

    Nothing is ever downloaded. The files lie where torchvision puts them: ``root/FashionMNIST/raw/…-ubyte[.gz]``,
    ``root/cifar-10-batches-py/…``, ``root/train_32x32.mat``. IDX files (MNIST, FashionMNIST, KMNIST) may also lie
    directly in ``root``; they are read here, with their headers checked.

    CIFAR's official files are Python pickles, which can run code. torchvision compares each with the MD5 of the
    official file before it opens it, so only those very files are unpickled; any other content is refused. SVHN's are
    compared in the same way.

    Parameters
    ----------
    name
        Which dataset.
    root
        The folder.
    split
        The official ``train`` or ``test`` part.
    size
        Height and width in pixels, 8 to 256: resized bilinearly (antialiased, ``align_corners=False``). By default
        as they are.
    value_range
        Smallest and largest pixel value.
    limit
        Take only the first images.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    StorageError
        If files are missing, damaged, or not the official ones.
    """

    def __init__(
        self,
        name: Literal["MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100", "SVHN"],
        root: Path,
        split: Literal["train", "test"] = "train",
        size: int | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit {limit} must be at least 1")
        self.name, self.split = name, split
        self.value_range = check_range(value_range)
        read = _read_idx if name in _IDX else _read_checked
        images, labels, self.class_names = read(name, Path(root), split)
        self._images = torch.from_numpy(images[:limit].copy())  # a copy frees the rest
        self._labels = torch.from_numpy(labels[:limit].astype(np.int64))
        channels, height, width = self._images.shape[1:]
        if size is not None:
            height = width = check_size(size, 8, 256)
        self.size, self.image_shape = size, (channels, height, width)

    def __len__(self) -> int:
        return len(self._images)

    def _samples(self, rows: list[int]) -> Samples:
        images = scaled(self._images[rows], 255, self.value_range)
        return Samples(
            images if self.size is None else resized(images, self.size),
            labels=self._labels[rows],
            value_range=self.value_range,
            class_names=self.class_names,
        )


Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
"""Images uint8 ``[N, C, H, W]``, labels ``[N]``, class names."""


def _read_idx(name: str, root: Path, split: str) -> Arrays:
    part = "train" if split == "train" else "t10k"
    images_file = _idx_file(name, root, f"{part}-images-idx3-ubyte")
    labels_file = _idx_file(name, root, f"{part}-labels-idx1-ubyte")
    images, labels = idx.read(images_file, 3), idx.read(labels_file, 1)
    class_names = _class_names(name)
    if len(images) != len(labels):
        raise StorageError(
            f"{images_file} holds {len(images)} images and {labels_file.name} {len(labels)} labels; "
            f"get the official files again"
        )
    if labels.max() >= len(class_names):
        raise StorageError(f"{labels_file}: holds the label {labels.max()}, but {name} has {len(class_names)} classes")
    return images[:, None], labels, class_names


def _idx_file(name: str, root: Path, stem: str) -> Path:
    for folder in (root, root / name / "raw"):
        for suffix in ("", ".gz"):
            file = folder / f"{stem}{suffix}"
            if file.is_file():
                return file
    raise StorageError(
        f"root {root}: there is no {stem}[.gz] in it, nor in {name}/raw below it; put the official files "
        f"of {name} there (nothing is downloaded)"
    )


def _read_checked(name: str, root: Path, split: str) -> Arrays:
    """Read through torchvision, which checks the MD5 of every file before it opens it."""
    from torchvision import datasets

    try:
        source: Any
        if name == "SVHN":
            source = datasets.SVHN(root, split=split, download=False)
            return source.data, source.labels, tuple("0123456789")
        source = getattr(datasets, name)(root, train=split == "train", download=False)
    except RuntimeError:
        raise StorageError(
            f"root {root}: the official files of {name} are not in it, or differ from them; unpack them there as "
            f"torchvision does (nothing is downloaded)"
        ) from None
    return source.data.transpose(0, 3, 1, 2), np.array(source.targets), tuple(source.classes)


def _class_names(name: str) -> tuple[str, ...]:
    from torchvision import datasets

    classes: list[str] = getattr(datasets, name).classes
    return tuple("0123456789") if name == "MNIST" else tuple(classes)
