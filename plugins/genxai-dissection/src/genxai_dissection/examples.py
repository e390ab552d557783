"""The images that excite a unit most, with the region in which it is active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .partial import Partial


def chosen(scores: Mapping[str, Tensor], most: int) -> dict[str, Tensor]:
    """Return the units to show, ``[S]`` by layer: of each concept those best for it, the highest IoU first.

    Parameters
    ----------
    scores
        ``[U, C]`` by layer.
    most
        How many units per concept and layer, of those whose score is above 0.
    """
    found = {}
    for layer, values in scores.items():
        best, concept = values.max(1)
        units = []
        for c in range(values.shape[1]):
            order = torch.where(concept == c, best, -1).argsort(descending=True, stable=True)[:most]
            units += [u for u in order.tolist() if int(concept[u]) == c and best[u] > 0]
        found[layer] = torch.tensor(sorted(units), dtype=torch.long)
    return found


def pictures(work: Any, partial: Partial, shown: Mapping[str, Tensor]) -> dict[str, Any]:
    """Draw again the samples that excite these units most, and mark where each unit is active in them.

    Parameters
    ----------
    work
        Draws samples with the layers' activations: ``batch(first, n)``.
    partial
        Knows each unit's strongest samples.
    shown
        ``[S]`` units by layer.

    Returns
    -------
    dict
        The fields ``images``, ``shown``, ``examples`` and ``regions`` of a `Dissection`.
    """
    shown = {layer: units for layer, units in shown.items() if len(units)}
    wanted = {layer: partial.strongest[layer][units] for layer, units in shown.items()}
    if not wanted:
        return {}
    found = torch.cat([w.flatten() for w in wanted.values()])
    indices = torch.tensor(sorted(set(found.tolist())))
    row_of = {int(index): row for row, index in enumerate(indices)}
    rows = {layer: torch.tensor([[row_of[int(i)] for i in unit] for unit in w]) for layer, w in wanted.items()}
    images: list[Tensor] = []
    regions: dict[str, Tensor] = {}
    for row, index in enumerate(indices.tolist()):
        samples, seen = work.batch(work.method.threshold_samples + index, 1)
        images.append(samples.images.cpu())
        for layer, units in shown.items():
            slots = (rows[layer] == row).nonzero()
            if not len(slots):
                continue
            maps = seen[layer].float().cpu()
            maps = maps if maps.ndim == 4 else maps[:, :, None, None]
            of = units[slots[:, 0]]
            enlarged = F.interpolate(maps[:, of], size=images[0].shape[2:], mode="bilinear", align_corners=False)[0]
            place = regions.setdefault(layer, torch.zeros(*rows[layer].shape, *enlarged.shape[1:], dtype=torch.bool))
            place[slots[:, 0], slots[:, 1]] = enlarged > partial.thresholds[layer][of, None, None]
    return {"images": torch.cat(images), "shown": shown, "examples": rows, "regions": regions}
