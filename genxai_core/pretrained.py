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


def cards(target: Any) -> dict[str, dict[str, Any]]:
    """Return what is shipped with a class: name -> recipe, seed, data, metrics, hash; empty where there is nothing.

    Raises
    ------
    StorageError
        If the file that says so is damaged.
    """
    folder = vars(target).get("pretrained_folder") if inspect.isclass(target) else None
    if folder is None or not (Path(folder) / CARDS).is_file():
        return {}
    found: dict[str, dict[str, Any]] = storage.read_json(Path(folder) / CARDS)
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


def take(target: Any, params: dict[str, Any]) -> str | None:
    """Take the name of shipped weights out of a constructor's parameters; None where there is none."""
    shipped = cards(target) and PARAMETER not in inspect.signature(target).parameters
    return params.pop(PARAMETER, None) if shipped else None


def load(target: Any, name: str, params: Mapping[str, Any], *, use: str, where: str = "") -> nn.Module:
    """Build a shipped model: hashes checked, weights matched strictly, in eval mode, half precision made single.

    Parameters
    ----------
    target
        Its class.
    name
        One of `cards`.
    params
        What else was given to the constructor. It may repeat what the model was built with, and nothing else.
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
    import torch

    from . import saving

    folder = Path(target.pretrained_folder) / name
    if storage.content_hash(folder) != cards(target)[name].get("hash"):
        raise StorageError(f"{folder}: is not what its card says; reinstall the plugin")
    model = saving.load_model(folder)
    recipe = saving.recipe_of(model)
    if recipe is None or recipe.use.partition("@")[0] != use:
        raise StorageError(f"{folder}: holds {saving.name_of(model)}, not {use}; reinstall the plugin")
    bound = inspect.signature(target).bind_partial(**recipe.params)
    bound.apply_defaults()
    for key, value in params.items():
        if _plain(value) != _plain(bound.arguments[key]):
            raise BadParameter(
                f"{f'{where}.' if where else f'{use}: '}{key}: the weights {name!r} are for {bound.arguments[key]!r}, "
                f"not {value!r}; leave {key} out, or {PARAMETER}"
            )
    if any(v.dtype == torch.float16 for v in model.state_dict().values()):
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

    folder = getattr(type(model), "pretrained_folder", None)
    if folder is None or not _NAME.fullmatch(name):
        said = (
            "has no pretrained_folder" if folder is None else f"cannot be shipped as {name!r}; use a name-with-hyphens"
        )
        raise StorageError(f"{type(model).__name__} {said}")
    path = saving.save_model(model, Path(folder) / name)
    written = {**cards(type(model)), name: {**card, "hash": storage.content_hash(path)}}
    storage.write_json(Path(folder) / CARDS, written)
    return path


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
