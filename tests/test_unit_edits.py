"""Edits of units as a result: what may be in them, joined, selected, saved, tabulated, drawn."""

import subprocess
import sys

import pytest
import torch

from genxai_core.errors import ExplainerError, InputError
from genxai_core.explanation import Explanation
from genxai_core.plots import png
from genxai_core.results.unit_edits import UnitEdits


def edits(**changed):
    """Three edits in two layers, with all fields."""
    fields = {
        "layers": ("a", "b", "a"),
        "units": torch.tensor([3, 0, 1]),
        "factors": torch.tensor([0.0, 0.5, 0.0]),
        "values": torch.tensor([0.0, 2.0, -1.0]),
        "locations": torch.tensor([[[True, False], [False, False]], [[True, True]] * 2, [[False, True]] * 2]),
        "condition": {"target": 0, "above": 0.5},
    }
    return UnitEdits(**(fields | changed))


def test_the_length_is_the_number_of_edits_and_an_index_selects_them():
    assert len(edits()) == 3
    chosen = edits()[[2, 0]]
    assert chosen.layers == ("a", "a")
    assert chosen.units.tolist() == [1, 3]
    assert chosen.values.tolist() == [-1.0, 0.0]
    assert chosen.locations.shape == (2, 2, 2)
    assert chosen.condition == {"target": 0, "above": 0.5}
    assert len(edits()[:0]) == 0


def test_rows_by_layer_select_that_layers_edits_in_order():
    assert edits().by_layer() == {"a": [0, 2], "b": [1]}
    assert edits()[edits().by_layer()["a"]].units.tolist() == [3, 1]


def test_ablation_is_factor_zero_everywhere():
    ablation = UnitEdits.ablate({"layers.1": [4, 2], "layers.0": torch.tensor([7])})
    assert ablation.layers == ("layers.1", "layers.1", "layers.0")
    assert ablation.units.tolist() == [4, 2, 7]
    assert ablation.units.dtype == torch.long
    assert ablation.factors.tolist() == [0, 0, 0]
    assert ablation.values is None
    assert ablation.locations is None
    assert ablation.condition is None
    assert len(UnitEdits.ablate({})) == 0
    assert UnitEdits.ablate({"a": [1]}, condition={"target": 2, "above": 0}).condition == {"target": 2, "above": 0}
    with pytest.raises(InputError, match=r"unit 1\.5 of layer 'a' is not an integer"):
        UnitEdits.ablate({"a": [1.5]})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layers": "aba"}, "one name per edit"),
        ({"layers": ("a", "", "b")}, "one name per edit"),
        ({"layers": ("a", "b")}, r"units are \[3\] for E = 2 layers; give \[E\]"),
        ({"units": [3, 0, 1]}, "units must be a Tensor, not list"),
        ({"units": torch.tensor([[3, 0, 1]])}, r"units are \[1, 3\]"),
        ({"units": torch.tensor([3, 0, -1])}, "not negative"),
        ({"units": torch.tensor([3.0, 0.0, 1.0])}, "int64"),
        ({"factors": torch.zeros(2)}, r"factors are \[2\] for E = 3"),
        ({"factors": torch.tensor([0, 1, 0])}, "factors must be finite floating-point"),
        ({"factors": None}, "factors must be a Tensor, not NoneType"),
        ({"values": torch.tensor([0.0, float("nan"), 1.0])}, "values must be finite"),
        ({"locations": torch.ones(3, 2, dtype=torch.bool)}, r"locations are \[3, 2\] for E = 3 layers; give \[E, h, w"),
        ({"locations": torch.ones(3, 2, 2)}, r"locations must be bool, not torch\.float32"),
        ({"condition": {"target": 0}}, "condition .* is not"),
        ({"condition": {"target": -1, "above": 0.5}}, "k is a class index"),
        ({"condition": {"target": True, "above": 0.5}}, "k is a class index"),
        ({"condition": {"target": 0, "above": 1.0}}, "at least 0 and below 1"),
        ({"condition": {"target": 0, "above": float("nan")}}, "at least 0 and below 1"),
    ],
)
def test_what_is_malformed_is_refused(changed, said):
    with pytest.raises(ExplainerError, match=said):
        edits(**changed)


def test_joined_edits_are_in_their_order():
    joined = UnitEdits.concat([edits()[[0]], edits()[[1, 2]]])
    assert joined.layers == edits().layers
    for name in ("units", "factors", "values", "locations"):
        assert torch.equal(getattr(joined, name), getattr(edits(), name))


def test_joining_keeps_what_only_some_edits_say():
    """No value means 0 and no location everywhere: joined with edits that have them, they still mean so."""
    plain = edits(values=None, locations=None)
    joined = UnitEdits.concat([plain, edits()])
    assert joined.values.tolist() == [0, 0, 0, 0, 2, -1]
    assert joined.locations[:3].all()
    assert torch.equal(joined.locations[3:], edits().locations)
    assert UnitEdits.concat([plain, plain]).locations is None
    assert UnitEdits.concat([plain, plain]).values is None


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(ExplainerError, match="different conditions"):
        UnitEdits.concat([edits(), edits(condition=None)])
    with pytest.raises(ExplainerError, match=r"locations of \[\(2, 2\), \(4, 4\)\]"):
        UnitEdits.concat([edits(), edits(locations=torch.ones(3, 4, 4, dtype=torch.bool))])
    with pytest.raises(ExplainerError, match="no results to join"):
        UnitEdits.concat([])


@pytest.mark.parametrize("made", [edits(), edits(values=None, locations=None, condition=None), UnitEdits.ablate({})])
def test_saved_edits_come_back_as_they_were(made, tmp_path):
    loaded = Explanation.load(made.save(tmp_path / "edits"))
    assert type(loaded) is UnitEdits
    assert (loaded.layers, loaded.condition) == (made.layers, made.condition)
    for name in ("units", "factors", "values", "locations"):
        was, came = getattr(made, name), getattr(loaded, name)
        assert (was is None and came is None) or (was.dtype == came.dtype and torch.equal(was, came))


def test_the_table_has_one_row_per_edit():
    assert edits().table() == [
        {"layer": "a", "unit": 3, "factor": 0.0, "value": 0.0, "share": 0.25},
        {"layer": "b", "unit": 0, "factor": 0.5, "value": 2.0, "share": 1.0},
        {"layer": "a", "unit": 1, "factor": 0.0, "value": -1.0, "share": 0.5},
    ]
    assert UnitEdits.ablate({"a": [1]}).table() == [{"layer": "a", "unit": 1, "factor": 0.0}]


def test_the_picture_has_a_row_per_layer_and_a_panel_per_field():
    figure = edits().plot(title="cut $x$")
    assert len(figure.axes) == 6
    first = figure.axes[0]
    assert [(bar.get_y() + bar.get_height()) for bar in first.patches] == [0.0, 0.0]  # bars from 1 down to the factor
    assert [label.get_text() for label in first.get_xticklabels()] == ["3", "1"]
    assert len(UnitEdits.ablate({"a": range(100)}).plot().axes) == 1
    assert png(figure)[:4] == b"\x89PNG"
    assert UnitEdits.ablate({}).plot() is None


def test_a_notebook_shows_edits_not_samples():
    assert "3 edits of units in a, b" in edits()._repr_html_()
    assert "0 edits of units in no layer" in UnitEdits.ablate({})._repr_html_()


def test_the_type_itself_imports_no_torch():
    code = "import sys, genxai_core.results.unit_edits as m; assert m.UnitEdits; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
