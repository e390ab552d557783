"""Scenes, chosen by what a planted function makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import genxai_core

CANDIDATES, CHUNK = 32, 64
"""How many scenes are looked through for each one that is wanted of a side, and how many at once."""


def chosen(
    side: Callable[[Tensor], Tensor], sides: tuple[int, ...], of_each: int, seed: int, size: int
) -> Tensor | None:
    """Return the first scenes of each side, ``[N, 3, size, size]`` in (-1, 1), in the order in which they come.

    Parameters
    ----------
    side
        Tells of images ``[B, 3, size, size]`` to which side each belongs, ``[B]``.
    sides
        The sides that are wanted.
    of_each
        How many images of each.
    seed
        Which world of `dataset/scenes`.
    size
        Height and width.

    Returns
    -------
    Tensor or None
        None if too few scenes belong to a side.
    """
    left = dict.fromkeys(sides, of_each)
    rows: list[Tensor] = []
    for start in range(0, of_each * CANDIDATES, CHUNK):
        scenes = genxai_core.create("dataset/scenes", n=CHUNK, size=size, seed=seed, start=start)
        images = scenes[:CHUNK].images
        for image, of in zip(images, side(images).tolist(), strict=True):
            if left.get(int(of), 0):
                left[int(of)] -= 1
                rows.append(image)
        if not any(left.values()):
            return torch.stack(rows)
    return None
