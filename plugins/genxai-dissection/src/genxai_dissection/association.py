"""Which units of a generator go with which concepts: the first half of GAN Dissection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genxai_core import Explainer, Runtime, Samples, Segmenter, Spec, saving, storage, units
from genxai_core.errors import InputError

from . import examples, information
from .calls import ran
from .dissection import Dissection
from .fingerprint import fingerprint
from .jackknife import LEVEL, intervals
from .layers import spatial_layers
from .partial import Partial, gathered


class GanDissection(Explainer):
    """IoU of each unit's active region with each concept's segmentation, over samples of a generator.

    For unit u of a layer, with the activation upsampled to the image's size (bilinear, ``align_corners=False``) and A
    where it exceeds the unit's threshold t_u, and S_c where the segmenter sees concept c,

        IoU(u, c) = Σ |A ∧ S_c| / Σ |A ∨ S_c|,

    the sums over all samples (Bau et al., "GAN Dissection", ICLR 2019, eq. 2). Thresholds come from the samples 0 …
    ``threshold_samples`` − 1 of the seed, scores from the ``samples`` that follow. Counts are exact integers, so they
    do not depend on how batches are divided among processes. Memory does not grow with ``samples``. Intervals are
    95 % ones of a jackknife that deletes each of 20 blocks of samples in turn.

    With ``checkpoints`` in the Runtime the counts are written from time to time, and the work goes on from there.

    Parameters
    ----------
    segmenter
        Says where concepts are. They may overlap.
    layers
        Names of layers that return ``[N, U, h, w]`` or ``[N, U]``. None: of each resolution the last leaf module that
        returns maps of it, the picture itself left out.
    samples
        How many images are scored.
    threshold_samples
        How many others the thresholds come from.
    quantile
        Share of a unit's values below its threshold: 0.995 leaves the top 0.005, as the paper does. The threshold is
        exact, midway between two order statistics.
    threshold
        ``quantile``; or ``iqr``: of 24 levels, the top 0.001 to 0.5 of the unit's values, the one at which the mutual
        information of unit and concept, divided by their joint entropy, is largest for some concept.
    cells
        Take thresholds from the layer's own values, not from the upsampled ones.
    call
        Which call of a layer counts where one image needs several: a diffusion model calls its U-Net once per
        timestep, from 0. None: the last.
    examples
        How many of the images that excite it most are kept of each unit that is shown.
    shown
        How many units per concept and layer are shown with examples.

    Raises
    ------
    ValueError
        If a number is out of bounds, or a layer comes twice.
    """

    explains = "CanSample"
    accepts = "nothing"
    returns = Dissection
    stochastic = True
    distributed = True

    def __init__(
        self,
        segmenter: Segmenter | Spec,
        layers: tuple[str, ...] | None = None,
        samples: int = 1000,
        threshold_samples: int = 1000,
        quantile: float = 0.995,
        threshold: Literal["quantile", "iqr"] = "quantile",
        cells: bool = False,
        call: int | None = None,
        examples: int = 8,
        shown: int = 4,
    ) -> None:
        for name, value, least in (("samples", samples, 1), ("threshold_samples", threshold_samples, 1)):
            if value < least:
                raise ValueError(f"{name} {value} must be at least {least}")
        if examples < 0 or shown < 0 or (call is not None and call < 0):
            raise ValueError("examples, shown and call cannot be negative")
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1, such as 0.995 for the top 0.5 %")
        if threshold not in ("quantile", "iqr"):
            raise ValueError(f"threshold {threshold!r} is not quantile or iqr")
        if layers is not None and (not layers or len(set(layers)) < len(layers)):
            raise ValueError(f"layers {list(layers)}: name at least one, each once")
        self.segmenter, self.layers = segmenter, layers
        self.samples, self.threshold_samples, self.quantile = samples, threshold_samples, quantile
        self.threshold, self.cells, self.call = threshold, cells, call
        self.examples, self.shown = examples, shown

    def _explain(self, model: Any, inputs: Any, target: int | None, runtime: Runtime | None = None) -> Dissection:
        runtime = runtime or Runtime()
        segmenter = self.segmenter.build() if isinstance(self.segmenter, Spec) else self.segmenter
        if not isinstance(segmenter, Segmenter):
            raise InputError(f"segmenter is a {type(segmenter).__name__}; give a Segmenter, such as segmenter/fixed")
        if not segmenter.concepts:
            raise InputError(f"{saving.name_of(segmenter)} has no concepts; give a segmenter that names at least one")
        work = _Work(self, model, segmenter, runtime)
        with torch.no_grad():
            partial = work.counted()
            merged, *others = gathered(partial, runtime)
            for other in others:
                merged.merge(other)
            return work.result(merged)


class _Work:
    """One dissection of one model."""

    def __init__(self, method: GanDissection, model: Any, segmenter: Segmenter, runtime: Runtime) -> None:
        self.method, self.model, self.segmenter, self.runtime = method, model, segmenter, runtime
        self.layers = method.layers or spatial_layers(model, runtime.seed)

    # -- running the model ----------------------------------------------------------------------------------------

    def batch(self, first: int, n: int) -> tuple[Samples, dict[str, Tensor]]:
        """Draw samples ``first`` … and return them with the layers' activations, one row per sample."""
        with units.record(self.model, self.layers, detach=True, call=self.method.call) as seen:
            samples = self.model.sample(n, self.runtime.seed, start=first)
        for layer in self.layers:
            ran(seen, layer, n, self.method.call)
        return samples, seen

    def batches(self, first: int, n: int) -> Iterator[tuple[int, int]]:
        """Yield the first sample and the size of each of this process's batches: whole ones, in turn."""
        size, rank, processes = self.runtime.batch_size, self.runtime.rank, self.runtime.processes
        for start in range(rank * size, n, processes * size):
            yield first + start, min(size, n - start)

    def masks(self, samples: Samples) -> Tensor:
        return self.segmenter.segment(samples, self.runtime)

    # -- the two passes -------------------------------------------------------------------------------------------

    def thresholds(self) -> dict[str, Tensor]:
        """Return each layer's ``[U]``."""
        method, n = self.method, self.method.threshold_samples
        size = None if method.cells else tuple(self.model.sample(1, self.runtime.seed).images.shape[2:])
        found = units.Thresholds(self.layers, method.quantile, size)
        with self.runtime.progress("thresholds", n) as advance:
            for first, count in self.batches(0, n):
                found.see(self.batch(first, count)[1])
                advance(count * self.runtime.processes)
        found, *others = gathered(found, self.runtime)
        for other in others:
            found.merge(other)
        if method.threshold == "quantile":
            return found.values()
        least = min(self.layers, key=found.cells)
        if found.cells(least) * information.SHARES[-1] < 1:
            raise InputError(
                f"threshold iqr: layer {least!r} has too few values per unit for a level: {found.cells(least)} in {n} "
                f"threshold samples; raise threshold_samples"
            )
        levels = information.levels(found)
        counter = information.Counter(levels)
        with self.runtime.progress("levels", n) as advance:
            for first, count in self.batches(0, n):
                samples, seen = self.batch(first, count)
                counter.count(seen, self.masks(samples))
                advance(count * self.runtime.processes)
        counter, *more = gathered(counter, self.runtime)
        for another in more:
            counter.merge(another)
        return counter.best()

    def counted(self) -> Partial:
        """Count this process's samples, from where a checkpoint left off."""
        method, runtime = self.method, self.runtime
        folder = self._folder()
        config = "" if folder is None else self._config()
        found = None if folder is None else Partial.load(folder, config, method.samples, method.examples)
        if any(gathered(found is None, runtime)):
            found = None  # all processes begin anew, or none
        if found is None:
            found = Partial(self.thresholds(), method.samples, method.examples)
        todo = list(self.batches(method.threshold_samples, method.samples))
        done = sum(count for _, count in todo[: found.batches]) * runtime.processes
        saved = time.monotonic()
        with runtime.progress("scores", method.samples, done) as advance:
            for first, count in todo[found.batches :]:
                samples, seen = self.batch(first, count)
                found.take(seen, self.masks(samples), first - method.threshold_samples)
                advance(count * runtime.processes)
                if folder is not None and time.monotonic() - saved >= runtime.checkpoint_seconds:
                    found.save(folder, config)
                    saved = time.monotonic()
        return found

    def _folder(self) -> Path | None:
        base = self.runtime.checkpoints
        return None if base is None else Path(base) / f"dissection-{self.runtime.rank}-of-{self.runtime.processes}"

    def _config(self) -> str:
        m, r = self.method, self.runtime
        numbers = [m.samples, m.threshold_samples, m.quantile, m.threshold, m.cells, m.call, m.examples]
        made_of = fingerprint([self.model, self.segmenter])
        run = [r.seed, r.batch_size, r.precision, r.rank, r.processes]
        return storage.digest([list(self.layers), list(self.segmenter.concepts), numbers, run, made_of])

    # -- the result -----------------------------------------------------------------------------------------------

    def result(self, partial: Partial) -> Dissection:
        """Make the result of all counts."""
        method, whole = self.method, partial.whole()
        assert whole.concept_area is not None
        scores = whole.iou()
        chosen = examples.chosen(scores, method.shown) if method.examples else {}
        pictures = examples.pictures(self, partial, chosen)
        span = "quantile" if method.threshold == "quantile" else "mutual information / joint entropy"
        return Dissection(
            scores,
            thresholds=whole.thresholds,
            concepts=tuple(self.segmenter.concepts),
            intervals=intervals(partial.blocks),
            measure="iou",
            notes={
                "samples": method.samples,
                "threshold samples": method.threshold_samples,
                "threshold": f"top {1 - method.quantile:.4g}" if method.threshold == "quantile" else span,
                "of": "the layer's own values" if method.cells else "upsampled values",
                "intervals": f"{LEVEL:.0%}, jackknife over {len(partial.blocks)} blocks of samples",
                "segmenter": saving.name_of(self.segmenter),
                **({} if method.call is None else {"call of the layers": method.call}),
            },
            intersection=whole.intersection,
            area=whole.area,
            concept_area=whole.concept_area,
            pixels=whole.pixels,
            value_range=tuple(self.model.value_range),
            **pictures,
        )
