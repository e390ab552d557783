"""The sketch of a pipeline: steps in columns from left to right, arrows for the references between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDE, HIGH, ACROSS, DOWN = 150, 36, 46, 12
"""A box, and the space between two boxes, in pixels."""

MOST = 60
"""Beyond so many steps a sketch is a tangle; the table says the same."""


@dataclass(frozen=True)
class Node:
    """A box with its upper left corner."""

    number: int
    name: str
    kind: str
    status: str
    x: float
    y: float


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
    """Lay out steps that come in an order that serves their references; None for one step, or for too many."""
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
    columns: list[list[str]] = [[] for _ in range(1 + max(depth.values()))]
    for name, at in depth.items():
        columns[at].append(name)
    tallest = max(map(len, columns)) * (HIGH + DOWN) - DOWN
    y: dict[str, float] = {}
    for column in columns:
        # Each box near the middle of what it comes from, so that few arrows cross.
        centre = {n: [y[a] for a, b in edges if b == n] for n in column}
        column.sort(key=lambda n: sum(centre[n]) / len(centre[n]) if centre[n] else 0)
        top = (tallest - (len(column) * (HIGH + DOWN) - DOWN)) / 2
        y |= {name: top + i * (HIGH + DOWN) for i, name in enumerate(column)}
    x = {name: at * (WIDE + ACROSS) for name, at in depth.items()}
    nodes = [
        Node(i, name, str(step.get("use", "")), str(step.get("status", "")), x[name], y[name])
        for i, (name, step) in enumerate(steps.items(), 1)
    ]
    paths = [_path(x[a] + WIDE, y[a] + HIGH / 2, x[b] - 3, y[b] + HIGH / 2) for a, b in edges]
    return Sketch(nodes, paths, len(columns) * (WIDE + ACROSS) - ACROSS, tallest)


def _path(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = ACROSS * 0.6
    return f"M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}"
