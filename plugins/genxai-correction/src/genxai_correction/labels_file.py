"""Labels of images as a CSV file: which are broken and which are not."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from genxai_core import storage
from genxai_core.errors import InputError

COLUMNS = ("index", "label")
LABELS = ("normal", "artifact")
"""What a label may be; their places are the classes' indices."""

MAX_BYTES = 64_000_000

_INDEX = re.compile(r"[0-9]{1,18}", re.ASCII)


def text(labels: Mapping[int, str]) -> str:
    """Return the content of a labels file: a line ``index,label`` for each image, by its index."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for index, label in sorted(labels.items()):
        if label not in LABELS or index < 0:
            raise InputError(f"index {index}, label {label!r}: an index is 0 or more, a label {' or '.join(LABELS)}")
        writer.writerow((index, label))
    return buffer.getvalue()


def write(path: Path | str, labels: Mapping[int, str]) -> None:
    """Write a labels file, sorted by index.

    Parameters
    ----------
    path
        Where to.
    labels
        ``normal`` or ``artifact`` by the image's index.

    Raises
    ------
    InputError
        If a label is another one, or an index negative.
    """
    storage.write_text(path, text(labels))


def read(path: Path | str, count: int) -> dict[int, str]:
    """Read a labels file: UTF-8 text, columns ``index`` and ``label`` in either order, one row per labelled image.

    What a spreadsheet adds (a byte order mark, CRLF, quotes, empty lines) is read over; anything else is refused.

    Parameters
    ----------
    path
        The file.
    count
        How many images there are.

    Returns
    -------
    dict
        ``normal`` or ``artifact`` by index, sorted by index.

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing or unknown, or a row has a label that there is none of, an
        index that is no image's, or one that was there before; with the line's number.
    """
    path = Path(path)
    found: dict[int, str] = {}
    lines: dict[int, int] = {}
    for line, row in _rows(path):
        where = f"{path.name}:{line}"
        index, label = row["index"].strip(), row["label"].strip()
        if not _INDEX.fullmatch(index):
            raise InputError(f"{where}: index {index!r} is not a whole number, 0 or more")
        number = int(index)
        if number >= count:
            raise InputError(f"{where}: index {number} is out of range for {count} images, 0 to {count - 1}")
        if number in found:
            raise InputError(f"{where}: index {number} was labelled in line {lines[number]} already; keep one of both")
        if label not in LABELS:
            raise InputError(f"{where}: label {label!r} is not {' or '.join(LABELS)}")
        found[number], lines[number] = label, line
    if not found:
        raise InputError(f"{path.name}: labels no image; give a line index,label for each one that is labelled")
    return dict(sorted(found.items()))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row by its columns' names, with the line in which it ends."""
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    columns: list[str] | None = None
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = [cell.strip() for cell in row]
                if sorted(columns) != sorted(COLUMNS):
                    raise InputError(
                        f"{path.name}:{reader.line_num}: the columns are {', '.join(map(repr, columns))}, "
                        f"not {','.join(COLUMNS)}; the first line names them, with commas between"
                    )
                continue
            if len(row) != len(columns):
                raise InputError(f"{path.name}:{reader.line_num}: {len(row)} values for {len(columns)} columns")
            yield reader.line_num, dict(zip(columns, row))
    except csv.Error as error:
        raise InputError(f"{path.name}:{reader.line_num}: is not CSV: {error}") from None


def _decoded(path: Path) -> str:
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path.name}: larger than {MAX_BYTES:,} bytes; it is not a file of labels")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path.name}:{line}: is not UTF-8 text; save it as CSV UTF-8") from None
