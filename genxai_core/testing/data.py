"""Tiny data: patches that are bright or dark, by class."""

from __future__ import annotations

import torch

from ..interfaces import Dataset
from ..samples import Samples
from .models import PATCH, planted_images


class PatchDataset(Dataset):
    """Images ``[N, C, size, size]`` in (-1, 1) with a patch that is bright (label 1) or dark (label 0), by turns.

    Parameters
    ----------
    n
        How many.
    size
        Height and width, at least 12.
    channels
        Channels.
    seed
        Which noise lies on them.
    """

    value_range = (-1.0, 1.0)
    class_names = ("dark", "bright")
    concepts = ("patch",)

    def __init__(self, n: int = 32, size: int = 16, channels: int = 1, seed: int = 0) -> None:
        if n < 1 or size < 12:
            raise ValueError(f"n {n} must be at least 1 and size {size} at least 12")
        self.image_shape = (channels, size, size)
        self._images = planted_images(n, size, channels, seed)
        self._labels = (torch.arange(n) + 1) % 2
        self._images[self._labels == 0] *= -1
        row, column, side = PATCH
        self._mask = torch.zeros(1, size, size, dtype=torch.bool)
        self._mask[:, row : row + side, column : column + side] = True

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def _samples(self, rows: list[int]) -> Samples:
        return Samples(
            self._images[rows],
            labels=self._labels[rows],
            masks=self._mask.repeat(len(rows), 1, 1, 1),
            value_range=self.value_range,
            class_names=self.class_names,
            concepts=self.concepts,
        )
