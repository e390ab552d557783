"""scikit-learn's handwritten digits."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from genxai_core import Dataset, Samples, draws

from .images import check_range, check_size, resized, scaled

LEVELS = 16
"""The darkest of the 17 levels of a pixel."""

TEST_EVERY = 5


class Digits(Dataset):
    """1797 real handwritten digits, grey ``[1, size, size]``, ink bright on a dark ground, labels 0–9.

    The file goes by writer, so its rows are put in one fixed random order. Of each class, every fifth image in that
    order is a test image (355 in all) and the others are for training (1442). Both parts know all writers.

    At 8 px the levels are exact: ``k / 16`` of the value range, k = 0…16. Larger sizes are interpolated bilinearly
    (``align_corners=False``).

    Parameters
    ----------
    size
        Height and width in pixels, 8 to 128.
    split
        ``train`` and ``test`` are disjoint and together ``all``.
    value_range
        Smallest and largest pixel value.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.

    References
    ----------
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (the test
    part, which scikit-learn ships).
    """

    class_names = tuple("0123456789")

    def __init__(
        self,
        size: int = 8,
        split: Literal["all", "train", "test"] = "all",
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        from sklearn.datasets import load_digits

        self.size = check_size(size, 8, 128)
        self.value_range = check_range(value_range)
        self.image_shape = (1, size, size)
        images, labels = load_digits(return_X_y=True)
        rows = _order(labels, split)
        self._images = torch.from_numpy(images[rows].astype(np.uint8)).view(-1, 1, 8, 8)
        self._labels = torch.from_numpy(labels[rows].astype(np.int64))

    def __len__(self) -> int:
        return len(self._images)

    def _samples(self, rows: list[int]) -> Samples:
        images = scaled(self._images[rows], LEVELS, self.value_range)
        return Samples(
            resized(images, self.size),
            labels=self._labels[rows],
            value_range=self.value_range,
            class_names=self.class_names,
        )


def _order(labels: np.ndarray, split: str) -> np.ndarray:
    """Return the file's rows that belong to a split, in the fixed order."""
    order = draws.permutation(0, 0, len(labels), "dataset/digits")
    if split == "all":
        return order
    rank = np.empty(len(order), dtype=int)  # the how-manieth of its class
    for digit in np.unique(labels):
        places = np.flatnonzero(labels[order] == digit)
        rank[places] = np.arange(len(places))
    test = rank % TEST_EVERY == TEST_EVERY - 1
    chosen: np.ndarray = order[test if split == "test" else ~test]
    return chosen
