"""Values as a reader wants them: numbers short, tables even, long texts cut aloud, papers as links."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

LONGEST = 4000
"""Characters of any text from a run folder that the report shows; a hostile or mad one must not fill it."""

ROWS = 16
"""Rows of a table that the report shows."""

WORTH_SORTING, MOST_ORDERS = 6, 11
"""Rows from which on a table can be sorted, and by how many of its columns: the style sheet counts to one more."""

_LINK = re.compile(
    r"https://[^\s<>\"']+[^\s<>\"'.,;:)]"
    r"|arXiv:(?P<arxiv>\d{4}\.\d{4,5}(?:v\d+)?|[a-z-]+/\d{7})"
    r"|(?:doi:\s?)?(?P<doi>\b10\.\d{4,9}/[^\s<>\"']*[^\s<>\"'.,;:)])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Cell:
    """One field of a table; numbers stand right."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """Column heads, the direction in which each is better (``↑``, ``↓`` or nothing), and rows; also in other orders."""

    heads: Sequence[str]
    arrows: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    left_out: int = 0
    orders: Sequence[tuple[str, Sequence[Sequence[Cell]]]] = ()


@dataclass(frozen=True)
class Piece:
    """A piece of text; a link where it has a target."""

    text: str
    target: str = ""


@dataclass
class Facts:
    """Pairs of a name and a text."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, value: Any) -> None:
        """Add a pair unless there is nothing to say."""
        if value not in (None, "", {}, []):
            self.rows.append((clip(name), short(value)))


def clip(value: Any, longest: int = LONGEST) -> str:
    """Return a text, cut where it is too long, and saying so."""
    text = str(value)
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def short(value: Any) -> str:
    """Return a plain value as a short text: floats with four digits, mappings as ``name=value``."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        if set(value) <= {"use", "with"} and "use" in value:
            inner = short(value["with"]) if value.get("with") else ""
            return clip(f"{value['use']}({inner})" if inner else value["use"])
        return clip(", ".join(f"{k}={short(v)}" for k, v in value.items()))
    if isinstance(value, list | tuple):
        return clip(", ".join(map(short, value)))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"tensor {list(value.shape)}"
    return clip(value)


def tabulate(
    rows: Sequence[Mapping[str, Any]],
    arrows: Mapping[str, str] | None = None,
    limit: int = ROWS,
    sortable: bool = False,
) -> Table:
    """Lay out rows of named values; a column for every name that occurs, in order of first occurrence.

    A sortable table also has its rows by each column of numbers, the largest first, of all rows and not of those that
    the limit leaves: a page without scripts cannot sort.
    """
    named = [{str(k): v for k, v in row.items()} for row in rows]
    heads = list(dict.fromkeys(k for row in named for k in row))
    directions = [(arrows or {}).get(head, "") for head in heads]

    def cells(chosen: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
        return [[_cell(row.get(head)) for head in heads] for row in chosen[:limit]]

    def by(head: str) -> list[Mapping[str, Any]]:
        return sorted(named, key=lambda row: _rank(row.get(head)))

    able = sortable and len(named) >= WORTH_SORTING
    numbers = [head for head in heads if able and _varies([row.get(head) for row in named])]
    orders = [(clip(head, 200), cells(by(head))) for head in numbers[:MOST_ORDERS]]
    return Table([clip(h, 200) for h in heads], directions, cells(named), max(0, len(rows) - limit), orders)


def _varies(values: Sequence[Any]) -> bool:
    """Whether a column holds different numbers, and nothing else where it is filled."""
    numbers = [v for v in values if v is not None]
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    return plain and len(set(numbers)) > 1


def _rank(value: float | None) -> tuple[bool, float]:
    """Return what sorts the largest number first, and last what is missing or no number."""
    missing = value is None or value != value
    return missing, 0.0 if value is None or missing else -float(value)


def _cell(value: Any) -> Cell:
    return Cell(short(value), isinstance(value, int | float) and not isinstance(value, bool))


def linked(text: str) -> list[Piece]:
    """Split a text into plain pieces and links: ``https`` addresses, arXiv numbers and DOIs."""
    text, pieces, at = clip(text), list[Piece](), 0
    for match in _LINK.finditer(text):
        address = match[0]
        if match["arxiv"]:
            address = f"https://arxiv.org/abs/{match['arxiv']}"
        elif match["doi"]:
            address = f"https://doi.org/{match['doi']}"
        pieces += [Piece(text[at : match.start()]), Piece(match[0], address)]
        at = match.end()
    return [piece for piece in [*pieces, Piece(text[at:])] if piece.text]


def as_yaml(value: Any) -> str:
    """Return plain nested values as YAML to read; whatever is not plain stands there as its text."""
    return clip(yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True, width=100).rstrip(), 20_000)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else short(value)


def printable(page: str) -> str:
    """Replace what HTML forbids or UTF-8 cannot hold: control characters and lone surrogates."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", page)
