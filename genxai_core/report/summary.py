"""A step's result in one plain line, for the manifest and the report's table of steps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from .. import saving
from ..errors import GenxaiWarning, one_line
from ..explanation import Attribution, Explanation, GenericExplanation
from ..interfaces import Dataset
from ..samples import Samples
from ..trained import Trained
from .text import clip, short

VALUES = 6
"""Figures of a mapping that the line names; the report's table shows them all."""

LONGEST = 200


def summary_of(result: Any) -> str:
    """Say in one line what a step's result is.

    Parameters
    ----------
    result
        What a step gave.

    Returns
    -------
    str
        ``1797 images of 1×16×16``, ``generator, discriminator; 600 steps``, ``8 maps``, ``inversion: failed 1 of 8``,
        ``kid 0.0351, kid_se 0.0084``, ``discriminator/dcgan, 34,401 parameters``; the type's name for anything else. No
        line breaks, at most 200 characters and a remark on what was cut.
    """
    return clip(" ".join(_said(result).split()), LONGEST)


def _said(result: Any) -> str:
    if isinstance(result, Samples | Dataset):
        return f"{_count(len(result), 'image')} of {'×'.join(map(str, result.image_shape))}"
    if isinstance(result, Trained):
        steps = result.info.get("steps")
        return ", ".join(result.models) + (f"; {_count(steps, 'step')}" if isinstance(steps, int) else "")
    if isinstance(result, Attribution):
        return _count(len(result), "map")
    if isinstance(result, Explanation):
        name = result.original_type if isinstance(result, GenericExplanation) else result.type_name
        name = name or type(result).__name__
        if counted := summary_values(result):
            return f"{name}: {', '.join(f'{key} {short(value)}' for key, value in counted.items())}"
        return f"{name} of {_count(len(result), 'sample')}" if result.per_sample else name
    if isinstance(result, Mapping):
        named = [f"{key} {short(value)}" for key, value in list(result.items())[:VALUES]]
        return ", ".join(named) + (f", and {len(result) - VALUES} more" if len(result) > VALUES else "")
    if isinstance(result, nn.Module):
        return f"{saving.name_of(result)}, {parameters(result)}"
    return saving.name_of(result)


def summary_values(result: Explanation) -> dict[str, Any]:
    """Return what an explanation's ``summary()`` says of it, where its type has that; it may be a third party's."""
    told = getattr(result, "summary", None)
    if not callable(told):
        return {}
    try:
        return {str(key): value for key, value in told().items()}
    except Exception as error:  # a line about a result must not cost the result
        said = f"{type(result).__name__}.summary() failed: {one_line(error)}"
        warnings.warn(said, GenxaiWarning, stacklevel=2)
        return {}


def parameters(model: nn.Module) -> str:
    """Say how many parameters a model has."""
    return _count(sum(p.numel() for p in model.parameters()), "parameter")


def _count(number: int, what: str) -> str:
    written = f"{number:,}" if number >= 10_000 else str(number)
    return f"{written} {what}{'' if number == 1 else 's'}"
