"""The one safe reader and the one crash-safe writer: YAML, JSON, tensors, weights. Nothing here unpickles objects."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import safe_yaml
from .errors import StorageError

if TYPE_CHECKING:
    import torch

HASHES = "hashes.json"
"""Written last into every directory: the SHA-256 of each other file in it."""


# -- reading ----------------------------------------------------------------------------------------------------


def read_yaml(path: Path | str) -> safe_yaml.Document:
    """Read a YAML file under the rules of `safe_yaml`.

    Raises
    ------
    StorageError
        If it cannot be read or is not allowed.
    """
    path = Path(path)
    return safe_yaml.parse(_read(path, safe_yaml.MAX_BYTES), path.name)


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise StorageError(f"{path.name}: larger than the limit of {limit:,} bytes; split the file")
    return data


def read_json(path: Path | str) -> Any:
    """Read a JSON file (at most 256 MB).

    Raises
    ------
    StorageError
        If it is missing or malformed.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise StorageError(f"{path}: is not a file")  # opening a named pipe would wait for ever
    try:
        return json.loads(_read(path, 256_000_000))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: damaged JSON ({error}); delete it and run again") from None


def read_head(path: Path | str, version: int) -> dict[str, Any]:
    """Read the JSON that describes a saved folder, and check its ``format``.

    Raises
    ------
    StorageError
        If it is missing, malformed, or of another format.
    """
    head = read_json(path)
    if not isinstance(head, dict):
        raise StorageError(f"{path}: damaged; delete it and run again")
    if head.get("format") != version:
        raise StorageError(f"{path}: format {head.get('format')}; this genxai reads {version}: update genxai-core")
    return head


def read_tensors(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises
    ------
    StorageError
        If it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path}: cannot be read as safetensors: {error}") from None


def load_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a model's weights, safely: safetensors, or a PyTorch file restricted to tensors (``weights_only``).

    Parameters
    ----------
    path
        ``.safetensors``, or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` written by ``torch.save``. A checkpoint that holds
        its weights under ``state_dict`` or ``model`` is unwrapped.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    StorageError
        If the file is missing, damaged, holds anything but tensors and plain values, or holds no weights.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise StorageError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file makes the restricted unpickler fail in every way there is
        # torch's own words are not passed on: they advise to load such a file without the restriction
        raise StorageError(
            f"{path}: refused: it is damaged, or holds Python objects, not only tensors; "
            f"ask its author for a plain state_dict or safetensors"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    named = isinstance(loaded, dict) and all(isinstance(k, str) and torch.is_tensor(v) for k, v in loaded.items())
    if not named or not loaded:
        raise StorageError(f"{path}: holds no state_dict (a mapping from names to tensors)")
    return dict(loaded)


# -- values with tensors in them --------------------------------------------------------------------------------


def pack(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Split a nested value into a JSON tree and the tensors in it, so that `unpack` restores it exactly.

    Allowed are None, bool, int, float (NaN and infinities too), str, Path (as text), list, tuple, dict with string or
    integer keys, Tensor and numpy array (as tensor).

    Raises
    ------
    StorageError
        If anything else is in it; the message names the place.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(value, "", tensors), tensors


def _pack(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
        except TypeError:
            raise StorageError(f"{place or 'value'}: an array of {value.dtype} cannot be saved; use numbers") from None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.dtype == torch.complex128:
            kind = f"{value.dtype} tensor" if value.layout == torch.strided else f"{value.layout} tensor"
            raise StorageError(f"{place or 'value'}: a {kind} cannot be saved; convert it")
        key = place or "value"
        while key in tensors or key == "__metadata__":  # {"a.b": …, "a": {"b": …}}, and safetensors' own key
            key += "'"
        tensors[key] = value.detach().cpu().resolve_conj().resolve_neg().contiguous().clone()
        return {"$tensor": key}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return [_pack(v, f"{place}.{i}".lstrip("."), tensors) for i, v in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [_pack(v, f"{place}.{i}".lstrip("."), tensors) for i, v in enumerate(value)]}
    if isinstance(value, Mapping) and all(isinstance(k, str | int) for k in value):
        plain = all(isinstance(k, str) and not k.startswith("$") for k in value)
        packed = [[k, _pack(v, f"{place}.{k}".lstrip("."), tensors)] for k, v in value.items()]
        return dict(packed) if plain else {"$dict": packed}
    raise StorageError(
        f"{place or 'value'}: a {type(value).__name__} cannot be saved; use tensors, numbers, strings, lists and dicts"
    )


def unpack(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Restore what `pack` split."""
    if isinstance(tree, list):
        return [unpack(v, tensors) for v in tree]
    if isinstance(tree, dict):
        if len(tree) == 1:
            tag, inner = next(iter(tree.items()))
            if tag == "$tensor":
                if inner not in tensors:
                    raise StorageError(f"tensor {inner!r} is missing from the saved arrays")
                return tensors[inner]
            if tag == "$float":
                return float(inner)
            if tag == "$tuple":
                return tuple(unpack(v, tensors) for v in inner)
            if tag == "$dict":
                return {k: unpack(v, tensors) for k, v in inner}
        return {k: unpack(v, tensors) for k, v in tree.items()}
    return tree


# -- writing ----------------------------------------------------------------------------------------------------


def json_text(value: Any, *, sort: bool = True) -> str:
    """Return JSON as genxai writes it: sorted keys, two spaces, a final newline. NaN is refused."""
    return json.dumps(value, indent=2, sort_keys=sort, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path | str, text: str) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_json(path: Path | str, value: Any, *, sort: bool = True) -> None:
    """Write JSON crash-safely. What `pack` returned is written with ``sort=False``: the order of keys is part of it."""
    write_text(path, json_text(value, sort=sort))


def write_tensors(path: Path | str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file. Call it inside `directory`, which makes the whole crash-safe."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(path))


@contextlib.contextmanager
def directory(target: Path | str) -> Iterator[Path]:
    """Write a whole directory crash-safely.

    Yields a temporary directory beside the target. When the block ends, all files are flushed to disk, `HASHES` is
    written last, and the directory is renamed into place; a previous one stays until the new one is complete. If the
    block raises, the target is as it was.

    Raises
    ------
    StorageError
        If the target holds something that genxai did not write: it is not replaced.
    """
    target = Path(target)
    if target.exists() and not (target / HASHES).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise StorageError(f"{target}: holds something that genxai did not write; choose another folder, or delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        write_json(temporary / HASHES, hashes(temporary))
        for path in sorted(temporary.rglob("*"), reverse=True):
            _sync(path)
        _sync(temporary)
        verify(temporary)
        previous = target.with_name(f".{target.name}.old-{os.getpid()}")
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)  # what an interrupted process of this number left
            target.rename(previous)
        try:
            temporary.rename(target)
        except BaseException:
            recover(target)
            raise
        _sync(target.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove unfinished directories that killed processes left beside a target, a day old: no writing takes so long."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.new-*"):
        if left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)


def recover(target: Path | str) -> bool:
    """Return whether a complete directory is at the target, after undoing what a crash between two renames left.

    `directory` renames the old one away before the new one comes; killed just there, the old one is put back.
    """
    target = Path(target)
    if not target.exists():
        olds = sorted(target.parent.glob(f".{target.name}.old-*"), key=lambda p: p.stat().st_mtime)
        for old in reversed(olds):
            if is_complete(old):
                old.rename(target)
                break
    return is_complete(target)


def is_complete(path: Path | str) -> bool:
    """Whether a directory written by `directory` is there and every file in it has its hash."""
    try:
        verify(path)
    except StorageError:
        return False
    return True


def verify(path: Path | str) -> dict[str, str]:
    """Check every file of a directory against its `HASHES`, and return them.

    Raises
    ------
    StorageError
        Naming the first file that is missing or changed.
    """
    path = Path(path)
    if not (path / HASHES).is_file():
        raise StorageError(f"{path}: not a complete genxai directory ({HASHES} is missing)")
    recorded: dict[str, str] = read_json(path / HASHES)
    if not isinstance(recorded, dict):
        raise StorageError(f"{path / HASHES}: damaged; delete {path} and run again")
    strange = [p for p in path.rglob("*") if p.is_symlink() or not (p.is_file() or p.is_dir())]
    if strange:
        raise StorageError(f"{strange[0]}: is a link or a device, which genxai never writes; delete {path}")
    actual = hashes(path)
    for name in sorted(set(recorded) | set(actual)):
        if recorded.get(name) != actual.get(name):
            state = "missing" if name not in actual else "changed" if name in recorded else "not part of it"
            raise StorageError(f"{path / name}: {state} since it was written; delete {path} and run again")
    return recorded


# -- hashing ----------------------------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(path: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory but its own `HASHES`, by POSIX path."""
    return {
        p.relative_to(path).as_posix(): file_hash(p)
        for p in sorted(path.rglob("*"))
        if p.is_file() and p != path / HASHES
    }


def content_hash(path: Path) -> str:
    """One SHA-256 for a file, or for all files below a directory with their names."""
    return file_hash(path) if path.is_file() else digest(hashes(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
