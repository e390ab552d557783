"""What `Segmenter.segment` does around an author's `_segment`: exact masks first, then checks, guard and batches."""

from __future__ import annotations

import torch
from torch import Tensor

from . import saving
from .errors import ExplainerError, InputError
from .guard import guard
from .interfaces import Segmenter, _modules
from .runtime import Runtime
from .samples import Samples


def run(segmenter: Segmenter, samples: Samples, runtime: Runtime | None) -> Tensor:
    """Carry out `Segmenter.segment`; see there."""
    name = saving.name_of(segmenter)
    if not isinstance(samples, Samples):
        raise InputError(
            f"{name} takes Samples, not {type(samples).__name__}; wrap images as Samples(images, value_range=…)"
        )
    if len(samples) == 0:
        raise InputError(f"{name}: the samples are empty")
    if samples.masks is not None and set(segmenter.concepts) <= set(samples.concepts):
        return samples.masks[:, [samples.concepts.index(c) for c in segmenter.concepts]]
    if not bool(torch.isfinite(samples.images).all()):
        raise InputError(f"{name}: images hold NaN or infinity; remove those samples")
    runtime = runtime or Runtime()
    size = runtime.batch_size
    with guard(*_modules(segmenter)), torch.no_grad():
        runtime.seed_global()
        parts = [_checked(segmenter, samples[i : i + size], name) for i in range(0, len(samples), size)]
    return torch.cat(parts)


def _checked(segmenter: Segmenter, batch: Samples, name: str) -> Tensor:
    masks = segmenter._segment(batch)
    wanted = [len(batch), len(segmenter.concepts), *batch.images.shape[2:]]
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool or list(masks.shape) != wanted:
        found = f"{masks.dtype} {list(masks.shape)}" if isinstance(masks, Tensor) else type(masks).__name__
        raise ExplainerError(f"{name} returned {found}; _segment returns torch.bool {wanted}: [N, concepts, H, W]")
    return masks.to(batch.images.device)
