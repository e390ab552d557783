"""The figure of one-vs-one: images, what each is compared with, and the maps, for one baseline or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from genxai_core.errors import InputError
from genxai_core.plots import COLOURS, DIVERGING, FRAME, INK, to_pixels

if TYPE_CHECKING:
    from .contrast import OneVsOne

WRONG = COLOURS[1]
"""The colour of a baseline that failed."""

SIDE = 0.95
SIZE = 7.5


def contrasts(results: Mapping[str, OneVsOne], *, n: int = 8, title: str = "") -> Figure:
    """Draw the first n images, and below them, for each result of these images, its baselines and its signed maps.

    Above each image stand its classes, target | other. Each map, summed over channels, has its own scale, symmetric
    about zero, whose end is written below it: red speaks for the target, blue for the other class. A baseline that
    failed as a counterfactual has a frame in colour, and below it stands why.

    Parameters
    ----------
    results
        By the names that stand at the left of their rows, such as of their baselines.
    n
        How many images.
    title
        Above everything.

    Raises
    ------
    InputError
        If there is nothing to draw, or a result has no images.
    """
    first = next(iter(results.values()), None)
    if first is None or n < 1 or any(len(r) == 0 or r.images is None for r in results.values()):
        raise InputError("there are no maps with their images to draw")
    n = min(n, *(len(result) for result in results.values()))
    shown = [(name, result, kind) for name, result in results.items() for kind in ("from", "map")]
    shown = [row for row in shown if row[2] == "map" or row[1].baseline is not None]
    high = SIDE * first.maps.shape[-2] / first.maps.shape[-1]
    height = 0.45 * bool(title) + 0.3 + (1 + len(shown)) * (high + 0.2)
    figure = Figure(figsize=(1.2 + n * (SIDE + 0.08), height), facecolor="white", layout="constrained")
    panels = figure.subplots(1 + len(shown), n, squeeze=False)
    if title:
        figure.suptitle(title, fontsize=9.5, color=INK)
    assert first.images is not None  # checked
    for panel, pixels, one, other in zip(panels[0], to_pixels(first.images[:n], first.value_range), *_classes(first)):
        _draw(panel, pixels)
        panel.set_title(f"{int(one)} | {int(other)}", fontsize=SIZE, color=INK, pad=2)
    _name(panels[0, 0], "image")
    for row, (name, result, kind) in zip(panels[1:], shown):
        _name(row[0], f"{name}\n{kind}" if name else kind)
        (_baselines if kind == "from" else _maps)(row, result)
    return figure


def _classes(result: OneVsOne) -> tuple[list[int], list[int]]:
    return result.target.tolist(), result.against.tolist()  # type: ignore[union-attr]


def _baselines(row: Any, result: OneVsOne) -> None:
    assert result.baseline is not None  # no row without
    reasons = result.failures or ("",) * len(result)
    for panel, pixels, reason in zip(row, to_pixels(result.baseline[: len(row)], result.value_range), reasons):
        _draw(panel, pixels, WRONG if reason else FRAME)
        panel.set_xlabel(_broken(reason), fontsize=6, color=WRONG, labelpad=1)


def _maps(row: Any, result: OneVsOne) -> None:
    maps = result.maps[: len(row)].detach().cpu().double()
    for panel, values in zip(row, (maps.sum(1) if maps.ndim == 4 else maps).numpy()):
        limit = float(np.abs(values).max())
        _draw(panel, values / (limit or 1.0), cmap=DIVERGING, vmin=-1, vmax=1)
        panel.set_xlabel(f"±{limit:.2g}" if limit else "all zero", fontsize=6, color=INK, labelpad=1)


def _draw(panel: Any, values: np.ndarray, frame: str = FRAME, **colours: Any) -> None:
    panel.imshow(values, interpolation="nearest" if max(values.shape[:2]) <= 64 else "antialiased", **colours)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.patch.set_visible(False)
    for spine in panel.spines.values():
        spine.set(color=frame, linewidth=0.5 if frame == FRAME else 2)


def _name(panel: Any, text: str) -> None:
    panel.set_ylabel(text, fontsize=SIZE, color=INK, rotation=0, ha="right", va="center", labelpad=4)


def _broken(text: str, length: int = 16) -> str:
    """Break a reason into lines that fit below a tile."""
    lines = [""]
    for word in text.split():
        lines = [*lines, word] if len(lines[-1]) + len(word) >= length else [*lines[:-1], f"{lines[-1]} {word}".strip()]
    return "\n".join(lines)
