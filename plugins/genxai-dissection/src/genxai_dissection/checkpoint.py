"""What a long run has found so far, kept in a folder for a run that would find the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from genxai_core import Runtime, storage
from genxai_core.errors import StorageError

from .fingerprint import fingerprint

T = TypeVar("T")

FORMAT = 1


def write(folder: Path, config: str, state: Any) -> None:
    """Write a state, which `genxai_core.storage.pack` can split, crash-safely."""
    tree, tensors = storage.pack({"format": FORMAT, "config": config, "state": state})
    with storage.directory(folder) as new:
        storage.write_tensors(new / "state.safetensors", tensors)
        storage.write_json(new / "state.json", tree, sort=False)


def read(folder: Path, config: str, of: str) -> Any:
    """Return the state that `write` wrote; None if there is nothing.

    Raises
    ------
    StorageError
        If it is damaged, or its configuration is another one; ``of`` says what it is a checkpoint of.
    """
    if not storage.recover(folder):
        if folder.exists():
            storage.verify(folder)  # what is damaged is told, not counted again in silence
        return None
    tensors = storage.read_tensors(folder / "state.safetensors")
    found = storage.unpack(storage.read_json(folder / "state.json"), tensors)
    if found["format"] != FORMAT or found["config"] != config:
        raise StorageError(f"{folder}: is the checkpoint of another {of}; delete it or use another folder")
    return found["state"]


class Journal:
    """What the parts of a run found, in order: a run that goes on after another was stopped takes those as they are.

    Parameters
    ----------
    name
        Of the folder, in the Runtime's ``checkpoints``; without that nothing is kept.
    runtime
        Seed, batch size, precision; ``checkpoint_seconds`` is the least time between two checkpoints.
    model, segmenter
        What is run.
    method
        The numbers and names that decide what is found.

    Raises
    ------
    StorageError
        If there is a checkpoint, and it is damaged or of something else.
    """

    def __init__(self, name: str, runtime: Runtime, model: Any, segmenter: Any, method: Mapping[str, Any]) -> None:
        self._folder = None if runtime.checkpoints is None else Path(runtime.checkpoints) / name
        self._every, self._saved = runtime.checkpoint_seconds, time.monotonic()
        self._found: list[Any] = []
        self._taken = 0
        if self._folder is not None:
            run = [runtime.seed, runtime.batch_size, runtime.precision]
            self._config = fingerprint([name, run, model, segmenter, method])
            self._found = read(self._folder, self._config, name) or []

    def take(self, find: Callable[[], T]) -> T:
        """Return what the next part found, or else finds now. Parts are asked for in the same order in every run."""
        if self._folder is None:
            return find()
        if self._taken == len(self._found):
            self._found.append(find())
            if time.monotonic() - self._saved >= self._every:
                write(self._folder, self._config, self._found)
                self._saved = time.monotonic()
        self._taken += 1
        found: T = self._found[self._taken - 1]
        return found
