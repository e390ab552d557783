"""One HTML page on which a person clicks the images that are broken, and downloads their labels."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import jinja2
from markupsafe import Markup
from PIL import Image

from genxai_core import Samples
from genxai_core.errors import InputError
from genxai_core.plots import to_pixels

_HERE = Path(__file__).parent

_SMALLEST, _LARGEST = 112, 384
"""Pixels of an image's longer side on the page: small ones are enlarged by whole factors, large ones reduced."""


def render(samples: Samples, title: str) -> str:
    """Return the page: HTML that needs no other file and no network, and forbids itself both.

    Image i is shown as number i. A click, or the space bar, marks it; the button gives ``labels.csv`` with a line for
    every image that is shown, ``artifact`` where it is marked and ``normal`` elsewhere, as `labels_file.read` reads it.

    Parameters
    ----------
    samples
        The images, at least one; all of them are shown.
    title
        What they are, for the heading.

    Raises
    ------
    InputError
        If there are no images.
    """
    if len(samples) == 0:
        raise InputError("there are no images to label")
    height, width = samples.image_shape[1:]
    scale = max(1, -(-_SMALLEST // max(height, width)))
    reduced = min(1.0, _LARGEST / max(height, width))
    style, script = ((_HERE / f"label_page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    template = jinja2.Environment(autoescape=True).from_string(
        (_HERE / "label_page.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        title=title,
        style=Markup(style),  # these two are this package's own files
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        width=max(1, round(width * scale * reduced)),
        height=max(1, round(height * scale * reduced)),
        images=[{"index": i, "png": _png(samples[i], reduced)} for i in range(len(samples))],
    )


def _png(sample: Samples, reduced: float) -> str:
    """Encode one image as PNG, in base64."""
    pixels = to_pixels(sample.images, sample.value_range)[0]
    image = Image.fromarray((pixels * 255).round().astype("uint8"))
    if reduced < 1:
        size = (max(1, round(image.width * reduced)), max(1, round(image.height * reduced)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
