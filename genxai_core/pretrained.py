"""Weights that a plugin ships: saved models in a folder of its package, asked for by name.

A model's class says where they are: ``pretrained_folder = Path(__file__).parent / "pretrained" / "dcgan"``. The
component then takes one parameter more, ``pretrained``: ``create("generator/dcgan", pretrained="digits")``. The folder
holds a saved model for each name, and ``cards.json``, which says how each was made and what came out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import storage
from .errors import BadParameter, StorageError

if TYPE_CHECKING:
    from torch import nn

PARAMETER = "pretrained"
CARDS = "cards.json"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def folder_of(target: Any) -> Path | None:
    """Return where a class says that its weights are; a subclass ships nothing of its base's."""
    folder = vars(target).get("pretrained_folder") if inspect.isclass(target) else None
    return None if folder is None else Path(folder)


def cards(target: Any) -> dict[str, dict[str, Any]]:
    """Return what is shipped with a class: name -> recipe, seed, data, metrics, hash; empty where there is nothing.

    Raises
    ------
    StorageError
        If the file that says so is damaged.
    """
    folder = folder_of(target)
    if folder is None or not (folder / CARDS).is_file():
        return {}
    try:
        found: dict[str, dict[str, Any]] = storage.read_json(folder / CARDS)
        whole = all(isinstance(card["hash"], str) for card in found.values())
    except (StorageError, AttributeError, TypeError, KeyError):
        whole = False
    if not whole:
        raise StorageError(f"{folder / CARDS}: damaged; reinstall the plugin")
    return found


def extend(signature: inspect.Signature, target: Any) -> inspect.Signature:
    """Give a constructor's signature the parameter ``pretrained``, where its class ships weights."""
    names = tuple(cards(target))
    if not names or PARAMETER in signature.parameters:
        return signature
    chosen = f"Literal[{', '.join(map(repr, names))}] | None"
    own = inspect.Parameter(PARAMETER, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=chosen)
    given = list(signature.parameters.values())
    rest = [p for p in given if p.kind is p.VAR_KEYWORD]
    return signature.replace(parameters=[*(p for p in given if p not in rest), own, *rest])


def is_own(target: Any) -> bool:
    """Say whether ``pretrained`` is a parameter of ours, not one that the constructor has."""
    return bool(cards(target)) and PARAMETER not in inspect.signature(target).parameters


def agree(target: Any, name: str, params: Mapping[str, Any], *, use: str, where: str = "") -> dict[str, Any]:
    """Return the parameters that shipped weights were saved with, and the free ones that are given.

    Free are those that the class names in ``pretrained_free``: they are no part of the architecture.

    Parameters
    ----------
    target
        The class.
    name
        One of `cards`.
    params
        What else is given to the constructor. It may repeat what the model was saved with.
    use
        The component's full name.
    where
        The place in a file that an error names.

    Raises
    ------
    BadParameter
        If a parameter is not what the weights are for.
    StorageError
        If the files are damaged, or of another component.
    """
    folder = Path(target.pretrained_folder) / name
    saved = storage.unpack(storage.read_json(folder / "result.json")["model"], {})
    if saved["use"].partition("@")[0] != use:
        raise StorageError(f"{folder}: holds {saved['use']}, not {use}; reinstall the plugin")
    bound = inspect.signature(target).bind_partial(**saved["with"])
    bound.apply_defaults()
    free = {k: v for k, v in params.items() if k in getattr(target, "pretrained_free", ())}
    for key in params.keys() - free.keys():
        if _plain(params[key]) != _plain(bound.arguments[key]):
            raise BadParameter(
                f"{f'{where}.' if where else f'{use}: '}{key}: the weights {name!r} are for {bound.arguments[key]!r}, "
                f"not {params[key]!r}; take parameters and data that fit them, or leave {PARAMETER} out"
            )
    return {**saved["with"], **free}


def load(target: Any, name: str, built_with: Mapping[str, Any]) -> nn.Module:
    """Build a shipped model with what `agree` returned: hashes checked, weights strict, eval mode, half made single.

    Raises
    ------
    StorageError
        If the files are not those of the card, or the weights do not fit.
    """
    import torch

    from . import saving

    folder = Path(target.pretrained_folder) / name
    if storage.content_hash(folder) != cards(target)[name]["hash"]:
        raise StorageError(f"{folder}: is not what its card says; reinstall the plugin")
    model: nn.Module = saving.load_result(folder, build=lambda: target(**built_with))
    if any(v.dtype in (torch.float16, torch.bfloat16) for v in model.state_dict().values()):
        model.float()
    return model


def ship(model: nn.Module, name: str, card: Mapping[str, Any]) -> Path:
    """Save a model among those that its class ships, as it is: ``model.half()`` first saves half of the room.

    Parameters
    ----------
    model
        A model that the registry built.
    name
        What users will ask for: lower-case words with hyphens between them.
    card
        Plain values: recipe, seed, data, metrics.

    Returns
    -------
    Path
        Its folder.

    Raises
    ------
    StorageError
        If its class names no ``pretrained_folder``, the name is another one, or the registry did not build it.
    """
    from . import saving

    folder = folder_of(type(model))
    if folder is None or not _NAME.fullmatch(name):
        said = (
            "has no pretrained_folder" if folder is None else f"cannot be shipped as {name!r}; use a name-with-hyphens"
        )
        raise StorageError(f"{type(model).__name__} {said}")
    path = saving.save_model(model, folder / name)
    written = {**cards(type(model)), name: {**card, "hash": storage.content_hash(path)}}
    storage.write_json(folder / CARDS, written)
    return path


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
