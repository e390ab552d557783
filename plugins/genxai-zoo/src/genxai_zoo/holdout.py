"""What the trainers of this package ask of their data: some of it held out, and square images."""

from __future__ import annotations

from genxai_core import Dataset, Samples, draws
from genxai_core.errors import InputError


def split(n: int, share: float, seed: int, by: str) -> tuple[list[int], list[int]]:
    """Return the rows to train on and those held out, which depend on the seed only.

    Raises
    ------
    InputError
        If none is left to train on.
    """
    order = [int(i) for i in draws.permutation(seed, 0, n, stream="holdout")]
    count = round(n * share)
    if count == n:
        raise InputError(f"{by}: {n} images with holdout {share} leave none to train on")
    return order[count:], order[:count]


def channels_and_side(data: Samples | Dataset, by: str) -> tuple[int, int]:
    """Return the channels and the side of the data's images.

    Raises
    ------
    InputError
        If they are not square.
    """
    channels, height, width = data.image_shape
    if height != width:
        raise InputError(f"{by} takes square images, not {height}×{width}; crop or resize them")
    return channels, height
