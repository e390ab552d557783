"""What every result promises: it survives saving, draws itself, and tabulates itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import GenxaiError
from ..explanation import Explanation
from .expectations import expect, failure
from .states import differences

_MEND_FIELDS = "let fields be tensors, numbers, texts, and tuples or mappings of them, and take them as they are given"


def check_saving(result: Explanation, path: Path, by: str) -> None:
    """Fail unless what is loaded equals what was saved, bit for bit, provenance too."""
    try:
        again = Explanation.load(result.save(path))
    except GenxaiError as error:
        raise failure(f"{by}: its {type(result).__name__} cannot be saved: {error}", _MEND_FIELDS) from error
    expect(
        type(again) is type(result),
        f"{by}: its {type(result).__name__} was loaded as {type(again).__name__}",
        "register the type: Component('explanation', type_name, 'module:Class', summary), type_name being its own",
    )
    wrong = differences(result, again) + differences(dict(result.provenance), dict(again.provenance), name="provenance")
    expect(
        not wrong,
        f"{by}: after saving and loading, {'; '.join(wrong)}",
        _MEND_FIELDS,
    )


def check_showing(result: Explanation, by: str) -> None:
    """Fail unless ``plot()`` gives a figure, ``table()`` rows of plain values, and the notebook a piece of HTML."""
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    figure = result.plot()
    expect(
        isinstance(figure, Figure),
        f"{by}: plot() of its {type(result).__name__} gave {type(figure).__name__}",
        "draw it, in any way, and return the matplotlib Figure",
    )
    pyplot.close(figure)
    rows = result.table()
    wrong = [f"{key!r}: {type(value).__name__}" for row in rows for key, value in row.items() if not _plain(key, value)]
    expect(
        rows and not wrong,
        f"{by}: table() of its {type(result).__name__} gave {len(rows)} rows{', with ' + wrong[0] if wrong else ''}",
        "return one dict per sample (or unit, or layer), of text keys and plain values: float(x), int(x), str(x)",
    )
    html = result._repr_html_()
    expect(isinstance(html, str) and html, f"{by}: _repr_html_() gave {html!r}", "leave it to the base class")


def _plain(key: Any, value: Any) -> bool:
    return isinstance(key, str) and (value is None or type(value) in (bool, int, float, str))
