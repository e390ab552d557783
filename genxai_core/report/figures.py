"""The standard pictures of results, and pictures as bytes that fit into a report."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from .. import plots
from ..explanation import Explanation
from ..interfaces import Dataset
from ..samples import Samples
from ..trained import Trained
from .section import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")

MAX_PIXELS = 40_000_000
"""Larger PNGs are refused: decoding one must not exhaust the memory."""


def figures_of(result: Any) -> dict[str, Figure]:
    """Return the standard pictures of a step's result, by a name that is safe as a file's.

    Samples and datasets give a grid (``images``), a training its curves (``history``), an explanation what its
    ``plot`` draws (``explanation``), or all that its ``figures()`` returns by name where its type has that; models and
    mappings of values give none.

    Raises
    ------
    ValueError
        If an explanation's ``figures()`` uses a name that is not lower-case letters, digits, ``-`` and ``_``.
    """
    if isinstance(result, Samples):
        found = {"images": result.plot() if len(result) else None}
    elif isinstance(result, Dataset):
        found = {"images": result.plot(64) if len(result) else None}
    elif isinstance(result, Trained):
        found = {"history": result.plot()}
    elif isinstance(result, Explanation):
        several = getattr(result, "figures", None)
        found = several() if callable(several) else {"explanation": result.plot()}
        for name in found:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{type(result).__name__}.figures(): {name!r} is not a name such as 'history'")
    else:
        found = {}
    return {name: figure for name, figure in found.items() if figure is not None}


def wide_grid(result: Samples | Dataset) -> Figure:
    """Draw the images of `figures_of` in rows of 16, for where nothing stands beside them."""
    shown = result[: min(64, len(result))]
    names = None
    if shown.labels is not None and shown.class_names:
        names = [shown.class_names[int(i)] for i in shown.labels]
    return plots.image_grid(shown.images, shown.value_range, labels=names, columns=min(16, len(shown)))


@dataclass(frozen=True)
class Embedded:
    """A picture as the page holds it; ``reason`` says why there is none.

    ``width`` and ``height`` are in CSS pixels: a figure's inch is 96 of them, whatever its resolution.
    """

    source: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Quality:
    """How pictures are encoded: dots per inch, and whether colours are reduced to 256."""

    dpi: int
    reduced: bool


QUALITIES = (Quality(160, False), Quality(110, True), Quality(72, True))
"""Tried in turn until everything fits."""


def embed(pictures: Sequence[Picture], budget: int) -> tuple[list[Embedded], str]:
    """Encode pictures as data URIs that together take at most ``budget`` bytes.

    Returns
    -------
    list of Embedded, str
        One per picture, and a note that tells the reader what was sacrificed; empty if nothing was.
    """
    embedded: list[Embedded] = []
    for quality in QUALITIES:
        embedded = [_encode(picture, quality) for picture in pictures]
        if sum(len(e.source) for e in embedded) <= budget:
            note = f"Pictures are shown at {quality.dpi} dots per inch and in 256 colours" if quality.reduced else ""
            return embedded, f"{note}, so that the report stays below its size limit." if note else ""
    left, dropped = budget, 0
    for i in sorted(range(len(embedded)), key=lambda i: (len(embedded[i].source), i)):
        left -= len(embedded[i].source)
        if left < 0:
            embedded[i], dropped = Embedded(reason="left out: the report would exceed its size limit"), dropped + 1
    return embedded, (
        f"{dropped} of {len(pictures)} pictures are left out and the others shown at {QUALITIES[-1].dpi} dots per "
        f"inch, so that the report stays below its size limit; the saved results hold everything."
    )


def _encode(picture: Picture, quality: Quality) -> Embedded:
    try:
        image = _decoded(picture.image, quality)
    except Exception as error:  # a third party's picture: whatever is wrong with it is shown in its place
        return Embedded(reason=f"cannot be shown: {type(error).__name__}: {error}")
    dpi = image.info.get("dpi", (96, 96))[0] or 96
    width, height = (max(1, round(side * 96 / dpi)) for side in image.size)
    buffer = io.BytesIO()
    _fewer_colours(image, quality.reduced).save(buffer, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Embedded(source, width, height)


def _decoded(image: Figure | bytes, quality: Quality) -> Image.Image:
    """Decode to plain RGB on white: nothing of a third party's file but its pixels gets into the page."""
    data = image if isinstance(image, bytes) else plots.png(image, quality.dpi)
    opened = Image.open(io.BytesIO(data), formats=["PNG"])
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(f"{opened.width}×{opened.height} pixels are too many")
    dpi = float(opened.info.get("dpi", (96, 96))[0]) or 96.0
    rgba = opened.convert("RGBA")
    plain = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if dpi > quality.dpi * 1.01:  # PNG stores dots per metre, rounded
        scale = quality.dpi / dpi
        plain = plain.resize((max(1, round(plain.width * scale)), max(1, round(plain.height * scale))))
        dpi = quality.dpi
    plain.info = {"dpi": (dpi, dpi)}
    return plain


def _fewer_colours(image: Image.Image, reduce: bool) -> Image.Image:
    """Store indices into a palette where that loses nothing, or where it has to be."""
    colours = image.getcolors(256)
    if colours is None and not reduce:
        return image
    return image.quantize(256, dither=Image.Dither.NONE)
