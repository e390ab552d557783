"""IDX, the file format of MNIST and its relatives. http://yann.lecun.com/exdb/mnist describes it."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from genxai_core.errors import StorageError

_UNSIGNED_BYTES = 8
MAX_BYTES = 2**31
"""A header that announces more than this is not believed."""


def read(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, also gzipped (``.gz``).

    Parameters
    ----------
    path
        The file.
    dimensions
        How many axes it must have: 3 for images, 1 for labels.

    Returns
    -------
    numpy.ndarray
        uint8, in the shape that the header states.

    Raises
    ------
    StorageError
        If it is missing, damaged, of another kind, shorter or longer than its header says.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            shape = _shape(head, dimensions, path)
            length = math.prod(shape)
            data = file.read(length + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise StorageError(f"{path}: cannot be read ({error}); get the official file again") from None
    if len(data) != length:
        found = f"only {len(data):,}" if len(data) < length else "more"
        raise StorageError(
            f"{path}: its header announces {length:,} bytes and {found} follow; get the official file again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape).copy()


def _shape(head: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    """Check the magic number (0, 0, type, number of axes) and return the axes' lengths (big-endian)."""
    expected = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
    if head[:4] != expected:
        raise StorageError(
            f"{path}: begins with {head[:4].hex(' ') or 'nothing'}, not with {expected.hex(' ')} as an IDX file of "
            f"{'images' if dimensions == 3 else 'labels'} does; check which file this is"
        )
    if len(head) < 4 + 4 * dimensions:
        raise StorageError(f"{path}: ends within its header; get the official file again")
    shape = tuple(int(n) for n in np.frombuffer(head, ">u4", offset=4))
    if min(shape) < 1 or math.prod(shape) > MAX_BYTES:
        raise StorageError(f"{path}: its header announces the shape {list(shape)}; get the official file again")
    return shape
