"""What metrics of images share: gather what a model says of each image, to compute figures from all of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Metric, Runtime, Samples, Spec, models
from genxai_core.errors import InputError
from genxai_core.guard import guard


class ImageMetric(Metric):
    """Gathers one row of numbers per image. A subclass says what is read (`_read`), and computes from `_gathered`.

    Rows are kept in float64 on the CPU, so that the figures depend on neither the number of updates nor, beyond
    rounding, the order of the images. The extractor runs in eval mode, without gradients, on the device that it is on
    (one that was given as a Spec: on the runtime's), and is left as it was found.

    Parameters
    ----------
    extractor
        A model, or the Spec of one.
    by
        The metric's registry name, for messages.
    """

    reads: ClassVar[str]
    """What the rows are, for messages."""

    def __init__(self, extractor: Spec | nn.Module, by: str) -> None:
        self._built = isinstance(extractor, Spec)
        self.extractor: Any = extractor.build() if isinstance(extractor, Spec) else extractor
        self.by = by
        self.reset()

    @abstractmethod
    def _read(self, images: Tensor) -> Any:
        """Return one row per image ``[N, F]``, of which shape and finiteness are checked afterwards."""

    def _take(self, **images: Samples | Dataset) -> None:
        """Take in images by their role (a name of ``needs``)."""
        for role, some in images.items():
            self._check(role, some)
        new = {role: self._rows(some) for role, some in images.items()}  # all of them, before any is kept
        for role, rows in new.items():
            self._kept[role].extend(rows)

    def _check(self, role: str, images: Any) -> None:
        if not isinstance(images, Samples | Dataset):
            raise InputError(f"{self.by}: {role} must be Samples or a Dataset, not {type(images).__name__}")
        wanted = getattr(self.extractor, "value_range", None)
        if wanted and tuple(images.value_range) != tuple(wanted):
            raise InputError(
                f"{self.by}: {role} images are in {tuple(images.value_range)}, the extractor expects {tuple(wanted)}; "
                f"use samples.rescale({tuple(wanted)})"
            )
        shape = getattr(self.extractor, "image_shape", None)
        if shape and tuple(images.image_shape) != tuple(shape):
            raise InputError(
                f"{self.by}: {role} images are {tuple(images.image_shape)}, the extractor takes {tuple(shape)}; "
                f"resize them, or use an extractor for their size"
            )

    def _rows(self, images: Samples | Dataset) -> list[Tensor]:
        runtime = self.runtime or Runtime()
        module = [self.extractor] if isinstance(self.extractor, nn.Module) else []
        if self._built:
            self.extractor.to(runtime.torch_device)
        first = next((t for m in module for t in (*m.parameters(), *m.buffers())), None)
        device = runtime.torch_device if first is None else first.device
        found = []
        with guard(*module), torch.no_grad():
            for start in range(0, len(images), runtime.batch_size):
                batch = images[start : start + runtime.batch_size].images.to(device)
                with runtime.autocast():
                    found.append(self._checked(self._read(batch), len(batch)))
        return found

    def _checked(self, rows: Any, n: int) -> Tensor:
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != n:
            shape = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InputError(f"{self.by}: the extractor's {self.reads} are {shape}, not [{n}, F]; flatten them")
        if not bool(torch.isfinite(rows).all()):
            raise InputError(f"{self.by}: {self.reads} hold NaN or infinity; check the images and the extractor")
        return rows.to("cpu", torch.float64)

    def _gathered(self, least: int) -> dict[str, Tensor]:
        """Return the rows ``[N, F]`` of every role, at least so many of each."""
        counts = {role: sum(map(len, self._kept[role])) for role in sorted(self.needs, reverse=True)}
        if min(counts.values()) < least:
            wanted = " and ".join(f"{least} {role}" for role in counts)
            seen = " and ".join(str(count) for count in counts.values())
            raise InputError(f"{self.by} needs at least {wanted} images, and has seen {seen}")
        return {role: torch.cat(parts) for role, parts in self._kept.items()}

    def merge(self, other: Self) -> None:
        """Take in what another instance has seen.

        Raises
        ------
        InputError
            If it is another metric, or its rows have another width.
        """
        if type(other) is not type(self):
            raise InputError(f"{self.by}: cannot merge with a {type(other).__name__}; merge metrics of one kind")
        widths = {part.shape[1] for m in (self, other) for parts in m._kept.values() for part in parts}
        if len(widths) > 1:
            raise InputError(f"{self.by}: cannot merge {self.reads} of other width: {sorted(widths)}")
        for role, parts in other._kept.items():
            self._kept[role].extend(parts)

    def reset(self) -> None:
        """Forget all images."""
        self._kept: dict[str, list[Tensor]] = {role: [] for role in self.needs}

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the figures of all images so far."""


class FeatureMetric(ImageMetric):
    """Compares real and generated images by their features. A subclass computes figures from `_gathered`.

    Raises
    ------
    MissingCapability
        If the extractor has no features.
    """

    needs = frozenset({"real", "generated"})
    reads = "features"

    def __init__(self, extractor: Spec | nn.Module, by: str) -> None:
        super().__init__(extractor, by)
        models.require(self.extractor, models.HasFeatures, by=by)

    def update(self, *, real: Samples | Dataset, generated: Samples | Dataset) -> None:  # type: ignore[override]
        """Take in more real and generated images; either may be empty.

        Raises
        ------
        InputError
            If the shapes or value ranges of the images differ from each other or from what the extractor expects, or
            if features are malformed or not finite.
        """
        shapes = [images.image_shape for images in (real, generated) if isinstance(images, Samples | Dataset)]
        if len(set(map(tuple, shapes))) > 1:
            raise InputError(
                f"{self.by}: real images are {shapes[0]}, generated ones {shapes[1]}; bring them to one size"
            )
        self._take(real=real, generated=generated)

    def _read(self, images: Tensor) -> Any:
        return self.extractor.features(images)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances ``[len(a), len(b)]`` of rows.

    By differences, not by products, which would round the distance of two equal rows to something above 0.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
