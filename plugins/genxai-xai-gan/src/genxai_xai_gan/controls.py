"""Placebo masks: what a training with the mask is compared with, before a gain is put down to the explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from genxai_core import draws

if TYPE_CHECKING:
    from genxai_core import Runtime

Kind = Literal["none", "uniform", "shuffled", "random"]


class Control:
    """Puts a placebo in the place of a mask, sample by sample, with the mask's mean over each sample.

    ``uniform`` is the mean everywhere; ``shuffled`` moves the pixels of the mask about (all channels of a pixel
    together), so that it keeps every value and loses every place; ``random`` draws anew from a uniform distribution on
    0 to 1 and scales that to the mean, so that values pass 1 where the mean is above about a half. Draws depend on the
    seed and the number of the image in the training, thus on no batch and no process.

    Parameters
    ----------
    kind
        Which placebo; ``none`` leaves the mask as it is.
    runtime
        Gives the seed and this process's share of the batch.
    batch
        Images per step, over all processes together.
    """

    def __init__(self, kind: Kind, runtime: Runtime, batch: int) -> None:
        self.kind, self.seed, self.batch, self.first = kind, runtime.seed, batch, runtime.shard(batch).start

    def __call__(self, step: int, mask: Tensor) -> Tensor:
        """Return the mask of a step, or its placebo: ``[N, C, H, W]`` like the mask itself."""
        if self.kind == "none":
            return mask
        mean = mask.mean((1, 2, 3), keepdim=True)
        if self.kind == "uniform":
            return mean.expand_as(mask)
        rows = range(step * self.batch + self.first, step * self.batch + self.first + len(mask))
        if self.kind == "random":
            noise = draws.uniform(self.seed, rows, mask.shape[1:], "placebo").to(mask)
            return noise * (mean / noise.mean((1, 2, 3), keepdim=True))
        flat = mask.flatten(2)
        places = [draws.permutation(self.seed, row, flat.shape[2], "placebo") for row in rows]
        index = torch.from_numpy(np.stack(places)).to(mask.device)[:, None].expand_as(flat)
        return flat.gather(2, index).view_as(mask)
