"""The page on results: its code runs and shows what it says, and its tables name every field."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import genxai_core as gx
from genxai_core import plots

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "results.md"


@pytest.fixture(scope="module")
def made():
    """What the page's code leaves behind."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    names = {}
    exec(code, names)
    return names


def test_blends_of_digits_mostly_fail_as_the_page_says(made):
    changed = made["changed"]
    assert 0 < int(changed.valid.sum()) < 8
    assert set(changed.reasons) == {"", "no flip"}


def test_the_mirrored_digits_fail_and_the_others_do_not(made):
    assert made["found"].failed.tolist() == [False] * 6 + [True] * 2
    assert made["found"].history.shape == (8, 100)


def test_the_directions_do_what_they_are_named_after(made):
    directions = made["directions"]
    bright = directions.images[0].mean((1, 2, 3))
    assert bright.diff().min() > 0
    three, eight = (made["classifier"](directions.images[2])[:, k] for k in (3, 8))
    assert (eight - three)[-1] > (eight - three)[0] + 1


@pytest.mark.parametrize(
    "kind", [gx.UnitScores, gx.Counterfactual, gx.Inversion, gx.Direction], ids=lambda k: k.__name__
)
def test_every_field_column_and_method_is_named(kind, made):
    text = PAGE.read_text()
    section = re.search(rf"^## {kind.__name__}$(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)[1]
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`" in section or field.name in ("provenance", "notes"), field.name
    (found,) = (
        v
        for k, v in made.items()
        if isinstance(v, kind) and k in ("church", "scores", "changed", "found", "directions")
    )
    for column in found.table()[0]:
        assert f"`{column}`" in section or column in ("sample", "tree iou"), column


def test_every_part_of_plots_that_it_names_is_there():
    listed = PAGE.read_text().partition("`genxai_core.plots` has")[2]
    names = re.findall(r"`(\w+)`", listed)
    assert len(names) == 8
    assert all(callable(getattr(plots, name)) for name in names)
