"""The one YAML reader: YAML 1.2's core schema, and nothing that a stranger's file could use against its reader.

Refused, each with its line: aliases and anchors, tags, duplicate keys, keys that are not strings, several documents,
nesting deeper than 40 levels, files above 1 MB, integers above 18 digits. Scalars resolve as YAML 1.2 says: ``2e-5`` is
a float; ``on``, ``no`` and ``2026-02-30`` are strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import StorageError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_DIGITS = 18

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True)
class Document:
    """A parsed file: its value, and the line (from 1) on which each path in it begins."""

    value: Any
    lines: Mapping[Path, int]
    name: str

    def place(self, *path: str | int) -> str:
        """Spell a place for a message: ``pipeline.yaml:12: steps.cams.with``; the nearest known line."""
        at: Path = path
        while at and at not in self.lines:
            at = at[:-1]
        line = self.lines.get(at, 1)
        dotted = ".".join(map(str, path))
        return f"{self.name}:{line}: {dotted}" if dotted else f"{self.name}:{line}"


def parse(data: bytes | str, name: str) -> Document:
    """Parse one YAML document.

    Parameters
    ----------
    data
        The file's content, UTF-8.
    name
        What to call the file in messages.

    Raises
    ------
    StorageError
        One line: file, line, what is wrong, how to mend it.
    """
    text = _decoded(data, name)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(iter(yaml.parse(text, Loader=loader)), name).document()
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark else 1
        raise StorageError(f"{name}:{line}: not valid YAML: {_short(problem)}; mend that line") from None


def _decoded(data: bytes | str, name: str) -> str:
    """Return the text, refusing what is too large, not UTF-8, or not to be printed."""
    try:
        raw = data if isinstance(data, bytes) else data.encode()
        if len(raw) > MAX_BYTES:
            raise StorageError(f"{name}: {len(raw):,} bytes, above the limit of {MAX_BYTES:,}; split the file")
        text = raw.decode("utf-8-sig")
    except UnicodeError as error:
        before: Any = data[: getattr(error, "start", 0)]
        line = before.count(b"\n" if isinstance(data, bytes) else "\n") + 1
        raise StorageError(f"{name}:{line}: not UTF-8 text; save the file as UTF-8") from None
    bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise StorageError(f"{name}:{line}: the control character U+{ord(bad[0]):04X} is not allowed; remove it")
    return text


def _short(value: Any) -> str:
    """Return a text or a value on one line, without control characters, short enough for a message."""
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "�" for c in text)
    return text if len(text) <= 80 else text[:77] + "…"


class _Builder:
    """Build plain values from parser events, keeping each path's line and refusing what is not allowed."""

    def __init__(self, events: Iterator[Any], name: str) -> None:
        self.events, self.name = events, name
        self.lines: dict[Path, int] = {}

    def refuse(self, event: Any, what: str) -> StorageError:
        return StorageError(f"{self.name}:{event.start_mark.line + 1}: {what}")

    def document(self) -> Document:
        value: Any = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.refuse(event, "a second document begins here; keep one document to a file")
                value = self.node(next(self.events), ())
        return Document(value, self.lines, self.name)

    def node(self, event: Any, path: Path) -> Any:
        self.lines[path] = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise self.refuse(event, f"alias *{_short(event.anchor)} is not allowed; write the value out")
        if event.anchor is not None:
            raise self.refuse(
                event, f"anchor &{_short(event.anchor)} is not allowed; write the value out where it is used"
            )
        if event.tag is not None and event.tag != "!":
            raise self.refuse(event, f"tag {_short(event.tag)!r} is not allowed; remove it")
        if len(path) > MAX_DEPTH:
            raise self.refuse(event, f"nested deeper than {MAX_DEPTH} levels; flatten it")
        if isinstance(event, yaml.ScalarEvent):
            quoted = event.style in ("'", '"', "|", ">") or event.tag == "!"
            return event.value if quoted else self.scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(event, (*path, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, (*path, "?"))
            if not isinstance(key, str):
                raise self.refuse(event, f"key {_short(key)!r} is not a string; put it in quotes")
            if key in mapping:
                raise self.refuse(event, f"key {_short(key)!r} appears twice; remove one")
            value = next(self.events)
            mapping[key] = self.node(value, (*path, key))
            self.lines[(*path, key)] = event.start_mark.line + 1
        self.lines.pop((*path, "?"), None)
        return mapping

    def scalar(self, event: Any) -> Any:
        text: str = event.value
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INT.fullmatch(text):
            digits = len(text.lstrip("+-"))
            if digits > MAX_DIGITS:
                raise self.refuse(event, f"an integer of {digits} digits; at most {MAX_DIGITS} are allowed")
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isinf(number):
                raise self.refuse(event, f"{_short(text)} is too large for a float; write .inf if that is meant")
            return number
        return text
