"""What a dissection has counted so far: exact, mergeable, and kept so that it goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self, TypeVar

import torch
from torch import Tensor

from genxai_core import Runtime, units

from . import checkpoint
from .jackknife import BLOCKS, block_of

T = TypeVar("T")


class Partial:
    """Counts of pixels by block of samples, and each unit's strongest samples.

    Parameters
    ----------
    thresholds
        Layer -> ``[U]``.
    samples
        How many there will be; a sample's block follows from its index.
    keep
        How many of its strongest samples are kept of each unit.
    """

    def __init__(self, thresholds: Mapping[str, Tensor], samples: int, keep: int) -> None:
        self.samples, self.keep, self.batches = samples, keep, 0
        self.blocks = [units.Tally(thresholds) for _ in range(min(BLOCKS, samples))]
        self.thresholds = self.blocks[0].thresholds
        self.peaks = {layer: torch.empty(len(t), 0) for layer, t in self.thresholds.items()}
        self.strongest = {layer: torch.empty(len(t), 0, dtype=torch.long) for layer, t in self.thresholds.items()}

    def take(self, activations: Mapping[str, Tensor], masks: Tensor, first: int) -> None:
        """Count one batch: the sample ``first`` and those that follow."""
        of = [block_of(first + i, self.samples) for i in range(len(masks))]
        for block in dict.fromkeys(of):
            rows = slice(of.index(block), of.index(block) + of.count(block))
            self.blocks[block].count({k: a[rows] for k, a in activations.items()}, masks[rows])
        index = torch.arange(first, first + len(masks))
        for layer in self.thresholds:
            activation = activations[layer].detach().float()
            peaks = (activation.amax((2, 3)) if activation.ndim == 4 else activation).T.cpu()
            self._strongest(layer, peaks, index.expand(len(peaks), -1))
        self.batches += 1

    def _strongest(self, layer: str, peaks: Tensor, index: Tensor) -> None:
        """Keep the largest; of equal ones those of the lowest index, so that the order of batches is no matter."""
        peaks, index = torch.cat([self.peaks[layer], peaks], 1), torch.cat([self.strongest[layer], index], 1)
        by_index = index.argsort(dim=1)
        peaks, index = peaks.gather(1, by_index), index.gather(1, by_index)
        order = peaks.argsort(dim=1, descending=True, stable=True)[:, : self.keep]
        self.peaks[layer], self.strongest[layer] = peaks.gather(1, order), index.gather(1, order)

    def merge(self, other: Self) -> None:
        """Take in what another one has counted of other samples; the counts are equal bit for bit."""
        for mine, theirs in zip(self.blocks, other.blocks, strict=True):
            mine.merge(theirs)
        for layer in self.thresholds:
            self._strongest(layer, other.peaks[layer], other.strongest[layer])

    def whole(self) -> units.Tally:
        """Return the counts of all blocks together."""
        total = units.Tally(self.thresholds)
        for block in self.blocks:
            total.merge(block)
        return total

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def save(self, folder: Path, config: str) -> None:
        """Write everything, crash-safely."""
        counts = [
            {"both": b.intersection, "area": b.area, "concept": b.concept_area, "pixels": b.pixels} for b in self.blocks
        ]
        found = {"thresholds": self.thresholds, "peaks": self.peaks, "strongest": self.strongest}
        checkpoint.write(folder, config, {"batches": self.batches, **found, "blocks": counts})

    @classmethod
    def load(cls, folder: Path, config: str, samples: int, keep: int) -> Self | None:
        """Read what `save` wrote; None if there is nothing.

        Raises
        ------
        StorageError
            If it is damaged, or of another dissection.
        """
        state = checkpoint.read(folder, config, "dissection")
        if state is None:
            return None
        found = cls(state["thresholds"], samples, keep)
        found.batches, found.peaks, found.strongest = state["batches"], state["peaks"], state["strongest"]
        for block, kept in zip(found.blocks, state["blocks"], strict=True):
            block.intersection, block.area = kept["both"], kept["area"]
            block.concept_area, block.pixels = kept["concept"], kept["pixels"]
        return found


def gathered(value: T, runtime: Runtime) -> list[T]:
    """Return every process's value, by rank."""
    if runtime.processes == 1:
        return [value]
    from accelerate.utils import gather_object

    runtime.wait()
    found: list[T] = gather_object([value])
    return found
