"""What a model or a segmenter is made of, as one hash: so that counts of one are not added to those of another."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genxai_core import Segmenter, Spec, saving, storage

_DESCRIBING = ("notes", "provenance")
"""Fields of results that say where they come from; nothing is computed with them."""

_BOOKKEEPING = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}
"""Attributes that torch gives to every module: hooks, and the mode, which sampling and segmenting set."""


def fingerprint(value: Any) -> str:
    """Return a hash of an object, which is the same in another process.

    What the registry built counts by its name, its parameters and its weights; modules, segmenters and dataclasses
    of other origin by their attributes. In both tensors count by content, and so do files that are named; objects of
    other types, such as functions, by their type only.
    """
    return storage.digest(_parts(value, ()))


def _parts(value: Any, above: tuple[int, ...]) -> Any:
    """Return JSON that tells values apart; ``above`` has the ids of the objects that this one is a part of."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    if isinstance(value, Tensor):
        return _content(value)
    if isinstance(value, Path):
        return storage.content_hash(value) if value.exists() else str(value)
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    recipe = value if isinstance(value, Spec) else saving.recipe_of(value)
    if recipe is not None:
        held = () if recipe is value else (value, *vars(value).values())
        weights = [module.state_dict() for module in held if isinstance(module, nn.Module)]
        return [recipe.use, _parts(recipe.params, above), _parts(weights, above)]
    if isinstance(value, list | tuple):
        return [_parts(v, above) for v in value]
    if isinstance(value, Mapping):
        return {repr(k): _parts(v, above) for k, v in value.items()}
    name = type(value).__qualname__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in _DESCRIBING}
        return [name, _parts(named, above)]
    if isinstance(value, nn.Module | Segmenter):
        skipped = _BOOKKEEPING if isinstance(value, nn.Module) else ()
        return [name, {k: _parts(v, above) for k, v in vars(value).items() if k not in skipped}]
    return name


def _content(tensor: Tensor) -> list[Any]:
    plain = tensor.detach().cpu().to_dense().resolve_conj().resolve_neg().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy().data
    return [str(tensor.dtype), list(tensor.shape), hashlib.sha256(data).hexdigest()]
