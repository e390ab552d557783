"""Models of other libraries in a local folder: what refuses one before a library reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import storage


def foreign(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return what would have a library read a pickle, or a model or code from outside the folder; else None.

    transformers and diffusers tell the format of weights that a file of the folder names by the ending, and unpickle
    what is not safetensors.

    Parameters
    ----------
    folder
        Of one model, as ``save_pretrained`` writes it.
    config
        What its ``config.json`` says.

    Raises
    ------
    StorageError
        If an index of weights cannot be read.
    """
    if (folder / "adapter_config.json").exists():
        return "adapter_config.json makes it an addition to another model; give the model with that merged into it"
    rest: list[Any] = [config]
    while rest:  # parts of a model have their configurations inside its own
        value = rest.pop()
        rest += value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        found = value if isinstance(value, Mapping) else {}
        if str(found.get("model_type")).startswith("timm_") or isinstance(found.get("backbone"), str):
            return "config.json names a model of timm or of a hub, which is fetched; give one that is all in the folder"
    explicit = config.get("transformers_weights")
    named = [] if explicit is None else [("config.json", explicit)]
    for index in sorted(folder.glob("*.safetensors.index.json")):
        read = storage.read_json(index)
        shards = read.get("weight_map") if isinstance(read, dict) else None
        if not isinstance(shards, dict):
            return f"{index.name} is damaged: it has no weight_map"
        named += [(index.name, name) for name in shards.values()]
    inside = [path.name for path in folder.glob("*.safetensors") if path.is_file()]
    wrong = [f"{by} names {name!r}" for by, name in named if name not in inside]
    return f"{wrong[0]}, which is no safetensors file right in the folder" if wrong else None
