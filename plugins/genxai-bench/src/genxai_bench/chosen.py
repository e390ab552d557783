"""Scenes, chosen by what a planted function makes of them, or put together so that it is not alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import genxai_core
from genxai_core import draws

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


def collages(
    members: Sequence[Callable[[Tensor], Tensor]], share: tuple[float, float], n: int, seed: int, size: int
) -> Tensor | None:
    """Return scenes with pieces of other scenes set in, so that several colours are all in all of them.

    Each is a scene into which, for every colour in drawn order, the pixels of that colour are copied from a scene that
    has enough of it. No scene is used twice, and all colours are treated alike: what is seen does not tell one from
    another.

    Parameters
    ----------
    members
        Tell of images ``[B, 3, size, size]`` how much each pixel is of a colour, 0 to 1, ``[B, size, size]``.
    share
        The least and the largest share of each image that may be above ½, for every colour.
    n, seed, size
        How many, of which world of `dataset/scenes`, and their height and width.

    Returns
    -------
    Tensor or None
        ``[n, 3, size, size]`` in (-1, 1); None if too few scenes have enough of the colours.
    """
    pieces: list[list[Tensor]] = [[] for _ in members]
    grounds: list[Tensor] = []
    made: list[Tensor] = []
    for start in range(0, n * CANDIDATES, CHUNK):
        images = genxai_core.create("dataset/scenes", n=CHUNK, size=size, seed=seed, start=start)[:CHUNK].images
        fit = torch.stack([_fits(of(images), share) for of in members])
        for image, fits in zip(images, fit.T.tolist(), strict=True):
            wanted = [queue for queue, fitting in zip(pieces, fits, strict=True) if fitting]
            min([*wanted, grounds], key=len).append(image)
        while grounds and all(pieces):
            image = grounds.pop(0)
            taken = [queue.pop(0) for queue in pieces]
            for k in draws.permutation(seed, len(made), len(members), "bench/collage"):
                image = torch.where(members[k](taken[k][None]) > 0, taken[k], image)
            if all(bool(_fits(of(image[None]), share)) for of in members):
                made.append(image)
            if len(made) == n:
                return torch.stack(made)
    return None


def _fits(members: Tensor, share: tuple[float, float]) -> Tensor:
    """Return whether a share of each image that is neither too small nor too large is above ½, ``[B]``."""
    area = (members > 0.5).double().mean((1, 2))
    return (area >= share[0]) & (area <= share[1])
