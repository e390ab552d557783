"""References between steps: ``$gan.generator``, ``$fakes[:16]``, ``$fakes[:16].latents``.

A reference reaches only what a result declares: a training's models, a sample's fields, an explanation's fields, a
mapping's keys. It never reaches an arbitrary attribute of an object.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..component import Spec
from ..errors import InputError

_HEAD = re.compile(r"\$([a-z][a-z0-9_-]*)")
_PART = re.compile(r"\.([A-Za-z][A-Za-z0-9_]*)|\[(-?\d{0,9})(?:(:)(-?\d{0,9})(?::(-?\d{0,9}))?)?\]")


@dataclass(frozen=True)
class Slice:
    """``[start:stop:step]``, or one index."""

    start: int | None
    stop: int | None = None
    step: int | None = None
    single: bool = False

    @property
    def index(self) -> int | slice:
        """What to index with."""
        if self.single and self.start is not None:
            return self.start
        return slice(self.start, self.stop, self.step)


@dataclass(frozen=True)
class Reference:
    """A step's result, or a part of it."""

    step: str
    path: tuple[str | Slice, ...]
    text: str

    def __repr__(self) -> str:
        return self.text


def parse(text: str) -> Reference:
    """Read a reference.

    Raises
    ------
    ValueError
        If it is malformed; the message says what a reference looks like.
    """
    head = _HEAD.match(text)
    if head is None:
        raise ValueError(f"{text!r} is not a reference; write $step, $step.name or $step[:16] (a text: '$$…')")
    at, path = head.end(), list[str | Slice]()
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or part[0] == "[]":
            raise ValueError(f"{text!r} is not a reference from character {at + 1} on; write $step.name or $step[a:b]")
        if part[1]:
            path.append(part[1])
        else:
            a, b, c = (int(g) if g not in (None, "", "-") else None for g in (part[2], part[4], part[5]))
            if c == 0 or "-" in (part[2], part[4], part[5]):
                raise ValueError(f"{text!r}: a slice is [start:stop] or [start:stop:step], with a step other than 0")
            path.append(Slice(a, b, c, single=part[3] is None))
        at = part.end()
    return Reference(head[1], tuple(path), text)


def tree(value: Any, refuse: Callable[[str, tuple[str | int, ...]], Exception], at: tuple[str | int, ...] = ()) -> Any:
    """Turn a YAML value's ``$…`` texts into References and its nested ``{use:, with:}`` into Specs.

    Parameters
    ----------
    value
        Plain values.
    refuse
        Makes the error for a message and a place.
    at
        The value's place.
    """
    if isinstance(value, str) and value.startswith("$"):
        if value.startswith("$$"):
            return value[1:]
        try:
            return parse(value)
        except ValueError as error:
            raise refuse(str(error), at) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse(f"{value} is not finite; give a number", at)
    if isinstance(value, list):
        return [tree(v, refuse, (*at, i)) for i, v in enumerate(value)]
    if isinstance(value, dict):
        if "use" not in value:
            return {k: tree(v, refuse, (*at, k)) for k, v in value.items()}
        unknown = set(value) - {"use", "with"}
        if unknown:
            raise refuse(f"unknown key {min(unknown)!r} in a nested component (allowed: use, with)", at)
        params = value.get("with", {})
        if not isinstance(value["use"], str) or not isinstance(params, dict):
            raise refuse("a nested component is {use: kind/name, with: {…}}", at)
        return Spec(value["use"], tree(params, refuse, (*at, "with")))
    return value


def references(value: Any) -> Iterator[Reference]:
    """Every reference in a tree."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, Spec):
        yield from references(dict(value.params))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)


def replace(value: Any, lookup: Callable[[Reference], Any]) -> Any:
    """Return the tree with every reference replaced by what it stands for."""
    if isinstance(value, Reference):
        return lookup(value)
    if isinstance(value, Spec):
        return Spec(value.use, replace(dict(value.params), lookup))
    if isinstance(value, list | tuple):
        return type(value)(replace(v, lookup) for v in value)
    if isinstance(value, dict):
        return {k: replace(v, lookup) for k, v in value.items()}
    return value


def follow(result: Any, reference: Reference) -> Any:
    """Return the part of a step's result that a reference names.

    Raises
    ------
    InputError
        If the result has no such part.
    """
    for part in reference.path:
        if isinstance(part, Slice):
            try:
                result = result[part.index]
            except (TypeError, IndexError, KeyError) as error:
                raise InputError(f"{reference.text}: cannot be indexed: {error}") from None
        else:
            result = _attribute(result, part, reference)
    return result


def _attribute(result: Any, name: str, reference: Reference) -> Any:
    from ..explanation import Explanation
    from ..interfaces import Dataset
    from ..samples import Samples
    from ..trained import Trained

    if isinstance(result, Dataset):
        result = result[:]
    allowed: Mapping[str, Any] = {}
    if isinstance(result, Trained):
        allowed = {**result.models, "history": result.history}
    elif isinstance(result, Samples | Explanation):
        allowed = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    elif isinstance(result, Mapping):
        allowed = result
    if name not in allowed:
        raise InputError(f"{reference.text}: there is no {name!r}; there is: {', '.join(allowed) or 'nothing'}")
    if allowed[name] is None:
        raise InputError(f"{reference.text}: these {type(result).__name__} have no {name}")
    return allowed[name]
