"""What metrics of explanations share: one row of figures per image, so that nothing depends on batches or order."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from genxai_core import Attribution, Discriminator, Metric, Runtime, Samples
from genxai_core.errors import InputError, TargetError
from genxai_core.guard import guard


def with_errors(**directions: bool | None) -> Mapping[str, bool | None]:
    """Return ``higher_is_better`` for figures, each with its standard error, which has no direction."""
    return {key: d for name, higher in directions.items() for key, d in ((name, higher), (f"{name}_se", None))}


@dataclass(frozen=True)
class Batch:
    """Explanations of a few images, and what they are judged by, on the model's device.

    Parameters
    ----------
    maps
        ``[n, C, H, W]``, or ``[n, 1, H, W]`` where a pixel has one value for all its channels; float64.
    targets
        ``[n]`` class indices that were explained.
    images
        ``[n, C, H, W]`` what was explained; empty where the metric does not look at it.
    references
        ``[n, C, H, W]`` the baseline that the explanation was made with, where it says so.
    masks
        bool ``[n, K, H, W]``; empty where the metric takes none.
    model
        The explainee, in eval mode; None where the metric takes none.
    runtime
        ``batch_size`` bounds what passes through the model at once.
    """

    maps: Tensor
    targets: Tensor
    images: Tensor
    references: Tensor | None
    masks: Tensor
    model: Discriminator | None
    runtime: Runtime = field(default_factory=Runtime)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.maps)

    @property
    def plane(self) -> Tensor:
        """The maps as ``[n, H, W]``: summed over channels, with their signs."""
        return self.maps.sum(1)

    @cached_property
    def addresses(self) -> list[int]:
        """One number per image, from its pixels: what is drawn for an image depends on the image, not on its place."""
        rows = self.images.detach().to("cpu", torch.float32).contiguous().flatten(1).numpy()
        return [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=7).digest(), "little") for row in rows]

    def repeats(self, total: int) -> Iterator[range]:
        """Divide ``total`` versions of these images, so that no more than a batch passes through the model at once."""
        step = max(1, self.runtime.batch_size // len(self))
        for start in range(0, total, step):
            yield range(start, min(total, start + step))

    def outputs(self, images: Tensor) -> Tensor:
        """Return all logits ``[s, n, K]`` of s versions of the images ``[s, n, C, H, W]``, in float64."""
        assert self.model is not None  # only metrics that need a model ask
        with torch.no_grad(), self.runtime.autocast():
            logits: Tensor = self.model(images.flatten(0, 1))
        if not bool(torch.isfinite(logits).all()):
            raise InputError(f"{type(self.model).__name__} returns NaN or infinity for images that were altered")
        return logits.double().reshape(*images.shape[:2], -1)

    def logit(self, images: Tensor) -> Tensor:
        """Return the explained logit ``[s, n]`` of s versions of the images ``[s, n, C, H, W]``, in float64."""
        return pick(self.outputs(images), self.targets)


def pick(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return ``[s, n]``: of outputs ``[s, n, K]`` those of each image's target ``[n]``."""
    return outputs.gather(2, targets.expand(len(outputs), -1)[..., None])[..., 0]


class ExplanationMetric(Metric):
    """Judges maps image by image. A subclass writes `_judge`, and names its figures in ``higher_is_better``.

    Every figure is a mean over images, beside its standard error over images ``…_se`` (sd / √n). One row per image is
    kept in float64 on the CPU, so that the figures depend neither on the number of updates nor, beyond rounding, on
    the order of the images. What is drawn for an image depends on the seed and on the image itself. The images, the
    targets and, where there is one, the baseline are those that the explanation holds.
    """

    by: ClassVar[str]
    """The registry name, for messages."""

    def __init__(self) -> None:
        self.reset()

    @abstractmethod
    def _judge(self, batch: Batch) -> Tensor:
        """Return ``[n, F]``, first a column per figure; gradients are off. An image that does not count has NaN."""

    @property
    def figures(self) -> list[str]:
        """Names of the columns."""
        return [name for name in self.higher_is_better if f"{name}_se" in self.higher_is_better]

    # -- taking in ------------------------------------------------------------------------------------------------

    def _take(self, explanation: Any, model: Any = None, masks: Any = None) -> None:
        runtime = self.runtime or Runtime()
        self._check(explanation, model)
        held = None if masks is None else _masks(masks, explanation, self.by)
        device = _device(model, runtime)
        rows = []
        with (
            guard(*([model] if model is not None else [])),
            torch.no_grad(),
            runtime.progress(self.by.partition("/")[2], len(explanation)) as advance,
        ):
            for start in range(0, len(explanation), runtime.batch_size):
                chosen = list(range(start, min(len(explanation), start + runtime.batch_size)))
                batch = self._batch(explanation[chosen], model, held, chosen, device, runtime)
                found = self._judge(batch).to("cpu", torch.float64)
                assert len(found) == len(chosen), f"{self.by}: rows {list(found.shape)}"
                rows.append(found)
                advance(len(chosen))
        self._kept.extend(rows)  # all of them, or none

    def _check(self, explanation: Any, model: Any) -> None:
        if not isinstance(explanation, Attribution):
            raise InputError(f"{self.by} judges attributions, not a {type(explanation).__name__}")
        if len(explanation) == 0:
            raise InputError(f"{self.by}: the explanation is empty")
        if not bool(torch.isfinite(explanation.maps).all()):
            raise InputError(f"{self.by}: the maps hold NaN or infinity")
        if "model" not in self.needs:
            return
        if not isinstance(model, Discriminator):
            raise InputError(
                f"{self.by} judges what a discriminator is explained by, and the model is a {type(model).__name__}; "
                f"wrap it: genxai_core.adapt.discriminator(module, …)"
            )
        images, maps = explanation.images, explanation.maps
        if images is None:
            raise InputError(f"{self.by}: the explanation has no images; make it with explain(), which keeps them")
        if not bool(torch.isfinite(images).all()):
            raise InputError(f"{self.by}: the explanation's images hold NaN or infinity")
        if maps.shape[-2:] != images.shape[-2:] or (maps.ndim == 4 and maps.shape[1] not in (1, images.shape[1])):
            raise InputError(f"{self.by}: maps {list(maps.shape)} do not fit images {list(images.shape)}")
        if tuple(explanation.value_range) != tuple(model.value_range):
            raise InputError(
                f"{self.by}: the explained images are in {tuple(explanation.value_range)}, the model expects "
                f"{tuple(model.value_range)}"
            )

    def _batch(
        self,
        explanation: Attribution,
        model: Discriminator | None,
        masks: Tensor | None,
        rows: list[int],
        device: torch.device,
        runtime: Runtime,
    ) -> Batch:
        maps = explanation.maps.detach().to(device, torch.float64)
        targets = torch.as_tensor(explanation.target, dtype=torch.long).to(device)
        images, references = torch.empty(len(maps), 0, device=device), None
        if model is not None:
            assert explanation.images is not None  # checked
            kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), explanation.images.dtype)
            images = explanation.images.detach().to(device, kind)
            if explanation.baseline is not None:
                references = explanation.baseline.detach().to(device, kind)
        batch = Batch(
            maps[:, None] if maps.ndim == 3 else maps,
            targets,
            images,
            references,
            masks[rows].to(device) if masks is not None else torch.empty(len(maps), 0, device=device),
            model,
            runtime,
        )
        if model is not None:
            self._check_outputs(batch)
        return batch

    def _check_outputs(self, batch: Batch) -> None:
        with torch.no_grad(), batch.runtime.autocast():
            logits = batch.model(batch.images[:1])  # type: ignore[misc]
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"{self.by}: the discriminator returns {shape}, not logits [N, K]")
        low, high = int(batch.targets.min()), int(batch.targets.max())
        if low < 0 or high >= logits.shape[1]:
            wrong = low if low < 0 else high
            raise TargetError(
                f"{self.by}: target {wrong} was explained; this model's outputs are 0…{logits.shape[1] - 1}"
            )

    # -- giving back ----------------------------------------------------------------------------------------------

    def per_image(self) -> dict[str, Tensor]:
        """Return the figures of each image ``[N]``, in the order in which they came, to compare explainers in pairs.

        Raises
        ------
        InputError
            If nothing has been seen.
        """
        if not self._kept:
            raise InputError(f"{self.by} has seen no explanation")
        return dict(zip(self.figures, torch.cat(self._kept).T))

    def compute(self) -> dict[str, float]:
        """Return the figures, each with its standard error.

        Raises
        ------
        InputError
            If there are fewer than two images that count: one image has no error. See `per_image`.
        """
        found = {}
        for name, values in self.per_image().items():
            values = values[~values.isnan()]
            if len(values) < 2:
                raise InputError(
                    f"{self.by} needs at least 2 images that count, and has seen {len(values)}; "
                    f"per_image() gives the figures of each"
                )
            found[name] = float(values.mean())
            found[f"{name}_se"] = float(values.std() / len(values) ** 0.5)
        return found

    def merge(self, other: Self) -> None:
        """Take in what another instance has seen.

        Raises
        ------
        InputError
            If it is another metric.
        """
        if type(other) is not type(self):
            raise InputError(f"{self.by}: cannot merge with a {type(other).__name__}; merge metrics of one kind")
        self._kept.extend(other._kept)

    def reset(self) -> None:
        """Forget all images."""
        self._kept: list[Tensor] = []


def _device(model: Any, runtime: Runtime) -> torch.device:
    """Where the model is; without one, the CPU: what is left to compute is small."""
    if not isinstance(model, nn.Module):
        return torch.device("cpu")
    first = next((t for t in (*model.parameters(), *model.buffers())), None)
    return runtime.torch_device if first is None else first.device


def _masks(masks: Any, explanation: Attribution, by: str) -> Tensor:
    """Return masks as bool ``[N, K, H, W]``, one row per map."""
    found = masks.masks if isinstance(masks, Samples) else masks
    if not isinstance(found, Tensor) or found.dtype != torch.bool or found.ndim not in (3, 4):
        said = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"{by}: masks are bool [N, K, H, W] or [N, H, W], or samples that have them, not {said}")
    found = found[:, None] if found.ndim == 3 else found
    wanted = (len(explanation), *explanation.maps.shape[-2:])
    if (len(found), *found.shape[2:]) != wanted:
        raise InputError(f"{by}: masks {list(found.shape)} do not fit maps {list(explanation.maps.shape)}")
    return found
