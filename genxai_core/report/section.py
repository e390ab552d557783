"""What a plugin adds to the report: sections with text, pictures and a table. Imports neither torch nor matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of the report.

    Parameters
    ----------
    image
        A matplotlib Figure, or the bytes of a PNG file.
    alt
        What it shows, in a sentence, for who cannot see it.
    caption
        Stands below it.

    Raises
    ------
    ValueError
        If ``alt`` is empty.
    TypeError
        If the image is neither a figure nor bytes.
    """

    image: Figure | bytes
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.image, bytes) and not callable(getattr(self.image, "savefig", None)):
            raise TypeError(f"a picture is a matplotlib Figure or PNG bytes, not {type(self.image).__name__}")
        if not isinstance(self.alt, str) or not self.alt.strip():
            raise ValueError("a picture needs an alt text that says what it shows")


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the report below the step whose result it tells of: what ``genxai_report_sections`` returns.

    All text is shown literally: HTML in it is not interpreted.

    Parameters
    ----------
    title
        Its heading.
    text
        Paragraphs, separated by empty lines.
    figures
        Pictures, in order.
    table
        Rows with the same keys, which become the column heads; numbers are shown with four digits.
    note
        A caveat, set apart from the text.

    Raises
    ------
    ValueError
        If the title is empty.
    TypeError
        If a figure is not a `Picture`, or a row not a mapping.
    """

    title: str
    text: str = ""
    figures: Sequence[Picture] = ()
    table: Sequence[Mapping[str, object]] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title.strip():
            raise ValueError("a section needs a title")
        for picture in self.figures:
            if not isinstance(picture, Picture):
                raise TypeError(f"section {self.title!r}: figures hold a {type(picture).__name__}; wrap it as Picture")
        for row in self.table:
            if not isinstance(row, Mapping):
                raise TypeError(f"section {self.title!r}: a table row is a {type(row).__name__}, not a mapping")
