"""What the adapters of other libraries share: imports that may fail, and models read strictly from local folders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from genxai_core import storage
from genxai_core.errors import NotInstalled, StorageError, one_line
from genxai_core.local_folder import foreign

REQUIREMENTS = {
    "diffusers": "diffusers>=0.38",
    "torchvision": "torchvision>=0.25",
    "transformers": "transformers>=5.3 torchvision>=0.25",
}
"""What pip is to install for each; the same as this distribution's extras."""


class Settings(dict[str, Any]):
    """A configuration with its entries as attributes, as diffusers has it, but one that can be written.

    diffusers' own refuses every write, also that of `genxai_core.guard`, which puts back what it has found.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@contextmanager
def needs(library: str, by: str) -> Iterator[None]:
    """Turn the failure of an import in the block into one line that says how to install the library.

    Raises
    ------
    NotInstalled
        If an import fails.
    """
    try:
        yield
    except ImportError as error:
        wanted = " ".join(f"'{each}'" for each in REQUIREMENTS[library].split())
        raise NotInstalled(
            f"{by} needs {library}, which cannot be imported ({brief(error)}): {sys.executable} -m pip install {wanted}"
        ) from error


@contextmanager
def damage(file: Path, by: str) -> Iterator[None]:
    """Turn what a library makes of values that no file should hold, any exception there is, into one line.

    Raises
    ------
    StorageError
        If the block fails.
    """
    try:
        yield
    except Exception as error:
        raise StorageError(f"{file}: {by} cannot use what it says: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """Return an error on one line of at most 300 characters: the libraries list every key that does not fit."""
    text = one_line(error)
    return text if len(text) <= 300 else text[:297] + "..."


def read_config(folder: Path, name: str, by: str) -> dict[str, Any]:
    """Read a JSON file of a model's folder.

    Raises
    ------
    StorageError
        If there is no such folder or file, or it is damaged.
    """
    if not folder.is_dir():
        raise StorageError(
            f"{folder}: {by} finds no such folder; give one that save_pretrained wrote, nothing is fetched"
        )
    if not (folder / name).is_file():
        raise StorageError(f"{folder}: {by} finds no {name} in it; give the folder that save_pretrained wrote")
    found = storage.read_json(folder / name)
    if not isinstance(found, dict):
        raise StorageError(f"{folder / name}: damaged: it holds a {type(found).__name__}, not an object")
    return found


def load(read: Callable[..., Any], folder: Path, by: str, **options: Any) -> nn.Module:
    """Read a model with a library's ``from_pretrained``: local, safetensors only, every weight present, none left over.

    Parameters
    ----------
    read
        The library's function.
    folder
        Where ``config.json`` and the weights are.
    by
        Who asks, for the message.
    **options
        Further arguments of the function.

    Returns
    -------
    Module
        In eval mode, float32, on the CPU.

    Raises
    ------
    StorageError
        If the weights are pickled, missing, damaged, outside the folder, or do not fit the configuration.
    """
    config = read_config(folder, "config.json", by)
    if "quantization_config" in config:
        raise StorageError(f"{folder}: its weights are quantised, which {by} does not read; give unquantised ones")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".ckpt", ".pt", ".pth"))
        found = f"only pickled weights ({', '.join(pickled)}), which can hold code" if pickled else "no weights"
        raise StorageError(f"{folder}: holds {found}; {by} reads safetensors, as save_pretrained writes them")
    if refused := foreign(folder, config):
        raise StorageError(f"{folder}: {by} does not read it: {refused}")
    try:
        model, told = read(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # damage, foreign weights and unknown names fail in every way there is
        raise StorageError(f"{folder}: {by} cannot load it: {brief(error)}") from error
    wrong = [
        f"{what} {', '.join(map(str, list(told[key])[:3]))}" + (" …" if len(told[key]) > 3 else "")
        for key, what in (("missing_keys", "lacks"), ("unexpected_keys", "has besides"), ("mismatched_keys", "resizes"))
        if told.get(key)
    ]
    if wrong:
        raise StorageError(f"{folder}: the weights do not fit config.json: the file {'; '.join(wrong)}")
    module: nn.Module = model.eval()
    for part in module.modules():
        if "_internal_dict" in vars(part):
            vars(part)["_internal_dict"] = Settings(vars(part)["_internal_dict"])
    return module
