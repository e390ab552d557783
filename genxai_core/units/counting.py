"""Counting where units are active and concepts are: exact intersections and unions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from ..errors import InputError
from .active import Concepts, histogram
from .layers import watching
from .upsampling import finite, spatial

if TYPE_CHECKING:
    from ..results import UnitScores


class Tally:
    """What `tally` yields: exact counts of pixels, all int64, on the CPU.

    Attributes
    ----------
    thresholds
        Layer -> ``[U]``.
    intersection
        Layer -> ``[U, C]``: pixels in which the unit is active and the concept is.
    area
        Layer -> ``[U]``: pixels in which the unit is active.
    concept_area
        ``[C]``: pixels in which the concept is; None before the first `add`.
    pixels
        All pixels.
    """

    def __init__(self, thresholds: Mapping[str, Tensor]) -> None:
        if not isinstance(thresholds, Mapping):
            raise InputError(f"thresholds are a {type(thresholds).__name__}, not a mapping of layers to tensors [U]")
        self.thresholds = {layer: _checked_thresholds(layer, t) for layer, t in thresholds.items()}
        self.intersection: dict[str, Tensor] = {}
        self.area: dict[str, Tensor] = {}
        self.concept_area: Tensor | None = None
        self.pixels = 0
        self._latest: dict[str, Tensor] = {}
        self._runs = dict.fromkeys(self.thresholds, 0)

    def add(self, masks: Tensor) -> None:
        """Count the forward that was just done.

        Parameters
        ----------
        masks
            Bool ``[N, C, H, W]``: where each concept is in the images of that forward. Activations are upsampled to
            ``[H, W]`` (bilinear, ``align_corners=False``), and active is what is greater than the threshold.

        Raises
        ------
        InputError
            If the masks do not fit, or a layer did not run exactly once since the last `add`.
        """
        latest, self._latest = self._latest, {}
        runs, self._runs = self._runs, dict.fromkeys(self.thresholds, 0)
        for layer, times in runs.items():
            if times != 1:
                raise InputError(
                    f"layer {layer!r} ran {times} times since the last add(masks), not once; "
                    f"do one forward for each add, with the masks of its images"
                )
        self.count(latest, masks)

    def count(self, activations: Mapping[str, Tensor], masks: Tensor) -> None:
        """Count activations that are at hand, such as those that `record` keeps.

        Parameters
        ----------
        activations
            Layer -> ``[N, U, h, w]`` or ``[N, U]``, of all the layers that have thresholds.
        masks
            As for `add`.

        Raises
        ------
        InputError
            If the activations or the masks do not fit.
        """
        maps = {layer: self._maps(layer, activations[layer], masks) for layer in self.thresholds}
        if self.concept_area is None:
            c = masks.shape[1]
            self.concept_area = torch.zeros(c, dtype=torch.long)
            self.area = {layer: torch.zeros(len(t), dtype=torch.long) for layer, t in self.thresholds.items()}
            self.intersection = {layer: area.new_zeros(len(area), c) for layer, area in self.area.items()}
        self.pixels += len(masks) * masks.shape[2] * masks.shape[3]
        packed: dict[torch.device, Concepts] = {}
        for layer, activation in maps.items():
            concepts = packed.setdefault(activation.device, Concepts(masks.to(activation.device)))
            both, area = concepts.counts(histogram(activation, self.thresholds[layer], concepts))
            self.intersection[layer] += both
            self.area[layer] += area
        first = next(iter(packed.values()), None) or Concepts(masks)
        self.concept_area += first.area()

    def _see(self, layer: str, activation: Tensor) -> None:
        self._latest[layer] = activation.detach().clone()
        self._runs[layer] += 1

    def _maps(self, layer: str, activation: Tensor, masks: Tensor) -> Tensor:
        if not isinstance(masks, Tensor) or masks.dtype != torch.bool or masks.ndim != 4:
            found = f"{masks.dtype} {list(masks.shape)}" if isinstance(masks, Tensor) else type(masks).__name__
            raise InputError(f"masks must be bool [N, C, H, W], not {found}")
        if len(masks) != len(activation):
            raise InputError(f"masks of {len(masks)} images for a forward of {len(activation)}")
        if self.concept_area is not None and masks.shape[1] != len(self.concept_area):
            raise InputError(f"masks of {masks.shape[1]} concepts after masks of {len(self.concept_area)}")
        if activation.shape[1] != len(self.thresholds[layer]):
            raise InputError(
                f"layer {layer!r} has {activation.shape[1]} units, its thresholds are {len(self.thresholds[layer])}"
            )
        if not finite(activation):
            raise InputError(f"layer {layer!r} returns NaN or infinity; check the model's weights and its inputs")
        return spatial(activation)

    def iou(self) -> dict[str, Tensor]:
        """Return Σ|A∧S| / Σ|A∨S| over all pixels of all samples: layer -> ``[U, C]`` float64, 0 where A∨S is empty.

        Raises
        ------
        InputError
            If nothing was added.
        """
        if self.concept_area is None:
            raise InputError("nothing is counted yet; run the model and add(masks)")
        found: dict[str, Tensor] = {}
        for layer, both in self.intersection.items():
            union = self.area[layer][:, None] + self.concept_area - both
            found[layer] = both.double() / union.clamp(min=1)
        return found

    def scores(self, concepts: Sequence[str]) -> UnitScores:
        """Return the IoU as a result, with the thresholds.

        Parameters
        ----------
        concepts
            Names of the masks' C concepts.

        Raises
        ------
        InputError
            If nothing was added.
        ExplainerError
            If there is not one name per concept.
        """
        from ..results import UnitScores

        return UnitScores(self.iou(), thresholds=self.thresholds, concepts=tuple(concepts), measure="iou")

    def merge(self, other: Self) -> None:
        """Take in what another tally has counted, as if this one had counted it; the counts are equal bit for bit.

        Raises
        ------
        InputError
            If the other has other thresholds or concepts.
        """
        same = self.thresholds.keys() == other.thresholds.keys() and all(
            torch.equal(t, other.thresholds[layer]) for layer, t in self.thresholds.items()
        )
        if not same:
            raise InputError("tallies with other layers or thresholds cannot be merged")
        if other.concept_area is None:
            return
        if self.concept_area is not None and len(self.concept_area) != len(other.concept_area):
            counts = f"{len(self.concept_area)} and {len(other.concept_area)}"
            raise InputError(f"tallies of {counts} concepts cannot be merged")
        if self.concept_area is None:
            self.concept_area = torch.zeros_like(other.concept_area)
            self.area = {layer: torch.zeros_like(n) for layer, n in other.area.items()}
            self.intersection = {layer: torch.zeros_like(n) for layer, n in other.intersection.items()}
        self.concept_area += other.concept_area
        self.pixels += other.pixels
        for layer in self.thresholds:
            self.area[layer] += other.area[layer]
            self.intersection[layer] += other.intersection[layer]


@contextlib.contextmanager
def tally(model: nn.Module, thresholds: Mapping[str, Tensor]) -> Iterator[Tally]:
    """Count, forward by forward, where units are active and concepts are.

    ``with tally(model, thresholds) as counter:`` and in it, for each batch, ``images = model(latents)`` and
    ``counter.add(masks)``, the masks of these images. Thresholds come from other samples than those counted.

    Parameters
    ----------
    model
        Any module.
    thresholds
        Layer -> ``[U]``, as `threshold` finds them; infinite for a unit that is never active.

    Yields
    ------
    Tally
        Readable and mergeable during and after the block.

    Raises
    ------
    InputError
        If there is no such layer, or thresholds are malformed.
    """
    counter = Tally(thresholds)

    with watching(model, counter.thresholds, counter._see):
        yield counter


def _checked_thresholds(layer: str, thresholds: Tensor) -> Tensor:
    fits = isinstance(thresholds, Tensor) and thresholds.ndim == 1 and thresholds.is_floating_point()
    if not fits or bool(thresholds.isnan().any()):
        raise InputError(f"thresholds of layer {layer!r} must be a floating-point tensor [U] without NaN")
    return thresholds.detach().cpu()
