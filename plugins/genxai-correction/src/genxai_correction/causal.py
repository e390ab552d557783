"""What switching a unit off, alone, does to the probability that an image is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genxai_core import Discriminator, Runtime, UnitEdits
from genxai_core.errors import GenxaiError, InputError
from genxai_core.guard import guard
from genxai_core.units.layers import watching

from .defects import corrected, forwards
from .judging import probabilities

CLOSE = 1e-4
"""Two ways of making an image agree if no pixel differs by more, as a share of the value range."""

CACHED = 16
"""Rows that a processor takes at once: of more, the activations no longer stay in its cache, and each costs more."""


@torch.no_grad()
def ablation_effects(
    model: Any,
    latents: Tensor,
    classifier: Discriminator,
    target: int,
    layer: str,
    runtime: Runtime,
    units: Sequence[int] | None = None,
    edits: UnitEdits | None = None,
    said: str = "",
) -> Tensor:
    """Return P(artifact) with a unit off less P(artifact) as it is, ``[units, N]`` float64: below 0 if the unit causes.

    The same as one ablation after the other, to float precision, but in full batches: a row is one sample with one
    unit off, and rows of several units go through the model together. A unit that is 0 all over a sample changes
    nothing there, and is not run. Where the layer's output alone decides what follows, as in a chain of layers, what
    precedes it runs once per sample and not once per row; whether it does is tried out on two samples.

    Parameters
    ----------
    model
        A generator with latents, in eval mode.
    latents
        ``[N, …]``, those of broken samples.
    classifier
        Who says how probable an artifact is. It is left as found.
    target
        Its artifact class.
    layer
        Whose units are switched off, one at a time.
    runtime
        Its batch size is the largest number of rows.
    units
        Which. None: all of the layer.
    edits
        Applied first, on both sides of the difference. A condition counts as met.
    said
        What the progress is called; none is shown without a name.

    Raises
    ------
    InputError
        If there is no such layer or unit, or the layer does not return one row per sample.
    """
    with guard(classifier):
        work = _Ablations(model, latents, classifier, target, layer, runtime, edits)
        return work.effects(units, said)


class _Ablations:
    """Ablations in one layer."""

    def __init__(
        self,
        model: Any,
        latents: Tensor,
        classifier: Discriminator,
        target: int,
        layer: str,
        runtime: Runtime,
        edits: UnitEdits | None,
    ) -> None:
        self.model, self.classifier, self.target = model, classifier, target
        self.layer, self.runtime, self.edits = layer, runtime, edits
        like = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), latents)
        self.latents = latents.to(like)

    def effects(self, units: Sequence[int] | None, said: str) -> Tensor:
        before, alive, calls = [], [], list[Tensor]()

        def see(layer: str, activation: Tensor) -> None:  # of a layer that runs several times, each counts
            calls.append((activation != 0).reshape(*activation.shape[:2], -1).any(2).cpu())

        with watching(self.model, self.layer, see):
            for _, images, _ in forwards(self.model, self.latents, [self.layer], self.runtime, self.edits):
                before.append(self._judged(images))
                alive.append(torch.stack(calls).any(0))
                calls.clear()
        base, active = torch.cat(before), torch.cat(alive)
        chosen = list(range(active.shape[1])) if units is None else [int(u) for u in units]
        wrong = [u for u in chosen if not 0 <= u < active.shape[1]]
        if wrong:
            raise InputError(f"layer {self.layer!r} has {active.shape[1]} units; unit {wrong[0]} is none of them")
        sample, column = active[:, chosen].nonzero(as_tuple=True)  # by sample, so that few are in a batch
        found = torch.zeros(len(chosen), len(base), dtype=torch.double)
        make = self._branched if self._branches() else self._repeated
        off, size = torch.tensor(chosen, dtype=torch.long), self.runtime.batch_size
        if self.latents.device.type == "cpu":
            size = min(size, CACHED)
        shown = self.runtime if said else self.runtime.with_(quiet=True)
        with shown.progress(said, len(sample)) as advance:
            for rows, columns in zip(torch.split(sample, size), torch.split(column, size)):
                found[columns, rows] = self._judged(make(rows, off[columns])) - base[rows]
                advance(len(rows))
        return found

    def _judged(self, images: Tensor) -> Tensor:
        low, high = self.model.value_range
        return probabilities(self.classifier, images, (low, high), self.target, self.runtime.batch_size)

    # -- images of samples [R], in each of which one unit [R] is off ------------------------------------------------

    def _repeated(self, samples: Tensor, units: Tensor) -> Tensor:
        """Make each row from its latent."""
        return self._made(self.latents[samples.to(self.latents.device)], lambda activation: activation.clone(), units)

    def _branched(self, samples: Tensor, units: Tensor) -> Tensor:
        """Make each sample up to the layer, and rows of it from there on."""
        which, row = torch.unique(samples, return_inverse=True)
        of = self.latents[which.to(self.latents.device)]
        return self._made(of, lambda activation: activation[row.to(activation.device)], units)

    def _made(self, latents: Tensor, rows: Callable[[Tensor], Tensor], units: Tensor) -> Tensor:
        def off(layer: str, activation: Tensor) -> Tensor:
            if len(activation) != len(latents):
                raise InputError(f"layer {layer!r} returned {len(activation)} rows for {len(latents)} samples")
            changed = rows(activation)
            changed[torch.arange(len(changed), device=changed.device), units.to(changed.device)] = 0
            return changed

        with corrected(self.model, self.edits), watching(self.model, self.layer, off):
            images: Tensor = self.model(latents)
        return images

    def _branches(self) -> bool:
        """Return whether `_branched` gives the images of `_repeated`, as it does on two samples, each twice."""
        if len(self.latents) < 2:
            return False
        samples, units = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 0])
        wanted = self._repeated(samples, units)
        try:
            found = self._branched(samples, units)
        except (
            RuntimeError,
            ValueError,
            IndexError,
            GenxaiError,
        ):  # what follows the layer knows how many samples there are
            return False
        low, high = self.model.value_range
        return found.shape == wanted.shape and bool(((found - wanted).abs() <= CLOSE * (high - low)).all())
