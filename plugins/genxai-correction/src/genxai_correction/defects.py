"""How well each unit's active region agrees with where broken images are broken, sample by sample."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genxai_core import Runtime, UnitEdits, units
from genxai_core.errors import InputError
from genxai_core.units.active import Concepts, histogram
from genxai_core.units.upsampling import finite, spatial

BITS = 7
"""Of the eight bits that `histogram` tells apart, those that say which sample a pixel is of; the last one says mask."""

LEVEL = 1.96
"""Standard errors on either side of a mean in its 95 % interval."""


@contextlib.contextmanager
def corrected(model: Any, edits: UnitEdits | None) -> Iterator[None]:
    """Apply edits inside the block, also those under a condition: what runs here counts as meeting it."""
    if edits is None or not len(edits):
        yield
        return
    with units.applied(model, dataclasses.replace(edits, condition=None)):
        yield


def forwards(
    model: Any,
    latents: Tensor,
    layers: Sequence[str],
    runtime: Runtime,
    edits: UnitEdits | None = None,
    said: str = "",
) -> Iterator[tuple[slice, Tensor, dict[str, Tensor]]]:
    """Run a generator over latents ``[N, …]``, in batches of ``runtime.batch_size``; ``said`` names the progress.

    Yields
    ------
    tuple
        The rows; their images; and by layer their activations ``[n, U, h, w]``, after edits, one row per sample.

    Raises
    ------
    InputError
        If a layer is unknown, does not run, returns other than one row per sample, or NaN or infinity.
    """
    like = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), latents)
    shown = runtime if said else runtime.with_(quiet=True)  # bars of callers cannot hold another
    with shown.progress(said, len(latents)) as advance:
        for start in range(0, len(latents), runtime.batch_size):
            rows = slice(start, min(start + runtime.batch_size, len(latents)))
            # recorded inside of the edits, so that an edited layer is seen as it goes on
            with torch.no_grad(), corrected(model, edits), units.record(model, layers, detach=True) as seen:
                images = model(latents[rows].to(like))
            maps = {}
            for layer in layers:
                if len(seen[layer]) != rows.stop - start:
                    raise InputError(
                        f"layer {layer!r} returned {len(seen[layer])} rows for {rows.stop - start} samples; "
                        f"name another"
                    )
                if not finite(seen[layer]):
                    raise InputError(
                        f"layer {layer!r} returns NaN or infinity; check the model's weights and its inputs"
                    )
                maps[layer] = spatial(seen[layer])
            yield rows, images, maps
            advance(rows.stop - start)


def artifact_thresholds(
    model: Any,
    latents: Tensor,
    layers: Sequence[str],
    runtime: Runtime,
    quantile: float = 0.995,
    size: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Return each unit's threshold ``[U]`` by layer: an exact quantile of its values, as in dissection.

    Parameters
    ----------
    model
        A generator with latents, unedited.
    latents
        ``[N, …]``: the samples that thresholds come from, broken ones and others as they fall.
    layers
        Names.
    runtime
        Its batch size bounds memory and changes no bit.
    quantile
        Share of a unit's values, over all samples and pixels, below its threshold.
    size
        ``(H, W)`` to which maps are upsampled first (bilinear, ``align_corners=False``). None: the images'.

    Raises
    ------
    InputError
        As `forwards`, or if there are too few samples for the quantile.
    """
    found: units.Thresholds | None = None
    for _, images, maps in forwards(model, latents, layers, runtime):
        found = found or units.Thresholds(layers, quantile, size or (int(images.shape[2]), int(images.shape[3])))
        found.see(maps)
    if found is None:
        raise InputError("there are no latents to take thresholds from")
    return found.values()


def sample_ious(
    model: Any,
    latents: Tensor,
    masks: Tensor,
    thresholds: Mapping[str, Tensor],
    runtime: Runtime,
    edits: UnitEdits | None = None,
) -> dict[str, Tensor]:
    """Return the IoU of each unit with each sample's mask, ``[N, U]`` float64 by layer.

    With A_(n,u) the pixels in which unit u's activation in sample n, upsampled (bilinear, ``align_corners=False``),
    exceeds its threshold, and S_n the sample's mask,

        IoU_(n,u) = |A_(n,u) ∧ S_n| / |A_(n,u) ∨ S_n|,

    and 0 where both are empty. Counts are exact; a pixel is active bit for bit as if all were upsampled. Only pixels
    that can exceed their threshold are computed. One forward for each sample.

    Parameters
    ----------
    model
        A generator with latents.
    latents
        ``[N, …]``: the broken samples.
    masks
        Bool ``[N, 1, H, W]``: where they are broken.
    thresholds
        ``[U]`` by layer: the layers that are scored.
    runtime
        Its batch size bounds memory and changes no bit, if the model's rows do not.
    edits
        Applied first, so that later layers are scored on corrected inputs. A condition counts as met.

    Raises
    ------
    InputError
        As `forwards`, or if masks or thresholds do not fit.
    """
    if masks.dtype != torch.bool or masks.ndim != 4 or masks.shape[1] != 1 or len(masks) != len(latents):
        raise InputError(
            f"masks are {masks.dtype} {list(masks.shape)} for {len(latents)} latents; give bool [N, 1, H, W]"
        )
    if not len(latents):
        raise InputError("there are no broken samples to score units by")
    parts = [
        ious_of(maps, masks[rows], thresholds)
        for rows, _, maps in forwards(model, latents, tuple(thresholds), runtime, edits)
    ]
    return {layer: torch.cat([part[layer] for part in parts]) for layer in thresholds}


def ious_of(maps: Mapping[str, Tensor], masks: Tensor, thresholds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``[N, U]`` float64 by layer, as `sample_ious`, of activations ``[N, U, h, w]`` that are at hand."""
    area = masks.flatten(1).sum(1).cpu()[:, None]
    return {
        layer: both.double() / (active + area - both).clamp(min=1)
        for layer, (both, active) in counts_of(maps, masks, thresholds).items()
    }


def counts_of(
    maps: Mapping[str, Tensor], masks: Tensor, thresholds: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return in how many pixels each unit is active in each sample: in its mask, and altogether.

    Parameters
    ----------
    maps
        ``[N, U, h, w]`` by layer.
    masks
        Bool ``[N, 1, H, W]``; activations are upsampled to ``[H, W]``.
    thresholds
        ``[U]`` by layer.

    Returns
    -------
    dict
        ``[N, U]`` and ``[N, U]`` int64, on the CPU, by layer.

    Raises
    ------
    InputError
        If a layer has not as many units as thresholds.
    """
    found: dict[str, list[Tensor]] = {layer: [] for layer in thresholds}
    device = next((maps[layer].device for layer in thresholds), masks.device)
    for start in range(0, len(masks), 1 << BITS):
        some = masks[start : start + (1 << BITS)].to(device)
        concepts = _numbered(some)
        for layer, level in thresholds.items():
            part = maps[layer][start : start + len(some)]
            if len(level) != part.shape[1]:
                raise InputError(f"layer {layer!r} has {part.shape[1]} units, its thresholds are {len(level)}")
            counts = histogram(part, level, concepts).cpu()[0].view(-1, 2, 1 << BITS)[..., : len(some)]
            found[layer].append(torch.stack([counts[:, 1], counts.sum(1)]).transpose(1, 2))  # [2, n, U]
    joined = {layer: torch.cat(parts, 1) for layer, parts in found.items()}
    return {layer: (both[0], both[1]) for layer, both in joined.items()}


def _numbered(masks: Tensor) -> Concepts:
    """Return masks whose byte of a pixel says which sample it is of, and whether it is in the mask: 128·mask + n.

    So that one count over all samples, as a dissection's, is one of each sample.
    """
    number = torch.arange(len(masks), device=masks.device)
    planes = [(number >> bit & 1).bool()[:, None, None, None].expand_as(masks) for bit in range(BITS)]
    return Concepts(torch.cat([*planes, masks], 1))


def mean_interval(values: Tensor, least: float, most: float) -> tuple[Tensor, Tensor]:
    """Return the mean over samples and its 95 % interval: mean ± 1.96 s / √N, kept in [least, most].

    Parameters
    ----------
    values
        ``[N, U]``, N at least 1.
    least, most
        What a value can be. Of one sample the interval is all of that: nothing is known.

    Returns
    -------
    tuple
        ``[U]`` and ``[U, 2]``, float64.
    """
    values = values.double()
    mean = values.mean(0)
    if len(values) < 2:
        return mean, torch.tensor([least, most], dtype=torch.double).expand(len(mean), 2).clone()
    half = LEVEL * values.std(0) / len(values) ** 0.5
    return mean, torch.stack([mean - half, mean + half], 1).clamp(least, most)


def defective_scores(ious: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return DS_u, the mean over the N broken samples of `sample_ious`, and its 95 % interval, by layer.

    Tousi et al., "Automatic Correction of Internal Units in Generative Neural Networks", CVPR 2021.

    Returns
    -------
    tuple
        ``[U]`` in [0, 1] and ``[U, 2]``, float64, by layer.
    """
    found = {layer: mean_interval(values, 0.0, 1.0) for layer, values in ious.items()}
    return {layer: mean for layer, (mean, _) in found.items()}, {layer: ends for layer, (_, ends) in found.items()}
