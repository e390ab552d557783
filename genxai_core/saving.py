"""Save and load what a step makes: models by recipe and safetensors, samples, trainings, explanations, values.

A model is saved as the registry name and parameters that built it (its *recipe*) and its weights. Loading builds it
again through the registry: no pickle, ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import registry, storage
from .component import Spec
from .errors import StorageError, one_line
from .explanation import Explanation
from .guard import guard
from .interfaces import Dataset
from .samples import Samples
from .trained import Trained

FORMAT = 1
Build = Callable[[], Any]
_RECIPE = "_genxai_recipe"


# -- recipes ----------------------------------------------------------------------------------------------------


def stamp(built: Any, use: str, params: Mapping[str, Any]) -> None:
    """Note on an object which registry name and parameters built it."""
    if hasattr(built, "__dict__"):
        built.__dict__[_RECIPE] = Spec(use, dict(params))


def recipe_of(built: Any) -> Spec | None:
    """Return what `stamp` noted, or None for an object that the registry did not build."""
    return getattr(built, "__dict__", {}).get(_RECIPE)


def name_of(built: Any) -> str:
    """Return the registry name that built an object, else its class's name."""
    recipe = recipe_of(built)
    return recipe.use if recipe else type(built).__qualname__


def describe(value: Any) -> Any:
    """Return plain values that tell a reader what an object is: recipes in full, tensors by shape."""
    recipe = value if isinstance(value, Spec) else recipe_of(value)
    if recipe is not None:
        return {"use": recipe.use, "with": {k: describe(v) for k, v in recipe.params.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return value.name
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, torch.Tensor):
        return f"tensor {list(value.shape)}"
    return type(value).__qualname__


def _encode(value: Any, saved: Set[int]) -> Any:
    """Replace what a recipe's parameters hold: components by recipes, models with their weights, results by fields.

    ``saved`` holds the ids of modules whose weights are saved already, as parts of the model whose recipe this is.
    """
    if isinstance(value, Spec):
        return {"$spec": [value.use, {k: _encode(v, saved) for k, v in value.params.items()}]}
    if isinstance(value, list | tuple):
        return type(value)(_encode(v, saved) for v in value)
    if isinstance(value, Mapping):
        return {k: _encode(v, saved) for k, v in value.items()}
    if isinstance(value, Path):
        return {"$path": str(value)}
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value
    if isinstance(value, Samples | Explanation):
        kind = f"explanation/{value.type_name}" if isinstance(value, Explanation) else "samples"
        return {"$result": [kind, {f.name: getattr(value, f.name) for f in fields(value)}]}
    recipe = _recipe(value)
    encoded: list[Any] = [recipe.use, {k: _encode(v, saved) for k, v in recipe.params.items()}]
    if isinstance(value, nn.Module) and id(value) not in saved:
        encoded.append(dict(value.state_dict()))
    return {"$built": encoded}


def _decode(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_decode(v) for v in value)
    if isinstance(value, dict):
        if set(value) == {"$spec"}:
            use, params = value["$spec"]
            return Spec(use, _decode(params))
        if set(value) == {"$path"}:
            return Path(value["$path"])
        if set(value) == {"$result"}:
            kind, values = value["$result"]
            return (Samples if kind == "samples" else registry.resolve(kind))(**values)
        if set(value) == {"$built"}:
            use, params, *weights = value["$built"]
            built = registry.default().create(use, params=_decode(params))
            return _load_weights(built, weights[0], use) if weights else built
        return {k: _decode(v) for k, v in value.items()}
    return value


def _recipe(built: Any) -> Spec:
    recipe = recipe_of(built)
    if recipe is None:
        raise StorageError(
            f"{type(built).__qualname__} was not built through the registry, so it cannot be saved: register its class "
            f"in a plugin (a file is enough: --plugin ./my_models.py) and build it with genxai_core.create(…)"
        )
    return recipe


def _pack_recipe(built: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    recipe = _recipe(built)
    saved = {id(m) for m in built.modules()} if isinstance(built, nn.Module) else set()
    tree, tensors = storage.pack({"use": recipe.use, "with": _encode(dict(recipe.params), saved)})
    return tree, {f"recipe.{k}": v for k, v in tensors.items()}


def _build(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    recipe = storage.unpack(tree, {k.removeprefix("recipe."): v for k, v in tensors.items()})
    return registry.default().create(recipe["use"], params=_decode(recipe["with"]))


# -- models -----------------------------------------------------------------------------------------------------


def save_model(model: nn.Module, path: Path | str) -> Path:
    """Write a model as a folder: recipe (JSON) and weights (safetensors).

    Raises
    ------
    StorageError
        If it was not built through the registry; the message names ``--plugin``.
    """
    return save_result(model, path)


def load_model(path: Path | str) -> nn.Module:
    """Read what `save_model` wrote: built through the registry, weights matched strictly, in eval mode, on the CPU.

    Raises
    ------
    StorageError
        If the folder is damaged, holds no model, or the weights do not fit.
    RegistryError
        If the component is not installed.
    """
    model = load_result(path)
    if not isinstance(model, nn.Module):
        raise StorageError(f"{path}: holds a {type(model).__name__}, not a model")
    return model


def _write_model(model: nn.Module, folder: Path, name: str) -> Any:
    tree, tensors = _pack_recipe(model)
    weights = {f"weights.{k}": v for k, v in model.state_dict().items()}
    storage.write_tensors(_model_file(folder, name), {**tensors, **weights})
    return tree


def _read_model(tree: Any, folder: Path, name: str, build: Build | None = None) -> nn.Module:
    tensors = storage.read_tensors(_model_file(folder, name))
    recipe = {k: v for k, v in tensors.items() if k.startswith("recipe.")}
    model: nn.Module = build() if build else _build(tree, recipe)
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    return _load_weights(model, weights, f"{folder}: {name}")


def _load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], what: str) -> nn.Module:
    _cast(model, weights)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise StorageError(f"{what}: the weights do not fit the architecture: {reason}") from None
    return model.eval()


def _cast(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give each part the precision that it was saved in, which loading alone would not: what was double is double."""
    precisions = {v.dtype for v in weights.values() if v.is_floating_point()}
    if len(precisions) == 1:
        module.to(precisions.pop())  # with the buffers that are not saved
        return
    for name, own in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if own.is_floating_point() and name in weights and weights[name].is_floating_point():
            own.data = own.data.to(weights[name].dtype)
    for name, part in module.named_children():
        _cast(part, {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")})


def _model_file(folder: Path, name: str) -> Path:
    if name == "training" or not name.isidentifier():
        raise StorageError(f"a model cannot be saved under the name {name!r}; use an identifier other than 'training'")
    return folder / f"{name}.safetensors"


# -- any result -------------------------------------------------------------------------------------------------


def save_result(result: Any, path: Path | str) -> Path:
    """Write any result of a step as a folder with a ``result.json``, crash-safely.

    Raises
    ------
    StorageError
        If it is none of: Explanation, Samples, Trained, a registered model, dataset or other component, or a mapping
        of plain values.
    """
    path = Path(path)
    with storage.directory(path) as folder:
        storage.write_json(folder / "result.json", {"format": FORMAT, **_write(result, folder)}, sort=False)
    return path


def _write(result: Any, folder: Path) -> dict[str, Any]:
    if isinstance(result, Explanation):
        result._write(folder)
        return {"type": "explanation"}
    if isinstance(result, Samples):
        tree, tensors = storage.pack({f.name: getattr(result, f.name) for f in fields(result)})
        storage.write_tensors(folder / "arrays.safetensors", tensors)
        return {"type": "samples", "fields": tree}
    if isinstance(result, Trained):
        models = {name: _write_model(model, folder, name) for name, model in result.models.items()}
        tree, tensors = storage.pack({"history": dict(result.history), "info": dict(result.info)})
        storage.write_tensors(folder / "training.safetensors", tensors)
        return {"type": "trained", "models": models, "training": tree}
    if isinstance(result, nn.Module):
        return {"type": "model", "model": _write_model(result, folder, "model")}
    if isinstance(result, Mapping):
        tree, tensors = storage.pack(dict(result))
        storage.write_tensors(folder / "values.safetensors", tensors)
        return {"type": "values", "values": tree}
    tree, tensors = _pack_recipe(result)
    storage.write_tensors(folder / "recipe.safetensors", tensors)
    return {"type": "dataset" if isinstance(result, Dataset) else "component", "recipe": tree}


def load_result(path: Path | str, build: Build | None = None) -> Any:
    """Read what `save_result` wrote, after checking every file's hash.

    Parameters
    ----------
    path
        The folder.
    build
        Builds the component anew where the result is one that is saved as its recipe (a dataset, a model), instead of
        by that recipe: a recipe may name paths that were elsewhere when it was written.

    Raises
    ------
    StorageError
        If the folder is damaged or of a later format.
    RegistryError
        If a component in it is not installed.
    """
    with guard():  # building a model draws its first weights; the caller's random generators are left as they are
        try:
            return _load(Path(path), build)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StorageError(f"{path}: cannot be read, {one_line(error)}; delete it and run again") from error


def _load(path: Path, build: Build | None) -> Any:
    storage.verify(path)
    head = storage.read_head(path / "result.json", FORMAT)
    kind = head.get("type")
    if kind == "explanation":
        return Explanation.load(path)
    if kind == "samples":
        return Samples(**storage.unpack(head["fields"], storage.read_tensors(path / "arrays.safetensors")))
    if kind == "trained":
        training = storage.unpack(head["training"], storage.read_tensors(path / "training.safetensors"))
        models = {name: _read_model(tree, path, name) for name, tree in head["models"].items()}
        return Trained(models, training["history"], training["info"])
    if kind == "model":
        return _read_model(head["model"], path, "model", build)
    if kind == "values":
        return storage.unpack(head["values"], storage.read_tensors(path / "values.safetensors"))
    if kind in ("dataset", "component"):
        return build() if build else _build(head["recipe"], storage.read_tensors(path / "recipe.safetensors"))
    raise StorageError(f"{path}: unknown result type {kind!r}; update genxai-core")
