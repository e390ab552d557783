"""Units, counterfactuals, inversions and directions in the report: pictures, captions, counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from report_runs import images, report, write_run

from genxai_core import Counterfactual, Direction, Inversion, UnitScores, plots
from genxai_core.errors import GenxaiWarning
from genxai_core.explanation import Explanation
from genxai_core.report import figures_of, summary_of


def counterfactual():
    before = images()
    logits = torch.tensor([[3.0, 0.0]]).repeat(4, 1)
    after = torch.tensor([[0.0, 3.0], [0.0, 3.0], [3.0, 0.0], [0.0, 3.0]])
    return Counterfactual(before, before.flip(3), 1, 0, logits, after, None, ("", "adversarial", "", ""), (0.0, 1.0))


def inversion():
    failed = torch.tensor([False, True, False, False])
    errors = torch.tensor([0.1, 0.5, 0.2, 0.3])
    return Inversion(images(), images(shift=0.1), torch.zeros(4, 2), errors, failed, torch.rand(4, 5), (0.0, 1.0))


def direction():
    along = images(6).view(2, 3, 1, 8, 8)
    return Direction(torch.eye(2), ("size", "hue"), None, None, along, torch.tensor([-1.0, 0.0, 1.0]), (0.0, 1.0))


def units():
    return UnitScores({"conv": torch.tensor([[0.1, 0.7], [0.2, 0.0]])}, None, ("sky", "tree"))


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (counterfactual(), ["explanation"]),
        (inversion(), ["explanation", "history"]),
        (direction(), ["explanation", "cosines"]),
        (direction()[0], ["explanation"]),
        (Direction(torch.eye(2)[:1], ("alone",)), []),
        (units(), ["explanation"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Explanation) else None,
)
def test_all_pictures_are_drawn_by_name(result, names):
    found = figures_of(result)
    assert list(found) == names
    assert all(plots.png(figure).startswith(b"\x89PNG") for figure in found.values())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (counterfactual(), "counterfactual: valid 3 of 4, failed (adversarial) 1 of 4, failed (no flip) 1 of 4, mean"),
        (inversion(), "inversion: failed 1 of 4, median error (RMSE) 0.2"),
        (direction(), "direction: directions 2, latent shape 2"),
        (units(), "unit-scores: layers conv, units 2, concepts 2, best unit conv:0 for tree (iou 0.7)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Explanation) else None,
)
def test_the_line_tells_what_counts(result, said):
    assert summary_of(result).startswith(said)


def test_the_page_has_every_picture_with_how_to_read_it_and_the_counts(tmp_path):
    results = {
        ("units", "explainer/gan-dissection"): units(),
        ("flips", "explainer/counterfactual"): counterfactual(),
        ("codes", "explainer/inversion"): inversion(),
        ("axes", "explainer/directions"): direction(),
    }
    page = report(write_run(tmp_path / "run", results))
    assert page.count("data:image/png") == 6
    for alt in ("explanation of units", "explanation of flips", "history of codes", "cosines of axes"):
        assert f'alt="The {alt}"' in page
    for result in (units(), counterfactual(), inversion(), direction()):
        assert all(re.sub("'", "&#39;", caption) in page for caption in result.captions.values())
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    assert {("valid", "3 of 4"), ("failed (no flip)", "1 of 4"), ("failed", "1 of 4"), ("directions", "2")} <= {*facts}
    assert ("best unit", "conv:0 for tree (iou 0.7)") in facts
    assert "adversarial</td>" in page  # the table of values


@dataclass(frozen=True, eq=False)
class Odd(Explanation):
    """A third party's result whose extras are wrong."""

    type_name: ClassVar[str] = "odd"

    def figures(self):
        return {"../outside": None}

    def summary(self):
        raise ValueError("no\nsummary")


def test_a_third_partys_names_stay_in_their_folder_and_its_summary_costs_nothing():
    with pytest.raises(ValueError, match=r"'\.\./outside' is not a name"):
        figures_of(Odd())
    with pytest.warns(GenxaiWarning, match=r"Odd.summary\(\) failed: ValueError: no summary"):
        assert summary_of(Odd()) == "odd"
