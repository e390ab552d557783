"""The controls of a correction: the same edits of units that were drawn at random, or are the most active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genxai_core import UnitEdits, draws, units
from genxai_core.errors import InputError


def edited_units(edits: UnitEdits) -> dict[str, list[int]]:
    """Return the units that are edited, by layer, each once, in the order of their first edit."""
    return {layer: list(dict.fromkeys(edits.units[rows].tolist())) for layer, rows in edits.by_layer().items()}


def in_common(edits: UnitEdits, control: UnitEdits) -> int:
    """Return how many units both edit."""
    pairs = [set(zip(some.layers, some.units.tolist())) for some in (edits, control)]
    return len(pairs[0] & pairs[1])


def moved(edits: UnitEdits, chosen: Mapping[str, Sequence[int]]) -> UnitEdits:
    """Return the same edits (factors, values, places, condition) of other units.

    Parameters
    ----------
    edits
        Those of the correction.
    chosen
        By layer, as many units as it edits there: the i-th takes the place of its i-th one, in the order of
        `edited_units`.
    """
    places = {
        (layer, unit): int(chosen[layer][i])
        for layer, found in edited_units(edits).items()
        for i, unit in enumerate(found)
    }
    to = [places[layer, unit] for layer, unit in zip(edits.layers, edits.units.tolist())]
    return UnitEdits(
        edits.layers,
        torch.tensor(to, dtype=torch.long),
        edits.factors,
        edits.values,
        edits.locations,
        edits.condition,
    )


def random_units(edits: UnitEdits, widths: Mapping[str, int], seed: int, draw: int) -> UnitEdits:
    """Return the edits of units drawn at random from all of a layer's, those of the correction among them.

    Parameters
    ----------
    edits
        Those of the correction.
    widths
        Number of units by layer.
    seed, draw
        Address of the draw.
    """
    drawn = {layer: draws.permutation(seed, draw, widths[layer], stream=f"control {layer}") for layer in widths}
    return moved(edits, {layer: drawn[layer][: len(found)].tolist() for layer, found in edited_units(edits).items()})


def most_active(edits: UnitEdits, activity: Mapping[str, Tensor]) -> UnitEdits:
    """Return the edits of the units of each layer that are most active; equal ones in the order of their numbers.

    Parameters
    ----------
    edits
        Those of the correction.
    activity
        ``[U]`` by layer, as `mean_activity` finds it.
    """
    order = {layer: found.argsort(descending=True, stable=True).tolist() for layer, found in activity.items()}
    return moved(edits, {layer: order[layer][: len(found)] for layer, found in edited_units(edits).items()})


@torch.no_grad()
def mean_activity(
    model: Any, layers: Sequence[str], seed: int, start: int, samples: int, batch: int
) -> dict[str, Tensor]:
    """Return each unit's mean |activation| over samples and cells, ``[U]`` float64 by layer.

    Parameters
    ----------
    model
        A generator that can sample.
    layers
        Names.
    seed, start, samples
        Address of the samples.
    batch
        Samples made at a time.

    Raises
    ------
    InputError
        If a layer does not run, or returns something else than ``[N, U, h, w]`` or ``[N, U]``.
    """
    sums: dict[str, Tensor] = {}
    if not layers:
        return sums
    for first in range(0, samples, batch):
        n = min(batch, samples - first)
        with units.record(model, layers, detach=True) as kept:
            model.sample(n, seed, start=start + first)
        for layer in layers:
            size = kept[layer].abs().double().flatten(2).mean(2) if kept[layer].ndim > 2 else kept[layer].abs().double()
            part = size.mean(0).cpu() * (n / samples)
            sums[layer] = sums[layer] + part if layer in sums else part
    for layer, found in sums.items():
        if not bool(found.isfinite().all()):
            raise InputError(f"layer {layer!r} returns NaN or infinity; check the generator's weights")
    return sums
