"""Procedural pictures of which everything is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genxai_core import Dataset, Samples
from genxai_core.errors import InputError

from . import scene_factors
from .images import Store, check_range, check_size, scaled
from .scene_factors import CONCEPTS, FACTORS, SHAPES
from .scene_render import render

SMALLEST, LARGEST = 16, 256


class Scenes(Dataset):
    """Pictures of 1 to 4 shapes on varied backgrounds, with exact masks, factors and captions.

    An image is a function of its factors, and the factors of image i depend on ``(seed, start + i)`` only: the same
    scene comes out whatever n or the batch, and at every size the same picture at another resolution.

    Each sample has

    - ``images`` ``[3, size, size]``, antialiased (4x4 samples per pixel, 8 bits);
    - ``masks`` ``[12, size, size]``: a plane per shape (circle, square, triangle, star, ring, cross) and per part of a
      background (plain, gradient, stripes, dots, sky, ground). What is hidden belongs to what hides it. A pixel
      belongs to the one concept that most of its 16 samples show, so the planes are disjoint and cover the image;
    - ``factors`` ``[31]``: count, background, tone, horizon, period, direction (degrees), phase; then for each object,
      the largest first, which is also from back to front: shape, colour, size (radius), x, y and angle (degrees).
      Lengths are in image widths, x points right and y down. **-1 stands where a factor does not apply**: objects
      that are not there, the horizon of a plain background. There is no NaN;
    - ``captions``: "a large red circle and a small blue star on a striped background";
    - ``labels``: the shape of the largest object.

    Parameters
    ----------
    n
        How many images.
    size
        Height and width in pixels, 16 to 256.
    seed
        Which world the scenes are drawn from.
    start
        Number of the first scene: ``start=n_train`` makes a test set that shares no draw with the training set.
    value_range
        Smallest and largest pixel value.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    """

    class_names = SHAPES
    concepts = CONCEPTS
    factor_names = FACTORS

    def __init__(
        self,
        n: int = 2000,
        size: int = 32,
        seed: int = 0,
        start: int = 0,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        if n < 1:
            raise ValueError(f"n {n} must be at least 1")
        if start < 0:
            raise ValueError(f"start {start} must not be negative")
        self.n, self.seed, self.start = n, seed, start
        self.size = check_size(size, SMALLEST, LARGEST)
        self.value_range = check_range(value_range)
        self.image_shape = (3, size, size)
        self._factors = Store(self._draw)
        self._planes = Store(self._render)

    def __len__(self) -> int:
        return self.n

    def _draw(self, row: int) -> np.ndarray:
        return scene_factors.draw(self.seed, self.start + row)

    def _render(self, row: int) -> np.ndarray:
        """Return uint8 ``[4, size, size]``: the image and the index of each pixel's concept."""
        image, concept = render(self._factors.stack([row])[0].numpy(), self.size)
        return np.concatenate([image, concept[None]])

    def _samples(self, rows: list[int]) -> Samples:
        return self._joined(self._planes.stack(rows), self._factors.stack(rows))

    def _joined(self, planes: Tensor, factors: Tensor) -> Samples:
        return Samples(
            scaled(planes[:, :3], 255, self.value_range),
            labels=factors[:, FACTORS.index("shape_1")].long(),
            masks=planes[:, 3:] == torch.arange(len(CONCEPTS), dtype=torch.uint8)[:, None, None],
            factors=factors,
            captions=tuple(scene_factors.caption(row) for row in factors.numpy()),
            value_range=self.value_range,
            class_names=self.class_names,
            concepts=self.concepts,
            factor_names=self.factor_names,
        )

    def render(self, factors: Tensor) -> Samples:
        """Render scenes of one's own: take ``dataset[:8].factors``, change a column, see what changes.

        Parameters
        ----------
        factors
            float ``[N, 31]``, columns as in ``factor_names``.

        Returns
        -------
        Samples
            As the dataset's own, at its size.

        Raises
        ------
        InputError
            If the shape is wrong, or a count, background, tone, shape, colour or size is not one that exists.
        """
        if factors.ndim != 2 or factors.shape[1] != len(FACTORS):
            raise InputError(f"factors must be [N, {len(FACTORS)}], not {list(factors.shape)}; see factor_names")
        rows = factors.detach().cpu().float()
        for i, row in enumerate(rows.numpy()):
            problem = scene_factors.problem(row)
            if problem:
                raise InputError(f"factors[{i}]: {problem}")
        planes = [
            np.concatenate([image, concept[None]]) for image, concept in (render(r, self.size) for r in rows.numpy())
        ]
        return self._joined(torch.from_numpy(np.stack(planes)), rows)
