"""Steps of one kind belong together: beside each other, in one table, or in one figure where they can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import plots
from ..explanation import Attribution
from ..trained import Trained
from .section import Picture
from .steps import Step, directions, maps_caption
from .text import Table, tabulate

if TYPE_CHECKING:
    from torch import Tensor

TITLES = {
    "data": "Data",
    "trainer": "Training",
    "samples": "Samples",
    "generator": "Generators",
    "discriminator": "Discriminators",
    "segmenter": "Segmenters",
    "explainer": "Explanations",
    "metric": "Measurements",
}

LARGEST_FIGURE = 8
"""Rows of maps in one figure."""


@dataclass
class Measured:
    """The figures of all steps that use one metric."""

    use: str
    table: Table


@dataclass
class Chapter:
    """Steps of a kind, with what shows them together. ``beside`` keeps even those with pictures in two columns."""

    title: str
    steps: list[Step]
    beside: bool = False
    compared: list[Picture] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)


def chapters(steps: Sequence[Step]) -> list[Chapter]:
    """Group steps, in order of first appearance.

    Datasets that are made from other steps (samples of a model) stand apart from those that are the data. Several
    trainings share a figure of curves; several maps of the same images share those images; metrics share a table.
    """
    groups: dict[str, list[Step]] = {}
    for step in steps:
        kind = ("samples" if step.parents else "data") if step.kind == "dataset" else step.kind
        groups.setdefault(kind, []).append(step)
    made = []
    for kind, members in groups.items():
        chapter = Chapter(TITLES.get(kind, "Other steps"), members)
        chapter.beside = len(members) > 1 and kind not in ("explainer", "metric")
        _compare_trainings(chapter)
        _compare_maps(chapter)
        _gather(chapter)
        made.append(chapter)
    return made


def _compare_trainings(chapter: Chapter) -> None:
    drawn = [s for s in chapter.steps if isinstance(s.result, Trained) and s.pictures]
    if len(drawn) < 2:
        return
    figure = plots.curves_compared({s.name: s.result.history for s in drawn})
    alt = f"Training curves of {', '.join(s.name for s in drawn)}, one panel per series"
    caption = "One panel per series, the same scale for all. Pale: as measured. Bold: running mean."
    chapter.compared.append(Picture(figure, alt, caption))
    for step in drawn:
        step.pictures = []


def _compare_maps(chapter: Chapter) -> None:
    same: dict[str, list[Step]] = {}
    for step in chapter.steps:
        if type(step.result) is Attribution and step.result.images is not None and step.pictures:
            same.setdefault(_fingerprint(step.result, step.result.images), []).append(step)
    for members in same.values():
        for start in range(0, len(members), LARGEST_FIGURE):
            rows = members[start : start + LARGEST_FIGURE]
            if len(rows) < 2:
                continue
            names = ", ".join(s.name for s in rows)
            figure = plots.attribution_rows({s.name: s.result for s in rows})
            alt = f"Images, and below each its signed maps by {names}"
            chapter.compared.append(Picture(figure, alt, maps_caption(s.result for s in rows)))
            for step in rows:
                step.pictures = []


def _fingerprint(attribution: Attribution, images: Tensor) -> str:
    """Identify the images that were explained."""
    images = images.contiguous().float()
    head = f"{list(images.shape)} {attribution.value_range} {list(attribution.maps.shape[-2:])}"
    return hashlib.sha256(head.encode() + images.numpy().tobytes()).hexdigest()


def _gather(chapter: Chapter) -> None:
    """Put what one metric measured in several steps into one table."""
    by_use: dict[str, list[Step]] = {}
    for step in chapter.steps:
        if step.kind == "metric" and isinstance(step.result, dict):
            by_use.setdefault(step.use, []).append(step)
    for use, members in by_use.items():
        rows = [{"step": s.name, **{k: v for k, v in s.result.items() if k != "step"}} for s in members]
        chapter.measured.append(Measured(use, tabulate(rows, directions(use), limit=200)))
