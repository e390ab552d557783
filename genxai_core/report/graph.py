"""The sketch of a pipeline: steps in columns from left to right, arrows for the references between them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

NARROWEST, WIDEST, HIGH, ACROSS, DOWN = 90, 270, 36, 46, 12
"""A box, and the space between two boxes, in pixels."""

MARGIN, NAME, KIND = 9, 12, 10
"""From a box's side to its text, and the sizes of its two lines, as the style has them."""

MOST = 60
"""Beyond so many steps a sketch is a tangle; the table says the same."""


@dataclass(frozen=True)
class Node:
    """A box with its upper left corner; ``label`` and ``sort`` are name and kind as they fit into it."""

    number: int
    name: str
    kind: str
    status: str
    label: str
    sort: str
    x: float
    y: float
    wide: float


@dataclass(frozen=True)
class Sketch:
    """Boxes, and paths in SVG's notation, on a sheet of the given size."""

    nodes: Sequence[Node]
    paths: Sequence[str]
    width: float
    height: float


def references(value: Any) -> Iterator[str]:
    """Yield every text in a nested value that refers to a step (``$name…``; ``$$`` begins a literal)."""
    if isinstance(value, str) and re.match(r"\$[a-z]", value):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from references(inner)


def parents(step: Mapping[str, Any]) -> list[str]:
    """Return the steps that a step refers to, each once, in the order of their mention."""
    mentioned = references([step.get("call"), step.get("with")])
    return list(dict.fromkeys(re.split(r"[.\[]", text[1:], maxsplit=1)[0] for text in mentioned))


def sketch(steps: Mapping[str, Mapping[str, Any]]) -> Sketch | None:
    """Lay out steps that come in an order that serves their references; None for one step, or for too many.

    A column is as wide as its longest text, within limits.
    """
    if not 1 < len(steps) <= MOST:
        return None
    depth: dict[str, int] = {}
    edges: list[tuple[str, str]] = []
    above: dict[str, set[str]] = {}
    for name, step in steps.items():
        before = [p for p in parents(step) if p in depth]
        depth[name] = 1 + max((depth[p] for p in before), default=-1)
        above[name] = set(before).union(*(above[p] for p in before))
        # What is reached through another step needs no arrow of its own: without these the sketch stays legible.
        edges += [(p, name) for p in before if not any(p in above[q] for q in before)]
    used = {name: str(step.get("use", "")) for name, step in steps.items()}
    columns = _columns(depth, edges)
    middle, tallest = _placed(columns, depth, edges)
    wide = [_column([n for n in column if depth[n] == at], used) for at, column in enumerate(columns)]
    left = list(accumulate((w + ACROSS for w in wide), initial=0.0))
    nodes = []
    for i, (name, step) in enumerate(steps.items(), 1):
        at = depth[name]
        room = wide[at] - 2 * MARGIN
        label, sort = fitted(name, NAME, room), fitted(used[name], KIND, room)
        y = middle[name, at] - HIGH / 2
        nodes.append(Node(i, name, used[name], str(step.get("status", "")), label, sort, left[at], y, wide[at]))
    paths = []
    for a, b in edges:
        lanes = [(left[at], left[at] + wide[at], middle[a, at]) for at in range(depth[a] + 1, depth[b])]
        begin = (left[depth[a]] + wide[depth[a]], middle[a, depth[a]])
        paths.append(_path(begin, lanes, (left[depth[b]] - 3, middle[b, depth[b]])))
    return Sketch(nodes, paths, left[-1] - ACROSS, tallest)


def _columns(depth: Mapping[str, int], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the names in each column; a step stands also in those that its arrows only cross: there it has a lane."""
    columns: list[list[str]] = [[] for _ in range(1 + max(depth.values()))]
    for name, at in depth.items():
        furthest = max((depth[b] for a, b in edges if a == name), default=0)
        for crossed in (at, *range(at + 1, furthest)):
            columns[crossed].append(name)
    return columns


def _placed(
    columns: Sequence[list[str]], depth: Mapping[str, int], edges: Sequence[tuple[str, str]]
) -> tuple[dict[tuple[str, int], float], float]:
    """Return the height of the middle of each box or lane, by name and column, and that of the whole sheet."""
    highs = [[HIGH if depth[name] == at else 0 for name in column] for at, column in enumerate(columns)]
    totals = [sum(high) + DOWN * (len(high) - 1) for high in highs]
    middle: dict[tuple[str, int], float] = {}
    for at, column in enumerate(columns):
        # Each near the middle of what it comes from, so that few arrows cross.
        before = {n: [a for a, b in edges if b == n] if depth[n] == at else [n] for n in column}
        centre = {n: [middle[a, at - 1] for a in before[n]] for n in column}
        column.sort(key=lambda n: sum(centre[n]) / len(centre[n]) if centre[n] else 0)
        y = (max(totals) - totals[at]) / 2
        for name in column:
            high = HIGH if depth[name] == at else 0
            middle[name, at] = y + high / 2
            y += high + DOWN
    return middle, max(totals)


def _column(names: Sequence[str], used: Mapping[str, str]) -> float:
    needed = max(max(width(name, NAME), width(used[name], KIND)) for name in names)
    return min(WIDEST, max(NARROWEST, math.ceil(needed) + 2 * MARGIN))


def width(text: str, size: float) -> float:
    """Estimate how wide a text is in pixels: in bold letters, and of the widest among the usual fonts.

    The page cannot measure the reader's font, and a text that is wider than its box looks broken; one that leaves some
    room does not. The shares are those of DejaVu Sans Bold, rounded up.
    """
    return size * sum(_share(character) for character in text)


def _share(character: str) -> float:
    if character in "ijlI|'":
        return 0.4
    if character in "frt-.,:;!()[]/ ":
        return 0.5
    if character in "cksvxyz":
        return 0.67
    if character in "mwMWGOQ@%&+=<>~^#…" or ord(character) > 0x2FF:
        return 1.15
    return 0.88 if character.isupper() else 0.73


def fitted(text: str, size: float, room: float) -> str:
    """Return a text, or so much of its beginning and its end as there is room for, around an ellipsis."""
    text = text[:1000]
    if width(text, size) <= room:
        return text
    kept = len(text) - 1
    while kept > 0:
        front = -(-kept // 2)
        cut = f"{text[:front]}…{text[len(text) - (kept - front) :]}"
        if width(cut, size) <= room:
            return cut
        kept -= 1
    return "…"


def _path(begin: tuple[float, float], lanes: Sequence[tuple[float, float, float]], end: tuple[float, float]) -> str:
    """Draw an arrow between boxes, straight on through its lanes (from, to, height) in the columns that it crosses."""
    (x, y), drawn = begin, f"M{begin[0]:g},{begin[1]:g}"
    for enter, leave, height in [*lanes, (end[0], end[0], end[1])]:
        bend = (enter - x) * 0.6
        drawn += f" C{x + bend:g},{y:g} {enter - bend:g},{height:g} {enter:g},{height:g}"
        if leave != enter:
            drawn += f" H{leave:g}"
        x, y = leave, height
    return drawn
