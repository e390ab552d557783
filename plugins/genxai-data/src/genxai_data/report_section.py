"""What the report adds below images: how many there are of each class, and the outlines of their masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from genxai_core import Dataset, Samples
from genxai_core.plots import COLOURS, INK, to_pixels
from genxai_core.report import Picture, Section

ROWS, PIXELS = 2000, 2_000_000
"""Of a dataset, whose images may have to be read or drawn, the first so many are counted, and no more values."""

CLASSES = 12
"""Columns of a table; of more classes, those with the most images have a row each."""

SHOWN, COLUMNS = 8, 4
"""Images with their masks, and how many of them stand in a row."""

SIDE = 2.05
"""Width of an image in the picture, in inches."""

FINE, LINE = 384, 128
"""An image is enlarged to at least so many pixels, and an outline is this part of them wide."""

MORE_COLOURS = ("#332288", "#882255", "#999933", "#AA4499", "#DDCC77")
"""Of Tol's muted palette, for more concepts than the usual colours: dots or dashes around a small mask say nothing."""


def sections(result: Any) -> Iterator[Section]:
    """Yield what there is to say of a step's result: for samples and datasets, as far as they have labels and masks.

    Parameters
    ----------
    result
        Any step's result.
    """
    if not isinstance(result, Samples | Dataset) or len(result) == 0:
        return
    if isinstance(result, Samples):
        counted = result
    else:
        counted = result[: min(len(result), ROWS, max(SHOWN, PIXELS // int(np.prod(result.image_shape))))]
    if counted.labels is not None:
        yield _classes(counted, len(result))
    if counted.masks is not None and counted.masks.any():
        yield _outlined(counted[: min(SHOWN, len(counted))])


# -- classes ----------------------------------------------------------------------------------------------------


def _classes(samples: Samples, total: int) -> Section:
    counts = class_counts(samples)
    said = [] if len(samples) == total else [f"Counted in the first {len(samples):,} of {total:,} images."]
    rows: list[Mapping[str, object]] = [counts]
    if len(counts) > CLASSES:
        most = sorted(counts.items(), key=lambda item: -item[1])[:CLASSES]
        rows = [{"class": name, "images": number} for name, number in most]
        rest = len(samples) - sum(number for _, number in most)
        said.append(f"The {CLASSES} largest of {len(counts)} classes; the others have {rest:,} images together.")
    empty = sum(number == 0 for number in counts.values())
    note = f"{empty} of {len(counts)} classes {'has' if empty == 1 else 'have'} no image here." if empty else ""
    return Section("Images of each class", " ".join(said), table=rows, note=note)


def class_counts(samples: Samples) -> dict[str, int]:
    """Return the number of images by class, in the classes' order; classes without images count too.

    A label that names no class stands by its number, and so does a class whose name is not its alone.
    """
    assert samples.labels is not None
    found, numbers = np.unique(samples.labels.cpu().numpy(), return_counts=True)
    by_label = dict.fromkeys(range(len(samples.class_names)), 0) | dict(zip(found.tolist(), numbers.tolist()))
    return {_name(label, samples.class_names): number for label, number in sorted(by_label.items())}


def _name(label: int, names: Sequence[str]) -> str:
    if not 0 <= label < len(names):
        return str(label)
    return names[label] if names.count(names[label]) == 1 and names[label].strip() else f"{label} {names[label]}"


# -- masks ------------------------------------------------------------------------------------------------------


def _outlined(samples: Samples) -> Section:
    number = len(samples)
    images = "image" if number == 1 else f"{number} images"
    picture = Picture(
        outlines(samples),
        f"The first {images} with the outlines of the masks of {', '.join(_present(samples).values())}",
        "Each outline lies inside its mask. A concept that none of these images has is not in the legend.",
    )
    return Section("Masks", figures=[picture])


def _present(samples: Samples) -> dict[int, str]:
    """Return the concepts of which the images have any pixel, by plane."""
    assert samples.masks is not None
    planes = samples.masks.any(dim=(0, 2, 3)).nonzero().flatten().tolist()
    return {k: samples.concepts[k] if k < len(samples.concepts) else f"concept {k}" for k in planes}


def outlines(samples: Samples) -> Figure:
    """Draw images with the outline of every mask, and a legend of the concepts.

    Parameters
    ----------
    samples
        At least one image, with masks.

    Returns
    -------
    Figure
        One axes per image.
    """
    assert samples.masks is not None
    present = _present(samples)
    palette = [*COLOURS, *MORE_COLOURS]
    colours = {k: palette[i % len(palette)] for i, k in enumerate(present)}
    columns = min(COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    _, height, width = samples.image_shape
    across = max(columns, 3)
    keys = -(-len(present) // across)
    size = (SIDE * columns, SIDE * height / width * rows + 0.22 * keys + 0.1)
    figure = Figure(figsize=size, facecolor="white")
    below = (0.22 * keys + 0.06) / size[1]
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={"left": 0, "right": 1, "top": 1, "bottom": below, "wspace": 0.03, "hspace": 0.03},
    ).flat
    pixels = to_pixels(samples.images, samples.value_range)
    for i, axis in enumerate(axes):
        axis.set_axis_off()
        if i < len(samples):
            axis.imshow(outlined(pixels[i], samples.masks[i].cpu().numpy(), colours), interpolation="antialiased")
    handles = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours.values()]
    labels = [name.replace("$", r"\$") for name in present.values()]  # else matplotlib reads mathematics
    figure.legend(
        handles, labels, loc="lower center", ncols=across, fontsize=8.5, frameon=False, labelcolor=INK, borderpad=0
    )
    return figure


def outlined(pixels: np.ndarray, masks: np.ndarray, colours: Mapping[int, str]) -> np.ndarray:
    """Enlarge an image by a whole number and paint the outlines of masks on it.

    An outline lies inside its mask, with a white edge towards the middle: those of masks that touch stand side by
    side, and small masks are painted over large ones.

    Parameters
    ----------
    pixels
        ``[H, W, 3]`` in [0, 1].
    masks
        Bool ``[K, H, W]``.
    colours
        By plane, as ``#rrggbb``; other planes are left out.

    Returns
    -------
    numpy.ndarray
        ``[sH, sW, 3]``, s the smallest factor that makes the longer side at least 384.
    """
    scale = -(-FINE // max(pixels.shape[:2]))
    painted = np.kron(pixels, np.ones((scale, scale, 1), dtype=pixels.dtype))
    thick = max(1, max(painted.shape[:2]) // LINE)
    for k in sorted(colours, key=lambda k: -int(masks[k].sum())):
        mask = np.kron(masks[k], np.ones((scale, scale), dtype=bool))
        core = _eroded(mask, thick)
        painted[core & ~_eroded(core, max(1, thick // 3))] = 1.0
        painted[mask & ~core] = to_rgb(colours[k])
    return painted


def _eroded(mask: np.ndarray, by: int) -> np.ndarray:
    """Take away what is nearer than so many pixels, also diagonally, to what is not in a mask or the image."""
    for axis in (0, 1):
        padded = np.pad(mask, [(by, by) if a == axis else (0, 0) for a in (0, 1)])
        length = mask.shape[axis]
        shifted = [padded.take(range(at, at + length), axis) for at in range(2 * by + 1)]
        mask = np.logical_and.reduce(shifted)
    return mask
