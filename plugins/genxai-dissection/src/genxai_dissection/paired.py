"""The same samples of a generator under one edit after another, and how much of each concept they show then."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Runtime, Samples, Segmenter, Spec, draws, units
from genxai_core.errors import InputError

from .calls import in_call, ran
from .checkpoint import Journal

Locations = Literal["all", "cell", "concept"] | tuple[float, float, float, float]

Level = Literal["mean", "peak"]
"""What k is of the activations where a concept is."""

K_IS = {"mean": "the mean where the concept is", "peak": "the mean of the samples' largest where the concept is"}

FIRST = 1_000_000
"""Interventions use the samples from this one on: none that a dissection with the same seed takes."""

SHOWN = 0.5
"""A cell shows a concept where at least this share of its pixels does."""


def check_locations(locations: Locations) -> None:
    """Raise ValueError unless locations are ``all``, ``cell``, ``concept``, or a box within the picture."""
    if locations in ("all", "cell", "concept"):
        return
    top, left, bottom, right = locations if not isinstance(locations, str) and len(locations) == 4 else (1, 1, 0, 0)
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(
            f"locations {locations!r} are not all, cell, concept, or a box (top, left, bottom, right) in shares of the "
            f"picture, such as (0, 0, 0.5, 1) for its upper half"
        )


def check_level(k: Level, call: int | None) -> None:
    """Raise ValueError unless k is ``mean`` or ``peak``, and the call not negative."""
    if k not in ("mean", "peak"):
        raise ValueError(f"k {k!r} is not mean or peak")
    if call is not None and call < 0:
        raise ValueError(f"call {call} cannot be negative; calls are counted from 0")


def built(segmenter: Segmenter | Spec) -> Segmenter:
    """Return the segmenter, building it if it is a Spec.

    Raises
    ------
    InputError
        If it is something else.
    """
    found = segmenter.build() if isinstance(segmenter, Spec) else segmenter
    if not isinstance(found, Segmenter):
        raise InputError(f"segmenter is a {type(found).__name__}; give a Segmenter, such as segmenter/unet")
    return found


def seen(segmenter: Segmenter, samples: Samples, runtime: Runtime) -> Tensor:
    """Return ``[N, C, H, W]`` float64 zeros and ones: where the pictures show the concepts.

    Masks that come with samples are not asked: they may be those of what was to be drawn, not of what an edit left.
    """
    bare = dataclasses.replace(samples, masks=None, concepts=())
    return segmenter.segment(bare, runtime).double()


def at_cells(masks: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the share of each cell's pixels, ``[N, C, h, w]`` (adaptive average pooling)."""
    return F.adaptive_avg_pool2d(masks, cells)


def measured(masks: Tensor, where: Tensor | None) -> Tensor:
    """Return ``[N, C]``: the share of pixels with each concept, in all of each image or in some cells.

    Parameters
    ----------
    masks
        ``[N, C, H, W]``, also soft.
    where
        Bool ``[N, h, w]``, at least one cell of each image. None: all of the image.
    """
    if where is None:
        return masks.mean((2, 3))
    weight = where[:, None].to(masks)
    return (at_cells(masks, (where.shape[1], where.shape[2])) * weight).sum((2, 3)) / weight.sum((2, 3))


def maps(seen: Mapping[str, Tensor], layer: str, n: int, call: int | None) -> Tensor:
    """Return a layer's ``[N, U, h, w]``, or refuse a layer that has not one row per sample."""
    activation = ran(seen, layer, n, call)
    return activation if activation.ndim == 4 else activation[:, :, None, None]


def of_one(model: Any, layer: str, runtime: Runtime, first: int = FIRST, call: int | None = None) -> Tensor:
    """Return what a layer returns for one sample, ``[1, U, h, w]``."""
    with torch.no_grad(), units.record(model, layer, detach=True, call=call) as kept:
        model.sample(1, runtime.seed, start=first)
    return maps(kept, layer, 1, call)


def given(
    model: Any,
    segmenter: Segmenter,
    layers: Sequence[str],
    runtime: Runtime,
    *,
    samples: int,
    first: int = FIRST,
    call: int | None = None,
    k: Level = "mean",
    advance: Callable[..., None] = lambda n: None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return each unit's activation k where each concept is, and how much of each concept there is.

    With m_c(p) the share of a cell's pixels that show c, the ``mean`` is k_(u|c) = Σ r_u(p) m_c(p) / Σ m_c(p), over the
    cells p of all samples: the mean activation at a random pixel of the concept. The ``peak`` is the mean, over the
    samples that show c, of the largest r_u(p) in the cells of which half shows c, or in a sample that has no such cell
    those that show most of it.

    Parameters
    ----------
    model
        A generator that can sample.
    segmenter
        Says where concepts are.
    layers
        Names.
    runtime
        Seed, batch size.
    samples, first
        How many, and the number of the first.
    call
        Which call of a layer r is of, where it runs several times for an image. None: the last.
    k
        ``mean`` or ``peak``.
    advance
        Is called with the size of each batch.

    Returns
    -------
    tuple
        ``[U, C]`` by layer, float64, NaN for a concept that was not seen; and ``[C]``, the mean share of pixels.
    """
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    shares = torch.zeros(len(segmenter.concepts), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, samples, runtime.batch_size):
            n = min(runtime.batch_size, samples - start)
            with units.record(model, layers, detach=True, call=call) as kept:
                drawn = model.sample(n, runtime.seed, start=first + start)
            masks = seen(segmenter, drawn, runtime)
            shares += measured(masks, None).sum(0).cpu()
            for layer in layers:
                r = maps(kept, layer, n, call).double()
                part = at_cells(masks, (r.shape[2], r.shape[3])).to(r.device)
                if k == "mean":
                    found, weight = torch.einsum("nuhw,nchw->uc", r, part), part.sum((0, 2, 3))
                else:
                    found, weight = _peaks(r, part)
                found, weight = found.cpu(), weight.cpu()
                sums[layer] = sums[layer] + found if layer in sums else found
                weights[layer] = weights[layer] + weight if layer in weights else weight
            advance(n)
    return {layer: sums[layer] / weights[layer] for layer in layers}, shares / samples


def _peaks(r: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over samples of each unit's peak on each concept, ``[U, C]``, and how many show it, ``[C]``."""
    there = part.amax((2, 3), keepdim=True)
    hidden = (part < there.clamp(max=SHOWN)) | (there == 0)
    columns = [r.masked_fill(hidden[:, c : c + 1], -torch.inf).amax((2, 3)) for c in range(part.shape[1])]
    peaks = torch.stack(columns, 2)
    shown = there[:, :, 0, 0] > 0
    return peaks.masked_fill(~shown[:, None], 0).sum(0), shown.double().sum(0)


class Paired:
    """Samples of a generator that are made again and again, each time with other units of one layer edited.

    Parameters
    ----------
    model
        A generator that can sample.
    segmenter
        Says where concepts are.
    layer
        Whose units are edited.
    locations
        Where: in ``all`` cells; in one ``cell`` of each sample, drawn uniformly; where the unedited sample shows the
        ``concept`` (samples that do not show it are left out); or in a box. It is there that concepts are looked for.
    concept
        Index of that concept.
    runtime
        Seed, batch size.
    samples, first
        How many, and the number of the first.
    call
        Which call of the layer is edited, where it runs several times for an image. None: each.
    journal
        Keeps what `shares` finds. None: nothing is kept.

    Raises
    ------
    InputError
        If fewer than two samples show the concept that gives the locations, or no cell lies in the box.
    """

    def __init__(
        self,
        model: Any,
        segmenter: Segmenter,
        layer: str,
        locations: Locations,
        concept: int,
        runtime: Runtime,
        *,
        samples: int,
        first: int = FIRST,
        call: int | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.model, self.segmenter, self.layer, self.runtime = model, segmenter, layer, runtime
        self.samples, self.first, self.call, self.journal = samples, first, call, journal
        one = of_one(model, layer, runtime, first, call)
        self.units, self.cells = one.shape[1], (one.shape[2], one.shape[3])
        self.box = None if isinstance(locations, str) else box(locations, self.cells)
        self.where = self._places(locations, concept)
        self.kept = torch.arange(samples) if self.where is None else self.where.flatten(1).any(1).nonzero()[:, 0]
        if len(self.kept) < 2:
            name = segmenter.concepts[concept]
            raise InputError(
                f"{len(self.kept)} of {samples} samples show {name!r} in a cell of layer {layer!r}, at whose places "
                f"units are to be edited; take more samples, or other locations"
            )

    def _places(self, locations: Locations, concept: int) -> Tensor | None:
        """Return bool ``[samples, h, w]``; None: everywhere."""
        if locations == "all":
            return None
        if self.box is not None:
            return self.box.expand(self.samples, -1, -1)
        if locations == "cell":
            rows = range(self.first, self.first + self.samples)
            chosen = draws.integers(self.runtime.seed, rows, self.cells[0] * self.cells[1], stream="intervened cell")
            return F.one_hot(chosen, self.cells[0] * self.cells[1]).bool().view(-1, *self.cells)
        parts = []
        for start, n in self.batches():
            masks = seen(self.segmenter, self._draw(start, n), self.runtime)
            parts.append(at_cells(masks[:, concept : concept + 1], self.cells)[:, 0].cpu() >= SHOWN)
        return torch.cat(parts)

    def batches(self) -> Iterator[tuple[int, int]]:
        """Yield the first row and the size of each batch."""
        for start in range(0, self.samples, self.runtime.batch_size):
            yield start, min(self.runtime.batch_size, self.samples - start)

    def _draw(self, start: int, n: int) -> Samples:
        with torch.no_grad():
            drawn: Samples = self.model.sample(n, self.runtime.seed, start=self.first + start)
        return drawn

    @contextlib.contextmanager
    def edited(
        self, chosen: Sequence[int], factor: float | Tensor, value: Tensor | None, rows: Sequence[int] | slice
    ) -> Iterator[None]:
        """Edit units in the block, at the locations of these rows."""
        if not len(chosen):
            yield
            return
        where = None if self.where is None else self.where[rows]
        edit = partial(units.edit, self.model, self.layer, list(chosen), factor=factor, value=value, where=where)
        with in_call(self.model, self.layer, self.call, edit):
            yield

    def images(
        self, rows: Sequence[int], chosen: Sequence[int] = (), factor: float = 0.0, value: Tensor | None = None
    ) -> Tensor:
        """Return the images of some rows with units edited, ``[len(rows), C, H, W]``, on the CPU."""
        found = []
        for row in rows:
            with self.edited(chosen, factor, value, [row]):
                found.append(self._draw(row, 1).images.cpu())
        return torch.cat(found)

    def shares(self, chosen: Sequence[int] = (), factor: float = 0.0, value: Tensor | None = None) -> Tensor:
        """Return the share of pixels, at the locations, that show each concept once units are edited.

        Parameters
        ----------
        chosen
            E units.
        factor, value
            As in `genxai_core.units.edit`: ``value`` is ``[E]``, or None for an ablation.

        Returns
        -------
        Tensor
            ``[len(kept), C]`` float64, on the CPU.
        """
        find = partial(self._shares, chosen, factor, value)
        return find() if self.journal is None else self.journal.take(find)

    def _shares(self, chosen: Sequence[int], factor: float, value: Tensor | None) -> Tensor:
        parts = []
        for start, n in self.batches():
            with self.edited(chosen, factor, value, slice(start, start + n)):
                drawn = self._draw(start, n)
            masks = seen(self.segmenter, drawn, self.runtime)
            if self.where is None:
                parts.append(measured(masks, None).cpu())
            else:
                where = self.where[start : start + n]
                rows = where.flatten(1).any(1)
                parts.append(measured(masks.cpu()[rows], where[rows]))
        return torch.cat(parts)


def box(corners: Sequence[float], cells: tuple[int, int]) -> Tensor:
    """Return bool ``[h, w]``: the cells whose centres lie in a box (top, left, bottom, right) in shares of the picture.

    Raises
    ------
    InputError
        If there is none.
    """
    top, left, bottom, right = corners
    down, across = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in cells)
    inside = ((down >= top) & (down < bottom))[:, None] & ((across >= left) & (across < right))
    if not bool(inside.any()):
        raise InputError(f"no cell of a layer of {cells[0]}×{cells[1]} has its centre in the box {tuple(corners)}")
    return inside


def interval(differences: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over samples and its 95 % interval.

    Parameters
    ----------
    differences
        ``[n, …]``, one row per sample, at least two. Rows are independent; what is paired was subtracted before.

    Returns
    -------
    tuple
        ``[…]`` and ``[…, 2]``: mean ± 1.96 s / √n, s² = Σ(d − mean)² / (n − 1).
    """
    mean = differences.mean(0)
    half = 1.96 * differences.std(0) / len(differences) ** 0.5
    return mean, torch.stack([mean - half, mean + half], -1)
