"""The one YAML reader: YAML 1.2's core schema, and nothing that a stranger's file could use against its reader.

Refused, each with its line: aliases and anchors, tags, duplicate keys, keys that are not strings, several documents,
nesting deeper than 40 levels, files above 1 MB, integers above 18 digits. Scalars resolve as YAML 1.2 says: ``2e-5`` is
a float; ``on``, ``no`` and ``2026-02-30`` are strings.
"""

from __future__ import annotations

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
    size = len(data)
    if size > MAX_BYTES:
        raise StorageError(f"{name}: {size:,} bytes, above the limit of {MAX_BYTES:,}; split the file")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        text.encode()
    except UnicodeError as error:
        raise StorageError(f"{name}: not UTF-8 text ({error.__class__.__name__}); save it as UTF-8") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(iter(yaml.parse(text, Loader=loader)), name).document()
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark.line + 1) if error.problem_mark else 1
        raise StorageError(f"{name}:{line}: not valid YAML: {error.problem or error.context}; mend that line") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"{name}: not valid YAML: {reason}; remove that character") from None


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
            raise self.refuse(event, f"alias *{event.anchor} is not allowed; write the value out")
        if event.anchor is not None:
            raise self.refuse(event, f"anchor &{event.anchor} is not allowed; write the value out where it is used")
        if event.tag is not None and event.tag != "!":
            raise self.refuse(event, f"tag {event.tag!r} is not allowed; remove it")
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
                raise self.refuse(event, f"key {str(key)[:40]!r} is not a string; put it in quotes")
            if key in mapping:
                raise self.refuse(event, f"key {key!r} appears twice; remove one")
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
            if len(text) > MAX_DIGITS:
                raise self.refuse(event, f"an integer of {len(text)} digits; at most {MAX_DIGITS} are allowed")
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return text
