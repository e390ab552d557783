"""Images on disk, one subfolder per class."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from genxai_core import Dataset, GenxaiWarning, Samples
from genxai_core.errors import InputError

from .images import Store, check_range, check_size, scaled

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
"""A file is opened as one of these whatever it is called, so that no other of Pillow's decoders is reached."""

_SHOWN = 3
_THREADS = 4


class Folder(Dataset):
    """Images below a folder: ``root/<class>/…/image.png`` with labels, or ``root/image.png`` without.

    Files ending in .png, .jpg, .jpeg, .bmp, .webp, .tif or .tiff (in any case) count, in the order of their paths;
    other files, names that begin with a dot, and subfolders without images do not. Every image is turned as its EXIF
    orientation says, laid on white where it is transparent, cropped to its central square, and resized with an
    antialiased bicubic filter. Pixels of 16 bits are reduced to 8, and of several frames the first is taken.

    All images are decoded once when the dataset is made, so that a broken one is known by then and not in the middle
    of a training; after that they are read when asked for. An image with more pixels than Pillow's
    ``Image.MAX_IMAGE_PIXELS`` (89 million) is broken too.

    Parameters
    ----------
    root
        The folder.
    size
        Height and width in pixels, 8 to 1024.
    channels
        3 for RGB, 1 for grey.
    value_range
        Smallest and largest pixel value.
    max_broken
        The share of broken images, 0 to 1, up to which they are skipped with a warning.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    InputError
        If there is no such folder, no image in it, images both beside and inside subfolders, a link that leads out of
        the folder or to another folder, or if more images are broken than ``max_broken`` allows.
    """

    def __init__(
        self,
        root: Path,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        value_range: tuple[float, float] = (-1.0, 1.0),
        max_broken: float = 0.0,
    ) -> None:
        if not 0 <= max_broken <= 1:
            raise ValueError(f"max_broken {max_broken} is not a share between 0 and 1")
        self.root = Path(root)
        self.size, self.channels = check_size(size, 8, 1024), channels
        self.value_range = check_range(value_range)
        self.image_shape = (channels, size, size)
        found = _find(self.root)
        self.files = _readable(self.root, found, max_broken)
        # a class keeps its number also where all its images are broken
        self.class_names = tuple(sorted({name for f in found if (name := _class_of(self.root, f))}))
        self._store = Store(self._read)

    def __len__(self) -> int:
        return len(self.files)

    def _read(self, row: int) -> np.ndarray:
        file = self.files[row]
        try:
            image = _decoded(file, "RGB" if self.channels == 3 else "L")
        except MemoryError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{file}: could be read before and cannot now ({reason}); restore it") from error
        fitted = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(fitted).reshape(self.size, self.size, self.channels).transpose(2, 0, 1).copy()

    def _samples(self, rows: list[int]) -> Samples:
        labels = None
        if self.class_names:
            classes = [self.class_names.index(_class_of(self.root, self.files[row])) for row in rows]
            labels = torch.tensor(classes, dtype=torch.long)
        return Samples(
            scaled(self._store.stack(rows), 255, self.value_range),
            labels=labels,
            value_range=self.value_range,
            class_names=self.class_names,
        )


def _class_of(root: Path, file: Path) -> str:
    """Return the first folder below the root; empty for a file that lies directly in it."""
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


# -- finding ----------------------------------------------------------------------------------------------------


def _find(root: Path) -> list[Path]:
    """Return the image files in a fixed order."""
    if not root.is_dir():
        raise InputError(f"root {root}: no such folder")
    found: list[Path] = []
    inside = root.resolve()
    for folder, subfolders, names in os.walk(root, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in subfolders:
            if (Path(folder) / name).is_symlink():
                raise InputError(
                    f"{Path(folder) / name}: a link to a folder is not followed; put the folder itself there"
                )
        for name in names:
            file = Path(folder) / name
            if file.suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            if not file.resolve().is_relative_to(inside):
                raise InputError(f"{file}: this link leads out of {root}; put the image itself there")
            if not file.is_file():  # a pipe would be waited for
                raise InputError(f"{file}: not a regular file; remove it")
            found.append(file)
    if not found:
        raise InputError(f"root {root}: no image in it; these count: {', '.join(sorted(SUFFIXES))}")
    loose = [file for file in found if not _class_of(root, file)]
    if loose and len(loose) < len(found):
        raise InputError(
            f"root {root}: {len(loose)} images lie beside the class folders (such as {loose[0].name}); "
            f"move them into a folder, or give a root with images only"
        )
    return sorted(found, key=lambda file: file.relative_to(root).parts)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read: {error.strerror}; change its permissions") from None


def _readable(root: Path, found: list[Path], max_broken: float) -> list[Path]:
    """Decode every image; return those that can be, or refuse."""
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such an image is refused below
        problems = list(pool.map(_problem, found))
    broken = [(file, problem) for file, problem in zip(found, problems) if problem]
    if not broken:
        return found
    share = len(broken) / len(found)
    named = "; ".join(f"{file.relative_to(root)} ({problem})" for file, problem in broken[:_SHOWN])
    more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    text = f"root {root}: {len(broken)} of {len(found)} images are broken: {named}{more}"
    if share > max_broken or len(broken) == len(found):
        skip = f", or skip them with max_broken: {np.ceil(share * 1000) / 1000:g}" if share < 1 else ""
        raise InputError(f"{text}. Mend or remove them{skip} (it is {max_broken:g})")
    warnings.warn(f"{text}. They are skipped, as max_broken {max_broken:g} allows", GenxaiWarning, stacklevel=4)
    bad = {file for file, _ in broken}
    return [file for file in found if file not in bad]


# -- decoding ---------------------------------------------------------------------------------------------------


def _problem(file: Path) -> str:
    """Return why an image cannot be decoded, on one line; empty if it can."""
    try:
        _decoded(file, "RGB")
    except MemoryError:
        raise
    except Exception as error:  # on damaged files decoders raise whatever they stumble over
        return " ".join((str(error) or type(error).__name__).replace(str(file), file.name).split())[:120]
    return ""


def _decoded(file: Path, mode: Literal["RGB", "L"]) -> Image.Image:
    """Decode an image, upright, opaque, in 8 bits."""
    with Image.open(file, formats=FORMATS) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ValueError(f"{image.width}x{image.height} pixels, more than the limit of {limit:,}")
        upright: Image.Image = ImageOps.exif_transpose(image)
        if upright.mode == "F":
            raise ValueError("floating-point pixels, whose range is not known")
        if upright.mode.startswith("I"):
            levels = np.asarray(upright)
            if levels.min() < 0 or levels.max() > 65535:
                raise ValueError("32-bit pixels beyond 0…65535")
            upright = Image.fromarray((levels // 257).astype(np.uint8))
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        return upright.convert(mode)
