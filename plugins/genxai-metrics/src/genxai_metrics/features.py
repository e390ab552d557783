"""What metrics on features share: gather the features of real and of generated images."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Metric, Runtime, Samples, models
from genxai_core.errors import InputError
from genxai_core.guard import guard

if TYPE_CHECKING:
    from genxai_core.models import HasFeatures


class FeatureMetric(Metric):
    """Compares two sets of images by their features. A subclass computes figures from `_gathered`.

    Features are kept in float64 on the CPU, so that the figures depend on neither the number of updates nor, beyond
    rounding, the order of the images. The extractor runs on the device that it is on, in eval mode, without gradients,
    and is left as it was found.

    Parameters
    ----------
    extractor
        A model with ``features(images) -> [N, F]``.
    by
        The metric's registry name, for messages.

    Raises
    ------
    MissingCapability
        If the extractor has no features.
    """

    needs = frozenset({"real", "generated"})

    def __init__(self, extractor: HasFeatures, by: str) -> None:
        self.extractor = models.require(extractor, models.HasFeatures, by=by)
        self.by = by
        self.reset()

    def update(self, *, real: Samples | Dataset, generated: Samples | Dataset) -> None:  # type: ignore[override]
        """Take in more real and generated images; either may be empty.

        Raises
        ------
        InputError
            If the shapes or value ranges of the images differ from each other or from what the extractor expects, or
            if features are malformed or not finite.
        """
        for name, images in (("real", real), ("generated", generated)):
            self._check(name, images)
        if real.image_shape != generated.image_shape:
            raise InputError(
                f"{self.by}: real images are {real.image_shape}, generated ones {generated.image_shape}; "
                f"bring them to one size"
            )
        new = self._features(real), self._features(generated)  # both, before either is kept
        self._real.extend(new[0])
        self._generated.extend(new[1])

    def _check(self, name: str, images: Any) -> None:
        if not isinstance(images, Samples | Dataset):
            raise InputError(f"{self.by}: {name} must be Samples or a Dataset, not {type(images).__name__}")
        wanted = getattr(self.extractor, "value_range", None)
        if wanted and tuple(images.value_range) != tuple(wanted):
            raise InputError(
                f"{self.by}: {name} images are in {tuple(images.value_range)}, the extractor expects {tuple(wanted)}; "
                f"use samples.rescale({tuple(wanted)})"
            )
        shape = getattr(self.extractor, "image_shape", None)
        if shape and tuple(images.image_shape) != tuple(shape):
            raise InputError(
                f"{self.by}: {name} images are {tuple(images.image_shape)}, the extractor takes {tuple(shape)}; "
                f"resize them, or use an extractor for their size"
            )

    def _features(self, images: Samples | Dataset) -> list[Tensor]:
        runtime = self.runtime or Runtime()
        module = [self.extractor] if isinstance(self.extractor, nn.Module) else []
        first = next((t for m in module for t in (*m.parameters(), *m.buffers())), None)
        device = runtime.torch_device if first is None else first.device
        found = []
        with guard(*module), torch.no_grad():
            for start in range(0, len(images), runtime.batch_size):
                batch = images[start : start + runtime.batch_size].images.to(device)
                with runtime.autocast():
                    found.append(self._checked(self.extractor.features(batch), len(batch)))
        return found

    def _checked(self, features: Any, n: int) -> Tensor:
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != n:
            shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(f"{self.by}: the extractor's features are {shape}, not [{n}, F]; flatten them")
        if not bool(torch.isfinite(features).all()):
            raise InputError(f"{self.by}: features hold NaN or infinity; check the images and the extractor")
        return features.to("cpu", torch.float64)

    def _gathered(self, least: int) -> tuple[Tensor, Tensor]:
        """Return the features of all real and of all generated images, each ``[N, F]``, at least so many of both."""
        counts = [sum(map(len, parts)) for parts in (self._real, self._generated)]
        if min(counts) < least:
            raise InputError(
                f"{self.by} needs at least {least} real and {least} generated images, and has seen "
                f"{counts[0]} and {counts[1]}"
            )
        return torch.cat(self._real), torch.cat(self._generated)

    def merge(self, other: Self) -> None:
        """Take in what another instance has seen.

        Raises
        ------
        InputError
            If it is another metric, or its features have another width.
        """
        widths = {part.shape[1] for m in (self, other) for part in (*m._real, *m._generated)}
        if type(other) is not type(self) or len(widths) > 1:
            raise InputError(f"{self.by}: cannot merge with {other.by} on features of other width: {sorted(widths)}")
        self._real.extend(other._real)
        self._generated.extend(other._generated)

    def reset(self) -> None:
        """Forget all images."""
        self._real: list[Tensor] = []
        self._generated: list[Tensor] = []

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the figures of all images so far."""
