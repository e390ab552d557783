"""Scores of units: which units are best for which concept, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .canvas import DIVERGING, INK, more, number, shorten, width_of
from .heat import NUMBERS, footline, frame, headline, heat, place, scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..results import UnitScores

MOST_CONCEPTS = 32
MOST_LAYERS = 9
"""Of more, those with the best units are drawn."""

_LARGEST = 1e300
"""What is larger is drawn as this, of which the scale's width is a number too."""

_ACROSS = 3
_UNITS = {1: 24, 2: 16}
"""Layers beside each other, and how many units of each are drawn where there are so many; else 12."""

_COUNTS = 1.0
"""Inches for the counts of units."""


@dataclass
class _Layer:
    """A layer as it is drawn: the units shown, their values ``[concepts, units]``, and the scores of all by concept."""

    name: str
    total: int
    units: list[int]
    values: np.ndarray
    best: list[np.ndarray]


def unit_figure(scores: UnitScores, *, cut: float | None = None, title: str = "") -> Figure:
    """Draw, for each layer, its best units × concepts, and how many of all its units are best for each concept.

    Where a layer has more units than there is room for, those are drawn that are the best of each concept: first the
    best one of each, then the second, and so on. They stand in the order of their concepts. The bars beside then count
    all units: each is a row of units, one beside the other, in the colour of their scores.

    Parameters
    ----------
    scores
        What to draw. Of more than 32 concepts, or 9 layers, those with the best units are drawn.
    cut
        Only units whose best score reaches it are counted in the bars. None counts those above zero; where lower is
        better, all.
    title
        Above everything.
    """
    names_of_layers = [scores.layers[i] for i in _best([_signed(scores, n).max() for n in scores.layers], MOST_LAYERS)]
    concepts = _best(np.max([_signed(scores, name).max(0) for name in names_of_layers], axis=0), MOST_CONCEPTS)
    across = min(_ACROSS, len(names_of_layers))
    layers = [_layer(scores, name, concepts, _UNITS.get(across, 12), cut) for name in names_of_layers]
    left_out = more(len(scores.layers) - len(layers), "layers")
    counted = any(len(layer.units) < layer.total for layer in layers)
    scale = _scale(scores)
    widest = max(len(layer.units) for layer in layers)
    wide, high = (min(0.36, max(0.17, room / n)) for room, n in ((4.5 / across, widest), (4.5, len(concepts))))
    beyond = "" if cut is None else f"\n{'≥' if scores.higher_is_better else '≤'} {number(cut)}"
    counting = f"units best for it{beyond}"
    names = [shorten(scores.concepts[c], 24) for c in concepts]
    margin, top = 0.15 + max(map(width_of, names)), 0.52 if title else 0.32
    heads = [_head(layer, len(concepts), len(scores.concepts)) for layer in layers]
    pitches = [
        max(max(wide * len(la.units) + (_COUNTS if counted else 0), width_of(head, 8.5)) + 0.3 for la, head in column)
        for column in ([*zip(layers, heads)][i::across] for i in range(across))
    ]
    tall = high * len(names) + 0.85
    height = top + tall * -(-len(layers) // across) - (0 if left_out else 0.25)
    figure = Figure(figsize=(margin + sum(pitches) + 0.75, height), facecolor="white")
    for i, layer in enumerate(layers):
        x, y = margin + sum(pitches[: i % across]), top + (i // across) * tall
        axes = place(figure, x, y, wide * len(layer.units), high * len(names))
        labels = names if i % across == 0 else [""] * len(names)
        units = [str(unit) for unit in layer.units]
        numbers = wide >= NUMBERS and high >= 0.2 and scale.norm.vmax >= 0.1
        heat(axes, layer.values, scale, rows=labels, columns=units, numbers=numbers)
        label = "unit" if len(units) == layer.total else "unit, the best ones of each concept"
        axes.set_xlabel(label, fontsize=7.5, color=INK)
        axes.set_title(heads[i], fontsize=8.5, color=INK, loc="left", parse_math=False)
        if counted:
            beside = place(figure, x + wide * len(layer.units) + 0.06, y, _COUNTS - 0.2, high * len(names))
            _bars(beside, layer, scale, counting)
    scale_bar(figure, scale, margin + sum(pitches), top, min(high * len(names), 2.0), scores.measure)
    headline(figure, title)
    footline(figure, left_out)
    return figure


def _best(values: np.ndarray | list[float], most: int) -> list[int]:
    """Return where the largest values stand, in order of place."""
    return sorted(np.argsort(-np.asarray(values), kind="stable")[:most].tolist())


def _signed(scores: UnitScores, layer: str) -> np.ndarray:
    values = scores.scores[layer].detach().cpu().double().clamp(-_LARGEST, _LARGEST).numpy()
    return np.asarray(values if scores.higher_is_better else -values)


def _layer(scores: UnitScores, name: str, concepts: list[int], most: int, cut: float | None) -> _Layer:
    signed = _signed(scores, name)
    best, score = signed.argmax(1), signed.max(1)
    shown = _chosen(best, score, most)
    sign = 1 if scores.higher_is_better else -1
    if cut is None:
        counts = score > 0 if scores.higher_is_better else np.ones(len(score), bool)
    else:
        counts = np.zeros(len(score), bool)
        counts[[unit for layer, unit in scores.above(cut) if layer == name]] = True
    by_concept = [sign * np.sort(score[counts & (best == c)])[::-1] for c in concepts]
    return _Layer(name, len(signed), shown.tolist(), sign * signed[shown][:, concepts].T, by_concept)


def _chosen(best: np.ndarray, score: np.ndarray, most: int) -> np.ndarray:
    """Choose each concept's best unit, then each one's second best, and so on; sorted by best concept, then score."""
    order = np.lexsort((-score, best))
    starts = np.searchsorted(best[order], best[order])
    places = np.arange(len(order)) - starts  # of a unit among those of its concept
    chosen = np.lexsort((-score[order], places))[:most]
    return np.asarray(order[np.sort(chosen)])


def _scale(scores: UnitScores) -> Any:
    """White is zero: of signed scores in the middle, of others at the end; where lower is better, dark is low."""
    values = np.concatenate([_signed(scores, layer).ravel() for layer in scores.layers])
    values = values if scores.higher_is_better else -values
    low, high = float(values.min()), float(values.max())
    if low < 0:
        limit = max(-low, high)
        return ScalarMappable(Normalize(-limit, limit), mpl.colormaps[DIVERGING])
    colours = "Blues" if scores.higher_is_better else "Blues_r"
    return ScalarMappable(Normalize(0, high or 1.0), mpl.colormaps[colours])


def _head(layer: _Layer, concepts: int, of: int) -> str:
    shown = len(layer.units)
    units = f"{layer.total} unit{'s' if layer.total > 1 else ''}"
    text = f"{shorten(layer.name, 28)}: {units if shown == layer.total else f'{shown} of {units}'}"
    return text if concepts == of else f"{text}, {concepts} of {of} concepts"


def _bars(axes: Axes, layer: _Layer, scale: Any, label: str) -> None:
    longest = max(1, *map(len, layer.best))
    rows = np.full((len(layer.best), longest), np.nan)
    for row, values in enumerate(layer.best):
        rows[row, : len(values)] = values
    extent = (0, longest, len(rows) - 0.5, -0.5)
    axes.imshow(rows, cmap=scale.cmap, norm=scale.norm, aspect="auto", interpolation="nearest", extent=extent)
    for row, values in enumerate(layer.best):
        axes.text(len(values) + longest * 0.03, row, str(len(values)), va="center", fontsize=7, color=INK)
    axes.set_yticks([])
    axes.set_xticks([])
    frame(axes)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(label, fontsize=7.5, color=INK)
