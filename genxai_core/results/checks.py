"""What the result types ask of their fields, each refusal one clear line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ExplainerError

REST = "…"
"""The axis that stands for one or more further ones."""

HOLDING = ("C", "H", "W", "K")
"""Axes that are never of length 0, as those of `REST`: of an image without pixels nothing can be said."""


def tensor(
    owner: str,
    name: str,
    value: Any,
    axes: Mapping[str, int | None],
    dtype: str = "floating point",
    finite: bool = True,
) -> None:
    """Refuse what is not a tensor of these axes.

    Parameters
    ----------
    owner, name
        The result type and its field, for the message.
    axes
        Length by the axis's name, None for any: ``{"N": 8, "K": None}``; `REST` as the last one for further axes.
    dtype
        ``floating point``, ``integer`` or ``bool``.
    finite
        Whether NaN and infinities are refused.

    Raises
    ------
    ExplainerError
        Saying what the field must be and what it is.
    """
    import torch

    fixed = [length for axis, length in axes.items() if axis != REST]
    form = f"[{', '.join(axes)}]" + "".join(f", {axis} = {n}" for axis, n in axes.items() if n is not None)
    if not isinstance(value, torch.Tensor):
        raise ExplainerError(f"{owner}: {name} must be a tensor {form}, not {type(value).__name__}")
    floating = value.is_floating_point()
    kinds = {
        "floating point": floating,
        "bool": value.dtype == torch.bool,
        "integer": not (floating or value.is_complex() or value.dtype == torch.bool),
    }
    named = [*axes, *[REST] * (value.ndim - len(axes))] if REST in axes else [*axes]
    fits = len(named) == value.ndim and all(n is None or n == found for n, found in zip(fixed, value.shape))
    fits = fits and all(found for axis, found in zip(named, value.shape) if axis in (*HOLDING, REST))
    if not (fits and kinds[dtype]):
        found = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        raise ExplainerError(f"{owner}: {name} must be {dtype} {form}, not {found}")
    if finite and floating and not bool(value.isfinite().all()):
        row = int((~value.isfinite()).nonzero()[0, 0]) if value.ndim else 0
        raise ExplainerError(f"{owner}: {name} holds NaN or infinity, first in row {row}")


def images(owner: str, value: Any, finite: bool = True, **others: Any) -> None:
    """Refuse images that are not ``[N, C, H, W]``, and others that are not of the same shape, or not finite."""
    tensor(owner, "images", value, {"N": None, "C": None, "H": None, "W": None}, finite=finite)
    for name, other in others.items():
        tensor(owner, name, other, dict(zip("NCHW", value.shape)), finite=finite)


def value_range(owner: str, given: Sequence[float]) -> tuple[float, float]:
    """Return a range of pixel values as a pair of floats; an empty one is refused."""
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high:
        raise ExplainerError(f"{owner}: value_range {given} is not (smallest, largest), such as (-1.0, 1.0)")
    return low, high


def names(owner: str, name: str, given: Any) -> tuple[str, ...]:
    """Return texts as a tuple; repeated, empty or other things are refused."""
    found = (given,) if isinstance(given, str) else tuple(given)
    for text in found:
        if not isinstance(text, str) or not text.strip():
            raise ExplainerError(f"{owner}: {name} must be texts that are not empty, not {text!r}")
        if found.count(text) > 1:
            raise ExplainerError(f"{owner}: {name} holds {text!r} twice")
    return found


def member(owner: str, what: str, name: str, known: Sequence[str]) -> int:
    """Return where a name stands among those there are."""
    if name not in known:
        raise ExplainerError(
            f"{owner}: no {what} {name!r}; there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"
        )
    return known.index(name)
