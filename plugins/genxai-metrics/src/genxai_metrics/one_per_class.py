"""One image of each class, over and over: what a generator that has collapsed gives."""

from __future__ import annotations

from typing import NoReturn

from genxai_core import Dataset, Runtime, Samples
from genxai_core.errors import InputError

NAME = "dataset/one-per-class"


class OnePerClass(Dataset):
    """The first image of each class of a dataset, repeated in turn: ``OnePerClass(n=90).load(real=digits)``.

    It stands for a generator that has collapsed to one image per class, and shows what a metric overlooks.

    Parameters
    ----------
    n
        How many images in all.

    Raises
    ------
    ValueError
        If n is not positive.
    """

    def __init__(self, n: int = 64) -> None:
        if n < 1:
            raise ValueError(f"n {n} must be at least 1")
        self.n = n

    def load(self, *, real: Samples | Dataset, runtime: Runtime | None = None) -> Samples:  # type: ignore[override]
        """Pick the images.

        Parameters
        ----------
        real
            Images with labels.
        runtime
            Not used.

        Returns
        -------
        Samples
            n samples; their classes follow one another in the order of their numbers.

        Raises
        ------
        InputError
            If there are no labels.
        """
        samples = real[:]
        if samples.labels is None or len(samples) == 0:
            raise InputError(f"{NAME} needs images with labels; use a labelled dataset")
        labels = samples.labels.tolist()
        firsts = [labels.index(k) for k in sorted(set(labels))]
        return samples[[firsts[i % len(firsts)] for i in range(self.n)]]

    def __len__(self) -> int:
        self._refuse()

    def _samples(self, rows: list[int]) -> Samples:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{NAME} holds no images until it has picked them: use OnePerClass(n={self.n}).load(real=…), "
            f"or in a pipeline call: {{real: $digits}}"
        )
