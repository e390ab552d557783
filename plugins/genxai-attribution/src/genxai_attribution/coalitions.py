"""Images with some of their cells taken from a reference, and what the model says of them: the perturbation methods."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Discriminator
from genxai_core.errors import InputError

from .logits import logit
from .maps import Call


def cells(grid: int, height: int, width: int) -> Tensor:
    """Divide an image into ``grid`` by ``grid`` cells, as equal as whole pixels allow: numbers ``[H, W]``, row by row.

    Raises
    ------
    InputError
        If there are fewer pixels than cells on a side.
    """
    if grid > min(height, width):
        raise InputError(f"grid {grid} is finer than the image, {height} x {width} pixels; make it smaller")
    rows, columns = (torch.arange(side) * grid // side for side in (height, width))
    return rows[:, None] * grid + columns[None]


def spread(scores: Tensor, of: Tensor) -> Tensor:
    """Share each cell's score ``[N, F]`` equally among its pixels: ``[N, H, W]``, whose sum is that of the scores."""
    of = of.to(scores.device)
    sizes = torch.bincount(of.flatten(), minlength=scores.shape[1])
    return (scores / sizes)[:, of]


@torch.no_grad()
def values(model: Discriminator, images: Tensor, baseline: Tensor, kept: Tensor, target: int, call: Call) -> Tensor:
    """Return the logits of images of which only some pixels are kept, the others being the baseline's.

    Parameters
    ----------
    model
        The explainee; only its logit is used, no softmax.
    images, baseline
        ``[N, C, H, W]``.
    kept
        Bool ``[S, H, W]``, the same masks for every image, so that an image's result does not depend on the others.
    target
        Which logit.
    call
        Bounds how many images pass at once.

    Returns
    -------
    Tensor
        ``[N, S]``, double precision.
    """
    found = []
    for chunk in call.chunks(len(kept), len(images)):
        mask = kept[chunk.start : chunk.stop, None, None].to(images.device)
        mixed = torch.where(mask, images, baseline)
        found.append(logit(model, mixed.flatten(0, 1), target).view(len(chunk), len(images)).double())
    return torch.cat(found).T
