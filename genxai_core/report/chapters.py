"""Steps of one kind belong together: beside each other, in one table, or in one figure where they can be compared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .. import plots
from ..errors import one_line
from ..explanation import Attribution
from ..interfaces import Dataset
from ..samples import Samples
from ..trained import Trained
from .figures import wide_grid
from .section import Picture
from .steps import About, Step, directions, maps_caption
from .text import Table, clip, tabulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure
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
    """The figures of all steps that use one metric; ``introduced`` if the chapter's beginning tells of it."""

    use: str
    table: Table
    introduced: bool = False


@dataclass
class Chapter:
    """Steps of a kind, with what shows them together.

    ``about`` introduces the components that several steps use. ``beside`` keeps even steps with pictures in two
    columns; ``compact`` puts steps that have little to show into three.
    """

    title: str
    steps: list[Step]
    about: list[About] = field(default_factory=list)
    beside: bool = False
    compact: bool = False
    compared: list[Picture] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)


def chapters(steps: Sequence[Step]) -> list[Chapter]:
    """Group steps, in order of first appearance.

    Datasets that are made from other steps (samples of a model) stand apart from those that are the data. Trainings
    that measured the same share a figure of curves; several maps of the same images share those images; metrics share
    a table; and what a component is, is said once.
    """
    groups: dict[str, list[Step]] = {}
    for step in steps:
        kind = ("samples" if step.parents else "data") if step.kind == "dataset" else step.kind
        groups.setdefault(kind, []).append(step)
    made = []
    for kind, members in groups.items():
        chapter = Chapter(TITLES.get(kind, "Other steps"), members)
        chapter.beside = len(members) > 1 and kind not in ("explainer", "metric")
        for compare in (_compare_trainings, _compare_maps):
            try:
                compare(chapter)
            except Exception as error:  # a history or a map may be anybody's
                members[0].warnings.append(f"These steps could not be compared: {clip(one_line(error), 300)}")
        _gather(chapter)
        _introduce(chapter)
        _widen(chapter)
        chapter.compact = not any(s.pictures or s.sections or s.error for s in members)
        made.append(chapter)
    return made


def _compare_trainings(chapter: Chapter) -> None:
    drawn = [s for s in chapter.steps if isinstance(s.result, Trained) and s.pictures]
    if len(drawn) < 2:
        return
    for members in _sharing_series(drawn):
        figure = plots.curves_compared({s.name: s.result.history for s in members})
        alt = f"Training curves of {', '.join(s.name for s in members)}, one panel per series"
        _add(chapter, figure, alt, "One panel per series. Pale: as measured. Bold: running mean.")
        for step in members:
            step.pictures = []


def _sharing_series(steps: Sequence[Step]) -> list[list[Step]]:
    """Group trainings so that two which measured the same, under the same name, are in one group."""
    groups: list[list[Step]] = []
    for step in steps:
        own = set(plots.series_of(step.result.history))
        joined = [g for g in groups if any(own & set(plots.series_of(s.result.history)) for s in g)]
        groups = [g for g in groups if g not in joined]
        groups.append([*(s for g in joined for s in g), step])
    return [sorted(group, key=lambda s: s.number) for group in groups]


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
            _add(chapter, figure, alt, maps_caption(s.result for s in rows))
            for step in rows:
                step.pictures = []


def _add(chapter: Chapter, figure: Figure, alt: str, caption: str) -> None:
    """Add a figure; how to read it is said under the first of its sort."""
    said = any(caption == p.caption for p in chapter.compared)
    chapter.compared.append(Picture(figure, alt, "" if said else caption))


def _fingerprint(attribution: Attribution, images: Tensor) -> str:
    """Identify the images that were explained."""
    images = images.contiguous().float()
    head = f"{list(images.shape)} {attribution.value_range} {list(attribution.maps.shape[-2:])}"
    return hashlib.sha256(head.encode() + images.numpy().tobytes()).hexdigest()


def _introduce(chapter: Chapter) -> None:
    """Say at the top what a component is that several of the steps use, instead of in each of them."""
    uses = Counter(about.use for step in chapter.steps for about in step.about)
    shared = {about.use: about for step in chapter.steps for about in step.about if uses[about.use] > 1}
    chapter.about = [replace(about, named=True) for about in shared.values()]
    for measured in chapter.measured:
        measured.introduced = measured.use in shared
    for step in chapter.steps:
        step.about = [about for about in step.about if about.use not in shared]


def _widen(chapter: Chapter) -> None:
    """Let the images of a step that stands alone take the whole width."""
    if len(chapter.steps) > 1:
        return
    (step,) = chapter.steps
    result = step.result
    if isinstance(result, Samples | Dataset) and type(result).plot in (Samples.plot, Dataset.plot) and step.pictures:
        step.pictures = [replace(step.pictures[0], image=wide_grid(result))]


def _gather(chapter: Chapter) -> None:
    """Put what one metric measured in several steps into one table."""
    by_use: dict[str, list[Step]] = {}
    for step in chapter.steps:
        if step.kind == "metric" and isinstance(step.result, dict):
            by_use.setdefault(step.use, []).append(step)
    for use, members in by_use.items():
        rows = [{"step": s.name, **{k: v for k, v in s.result.items() if k != "step"}} for s in members]
        chapter.measured.append(Measured(use, tabulate(rows, directions(use), limit=200)))
