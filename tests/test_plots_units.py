"""The pictures of units: which are shown, how they are counted, and that nothing is cut off or grows without bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genxai_core import UnitEdits, UnitScores, plots
from genxai_core.plots import heat


def within(figure) -> bool:
    """Whether all texts of a figure lie inside it."""
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    wide, high = figure.get_size_inches() * figure.dpi
    found = figure.findobj(lambda a: hasattr(a, "get_text") and a.get_text() and a.get_visible())
    boxes = [a.get_window_extent(renderer) for a in found]
    return all(b.x0 >= -1 and b.x1 <= wide + 1 and b.y0 >= -1 and b.y1 <= high + 1 for b in boxes)


def heads(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def labels(axes, which) -> list[str]:
    return [t.get_text() for t in getattr(axes, f"get_{which}ticklabels")()]


def test_few_units_are_all_shown_by_their_best_concepts_with_their_values():
    values = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.0, 0.5], [0.3, 0.25]])
    figure = UnitScores({"conv": values}, None, ("sky", "tree")).plot(title="planted")
    panel = figure.axes[0]
    assert labels(panel, "x") == ["1", "3", "0", "2"]  # sky's units, then tree's, the best first
    assert labels(panel, "y") == ["sky", "tree"]
    assert np.allclose(panel.images[0].get_array(), values[[1, 3, 0, 2]].T)
    assert [t.get_text() for t in panel.texts][:4] == [".80", ".30", ".10", ".00"]
    assert heads(figure) == ["conv: 4 units"]
    assert len(figure.axes) == 2  # and the scale: no bars, since nothing is left out
    assert figure.axes[1].get_ylabel() == "iou"
    assert within(figure)


def test_values_are_written_short_enough_for_their_cells():
    values = torch.tensor([[-0.5, 0.996, 93.47, -0.001], [120.0, -7.25, 0.0, 1e-9]])
    written = [t.get_text() for t in UnitScores({"l": values.T}, None, ("a", "b")).plot().axes[0].texts]
    assert [heat.fraction(v) for v in (9999.0, 12345.0, -1.7e38)] == ["9999", "1e4", "−2e38"]
    assert sorted(written) == sorted(["−.50", "1.0", "93", ".00", "120", "−7.2", ".00", ".00"])
    small = UnitScores({"l": torch.tensor([[0.001, 0.002]])}, None, ("a", "b")).plot()
    assert not small.axes[0].texts  # all would read .00


def bars(figure):
    return [axes for axes in figure.axes if "units best for it" in axes.get_xlabel()]


def test_of_many_units_each_concepts_best_are_shown_and_all_are_counted():
    scores = torch.zeros(100, 3)
    scores[:60, 0] = torch.linspace(1, 0.5, 60)
    scores[60:90, 1] = torch.linspace(0.4, 0.1, 30)  # none of them among the best 24 of all
    figure = UnitScores({"conv": scores}, None, ("a", "b", "c")).plot()
    shown = [int(unit) for unit in labels(figure.axes[0], "x")]
    assert shown[:12] == list(range(12))
    assert shown[12:23] == list(range(60, 71))
    assert len(shown) == 24
    (beside,) = bars(figure)
    assert [t.get_text() for t in beside.texts] == ["60", "30", "0"]  # the ten units that are zero are best for none
    drawn = np.ma.filled(beside.images[0].get_array(), np.nan)
    assert np.allclose(drawn[1, :30], scores[60:90, 1])
    assert np.isnan(drawn[1, 30:]).all()
    (cut,) = bars(UnitScores({"conv": scores}, None, ("a", "b", "c")).plot(cut=0.25))
    assert [t.get_text() for t in cut.texts] == ["60", "15", "0"]
    assert cut.get_xlabel().endswith("≥ 0.25")
    (exact,) = bars(UnitScores({"conv": torch.full((30, 1), 0.7)}, None, ("a",)).plot(cut=0.7))
    assert [t.get_text() for t in exact.texts] == ["30"]  # in float32 as `above` counts, where 0.7 is a little less


def test_signed_scores_have_white_at_zero_and_others_begin_at_it():
    def limits(values, **more):
        return UnitScores({"l": torch.tensor(values)}, None, ("a", "b"), **more).plot().axes[0].images[0]

    assert limits([[0.5, -0.25]], measure="ace").get_clim() == (-0.5, 0.5)
    assert limits([[0.5, 0.25]]).get_clim() == (0, 0.5)
    assert limits([[0.0, 0.0]]).get_clim() == (0, 1)
    low = limits([[0.5, 0.25]], measure="distance", higher_is_better=False)
    assert sum(low.to_rgba(0.25)[:3]) < sum(low.to_rgba(0.5)[:3])  # the better, the darker


def test_where_lower_is_better_the_lowest_lead():
    scores = UnitScores({"l": torch.tensor([[0.9, 0.8], [0.2, 0.3]])}, None, ("a", "b"), higher_is_better=False)
    assert labels(scores.plot().axes[0], "x") == ["1", "0"]
    assert np.allclose(scores.plot().axes[0].images[0].get_array(), [[0.2, 0.9], [0.3, 0.8]])


@pytest.mark.parametrize(
    ("layers", "units", "concepts"), [(1, 8, 5), (3, 512, 20), (5, 64, 9), (1, 1, 1), (2, 40, 400)]
)
def test_large_and_small_scores_are_readable(layers, units, concepts):
    torch.manual_seed(0)
    names = tuple(f"a concept number {i}" for i in range(concepts))
    scores = UnitScores({f"blocks.{i}.conv": torch.rand(units, concepts) for i in range(layers)}, None, names)
    figure = scores.plot(title="title")
    assert within(figure)
    wide, high = figure.get_size_inches()
    assert wide < 14
    assert high < 12
    assert len(heads(figure)) == layers
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    boxes = [axes.get_position() for axes in figure.axes]
    assert not any(a is not b and a.overlaps(b) for a in boxes for b in boxes)
    assert [len(labels(axes, "y")) for axes in panels] == [min(concepts, 32)] * layers
    assert [axes.get_title(loc="left").endswith(f"32 of {concepts} concepts") for axes in panels] == [
        concepts > 32
    ] * layers
    each = (figure.axes[0].bbox.height / figure.dpi) / min(concepts, 32)
    assert each >= 7.5 / 72  # a row has room for its name


def test_of_many_layers_those_with_the_best_units_are_drawn_and_the_rest_counted():
    values = {f"l{i}": torch.full((2, 3), 0.9 if i % 4 == 0 else i / 100) for i in range(36)}
    figure = UnitScores(values, None, ("a", "b", "c")).plot()
    assert heads(figure) == [f"l{i}: 2 units" for i in range(0, 36, 4)]
    assert [t.get_text() for t in figure.texts][-1] == "… and 27 more layers"
    assert within(figure)
    assert max(figure.get_size_inches()) < 18


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("higher", [True, False])
def test_the_largest_numbers_are_drawn_without_overflow(higher):
    most = torch.finfo(torch.float64).max
    values = torch.tensor([[most, -most], [-most, 0.5]], dtype=torch.float64)
    figure = UnitScores({"l": values}, None, ("a", "b"), higher_is_better=higher).plot()
    plots.png(figure)
    assert sorted(t.get_text() for t in figure.axes[0].texts) == [".50", "1e300", "−1e300", "−1e300"]
    assert within(figure)


def test_of_many_layers_of_edits_the_first_are_drawn_and_the_rest_counted():
    figure = UnitEdits.ablate({f"layer {i}": [0, 1] for i in range(100)}).plot()
    assert len(figure.axes) == 8
    assert figure.get_supxlabel() == "… and 92 more layers"
    assert max(figure.get_size_inches()) < 15
    assert UnitEdits.ablate({"a": 1}).plot().get_supxlabel() == ""
