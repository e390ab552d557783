"""Where the objects of a planted picture lie: rectangles on a grid, placed by the latent."""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from .planted_roles import Part

SLOT = 4
"""A slot of the grid is 4 × 4 cells of the first layer, 8 × 8 pixels. Objects keep to 3 × 3 of them, so that between
any two lies a free cell, and bilinear upsampling never adds up two neighbours."""

AREA = 6
"""Cells of an object: 2 × 3 or 3 × 2."""

PIXELS = 4 * AREA
"""Pixels of an object."""

PARTS = get_args(Part)


class Scene(NamedTuple):
    """What a latent says of its picture.

    Parameters
    ----------
    order
        ``[N, slots]`` integers, the slots in the order in which they are dealt.
    slots
        ``[N, objects]`` integers, where each object lies.
    turned, shifted
        ``[N, objects]`` integers 0 or 1: upright or lying, and by how many cells it is moved across.
    level
        ``[N, objects]``, how strongly its units are active, 0.9 to 1; 0 for one that is not there.
    """

    order: Tensor
    slots: Tensor
    turned: Tensor
    shifted: Tensor
    level: Tensor


def objects(cover: int) -> Tensor:
    """Return bool ``[2, 2, parts, 4, 4]``: by turned and shifted, the cells of each part of an object.

    Parameters
    ----------
    cover
        How many of the object's three columns the part ``cover`` has.
    """
    tiles = torch.zeros(2, 2, len(PARTS), SLOT, SLOT, dtype=torch.bool)
    for shift in range(2):
        upright = tiles[0, shift]
        upright[PARTS.index("whole"), shift : shift + 2, :3] = True
        upright[PARTS.index("first"), shift, :3] = True
        upright[PARTS.index("second"), shift + 1, :3] = True
        upright[PARTS.index("cover"), shift : shift + 2, :cover] = True
    tiles[1] = tiles[0].transpose(-1, -2)
    for row in range(3):
        tiles[:, :, PARTS.index(f"strip-{row}"), row, :3] = True
    tiles[:, :, PARTS.index("block"), :3, :3] = True
    return tiles


def ghosts(cover: int) -> Tensor:
    """Return bool ``[2, parts, 4, 4]``: by turned, the cells of an empty slot in which a unit of a part is active.

    As many cells as its part lacks of an object, so that every unit is active on the same share of an image.
    """
    tiles = torch.zeros(2, len(PARTS), SLOT, SLOT, dtype=torch.bool)
    for half in ("first", "second"):
        tiles[0, PARTS.index(half), 0, :3] = True
    tiles[0, PARTS.index("cover"), :2, : 3 - cover] = True
    tiles[1] = tiles[0].transpose(-1, -2)
    return tiles


def place(tiles: Tensor, slots: Tensor, grid: int) -> Tensor:
    """Put tiles ``[N, M, 4, 4]`` into slots ``[N, M]`` of a grid; ``[N, M, 4·grid, 4·grid]`` in the tiles' dtype."""
    n, m = slots.shape
    chosen = torch.nn.functional.one_hot(slots, grid * grid).to(tiles.dtype)
    laid = chosen.view(n, m, grid, 1, grid, 1) * tiles.view(n, m, 1, SLOT, 1, SLOT)
    return laid.reshape(n, m, grid * SLOT, grid * SLOT)


def doubled(fields: Tensor) -> Tensor:
    """Repeat every cell of ``[N, M, h, w]`` twice along both axes."""
    return fields.repeat_interleave(2, 2).repeat_interleave(2, 3)
