"""What a proof reads of images: their features, their quality beside real ones, and how much they changed."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import Runtime, Samples, Spec, create, models
from genxai_core.adapt.modules import rescale
from genxai_core.errors import InputError

from .proof_intervals import Figure

NAME = "explainer/correction-proof"

QUALITY = {
    "metric/kid": ("kid",),
    "metric/fid": ("fid",),
    "metric/precision-recall": ("precision", "recall", "density", "coverage"),
}
"""The figures that are taken from each metric, each with its ``_low`` and ``_high``."""


@torch.no_grad()
def drawn(model: Any, n: int, seed: int, start: int) -> Samples:
    """Return n samples in float32.

    Raises
    ------
    InputError
        If the model returns another number, or images that are not finite.
    """
    made = model.sample(n, seed, start=start)
    if not isinstance(made, Samples) or len(made) != n:
        found = f"{len(made)} samples" if isinstance(made, Samples) else type(made).__name__
        raise InputError(f"{NAME}: {type(model).__name__}.sample({n}, …) returned {found}; it must return {n} samples")
    if not math.isfinite(float(made.images.sum(dtype=torch.float32))) and not bool(made.images.isfinite().all()):
        raise InputError(f"{NAME}: {type(model).__name__} draws images with NaN or infinity, edited or not")
    return dataclasses.replace(made, images=made.images.float())


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two models are one, or have the same `fingerprint`; if they hold nothing, whether of one class."""
    first, second = fingerprint(one), fingerprint(other)
    return one is other or (first == second and (bool(first) or type(one) is type(other)))


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers, by which it is known again; empty if it holds none.

    They count in their order, whatever their names, and floating-point ones in single precision.
    """
    digest = hashlib.sha256()
    held = [*model.parameters(), *model.buffers()]
    for value in held:
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        digest.update(f"{tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if held else ""


class Extractor:
    """Features of images, ``[N, F]``, float32 on the CPU.

    Raises
    ------
    MissingCapability
        If the model has no features.
    """

    def __init__(self, model: nn.Module | Spec) -> None:
        self.model: Any = model.build() if isinstance(model, Spec) else model
        models.require(self.model, models.HasFeatures, by=NAME)
        if isinstance(self.model, nn.Module):
            self.model.eval()

    @torch.no_grad()
    def __call__(self, images: Tensor, value_range: tuple[float, float]) -> Tensor:
        """Return the features of images in a value range, which is brought to the model's.

        Raises
        ------
        InputError
            If they are not ``[N, F]``, or not finite, or the model takes images of another size.
        """
        shape = getattr(self.model, "image_shape", None)
        if shape and tuple(shape) != tuple(images.shape[1:]):
            raise InputError(
                f"{NAME}: features takes images {tuple(shape)}, not {tuple(images.shape[1:])}; use one for their size"
            )
        held = (*self.model.parameters(), *self.model.buffers()) if isinstance(self.model, nn.Module) else ()
        like = next((t for t in held if t.is_floating_point()), images)
        own = tuple(getattr(self.model, "value_range", None) or value_range)
        rows = self.model.features(rescale(images, value_range, (own[0], own[1])).to(like))
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(images):
            found = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InputError(f"{NAME}: features are {found}, not [{len(images)}, F]; flatten them")
        if not bool(rows.isfinite().all()):
            raise InputError(f"{NAME}: features hold NaN or infinity; check the model's weights")
        return rows.float().cpu()


class _Read(nn.Module):
    """Gives features that were computed already, as images ``[N, F, 1, 1]``, to a metric that asks for them."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def quality(
    features: Mapping[str, Sequence[Tensor]], real: Tensor, missing: dict[str, str], runtime: Runtime
) -> dict[str, list[Figure]]:
    """Return the figures of `QUALITY` by their names, of every arm in turn; what cannot be had is put into ``missing``.

    Every image passed through the extractor once: the metrics are given its features.

    Parameters
    ----------
    features
        ``[n, F]`` in parts, by arm.
    real
        ``[m, F]``.
    """

    def as_images(rows: Tensor) -> Samples:
        return Samples(rows[:, :, None, None], value_range=(-1.0, 1.0))

    found: dict[str, list[Figure]] = {}
    joined = {arm: torch.cat(list(parts)) for arm, parts in features.items()}
    fewest = min(len(real), *map(len, joined.values()))
    for use, names in QUALITY.items():
        if use == "metric/fid" and fewest <= real.shape[1]:
            missing["fid"] = f"needs more than {real.shape[1]} images, as many as there are features, of each set"
            continue
        for rows in joined.values():
            told = create(use, extractor=_Read()).measure(
                real=as_images(real), generated=as_images(rows), runtime=runtime
            )
            for name in names:
                found.setdefault(name, []).append((told[name], told[f"{name}_low"], told[f"{name}_high"]))
    return found


def mean_outside(change: Tensor, inside: Tensor) -> Tensor:
    """Return the mean change of each image where its mask is not, ``[B′]``.

    Images of which the mask says nothing, since it is empty or covers all of them, are left out.

    Parameters
    ----------
    change
        ``[B, C, H, W]`` float64.
    inside
        Bool ``[B, 1, H, W]``.
    """
    tells = inside.flatten(1).any(1) & ~inside.flatten(1).all(1)
    outside = (~inside[tells]).double()
    total = (change[tells].mean(1, keepdim=True) * outside).sum((1, 2, 3))
    return total / outside.sum((1, 2, 3))
