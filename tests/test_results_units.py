"""`UnitScores`: which unit is best for what, above which cut, in which order, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from genxai_core import Explanation, UnitEdits, UnitScores
from genxai_core.errors import ExplainerError, InputError

DATA = Path(os.environ.get("GENXAI_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def scores(**changes) -> UnitScores:
    fields = {
        "scores": {
            "layer1": torch.tensor([[0.1, 0.7], [0.7, 0.7], [0.0, 0.2]]),
            "layer2": torch.tensor([[0.9, 0.05]]),
        },
        "thresholds": {"layer1": torch.tensor([1.0, 2.0, float("inf")]), "layer2": torch.tensor([3.0])},
        "concepts": ("sky", "tree"),
        "notes": {"samples": 1000},
    }
    return UnitScores(**{**fields, **changes})


def test_each_unit_has_a_best_concept_the_first_of_equal_ones():
    best = scores().best()
    assert [(s.layer, s.unit, s.concept) for s in best] == [
        ("layer1", 0, "tree"),
        ("layer1", 1, "sky"),
        ("layer1", 2, "tree"),
        ("layer2", 0, "sky"),
    ]
    assert [s.score for s in best] == pytest.approx([0.7, 0.7, 0.2, 0.9])
    assert [s.unit for s in scores().best("layer2")] == [0]


def test_the_ranking_goes_through_all_layers_with_equal_ones_in_order():
    found = [(s.layer, s.unit) for s in scores().ranking("tree")]
    assert found == [("layer1", 0), ("layer1", 1), ("layer1", 2), ("layer2", 0)]
    assert scores().ranking("sky")[0].layer == "layer2"
    assert [s.unit for s in scores().ranking("sky", "layer1")] == [1, 0, 2]


def test_a_cut_is_reached_in_the_scores_own_precision():
    assert scores().above(0.7) == [("layer1", 0), ("layer1", 1), ("layer2", 0)]  # 0.7 is more than float32's 0.7
    assert scores().above(0.7, "tree") == [("layer1", 0), ("layer1", 1)]
    assert scores().above(0.05, "tree")[-1] == ("layer2", 0)
    assert scores().above(2.0) == []


def test_where_lower_is_better_everything_turns_round():
    distances = scores(higher_is_better=False, measure="distance")
    assert [(s.unit, s.concept) for s in distances.best("layer1")] == [(0, "sky"), (1, "sky"), (2, "sky")]
    assert [s.unit for s in distances.ranking("sky", "layer1")] == [2, 0, 1]
    assert distances.above(0.05) == [("layer1", 2), ("layer2", 0)]
    assert [row["score"] for row in distances.table()] == pytest.approx([0.0, 0.05, 0.1, 0.7])


def test_causal_effects_may_be_negative():
    effects = UnitScores({"l": torch.tensor([[-0.5, -0.25]])}, None, ("a", "b"), measure="ace")
    assert effects.best() == [("l", 0, "b", -0.25)]
    assert effects.table() == [
        {"layer": "l", "unit": 0, "concept": "b", "score": -0.25, "a ace": -0.5, "b ace": -0.25},
    ]


def test_the_table_has_the_best_units_first_and_a_column_per_concept():
    spread = {k: torch.stack([v - 0.1, v + 0.1], -1) for k, v in scores().scores.items()}
    rows = scores(intervals=spread).table()
    assert list(rows[0]) == ["layer", "unit", "concept", "score", "low", "high", "threshold", "sky iou", "tree iou"]
    assert [(r["layer"], r["unit"]) for r in rows] == [("layer2", 0), ("layer1", 0), ("layer1", 1), ("layer1", 2)]
    assert list(rows[0].values())[2:] == ["sky", *map(pytest.approx, (0.9, 0.8, 1.0, 3.0, 0.9, 0.05))]
    assert scores().to_dataframe().shape == (4, 7)


def test_the_published_scores_of_gan_dissection_keep_their_ranking():
    path = DATA / "gandissect-church-layer4" / "rankings_demo_iou_short.json"
    if not path.is_file():
        pytest.skip(f"needs outside data: name its folder in GENXAI_TEST_DATA ({DATA} does not hold it)")
    found = {row["name"]: row["scores"] for row in json.loads(path.read_text())["res"] if row["metric"] == "iou"}
    concepts = tuple(name.removesuffix("-iou") for name in found)
    church = UnitScores({"layer4": -torch.tensor(list(found.values())).T}, None, concepts)  # they are stored negated
    assert [s.unit for s in church.ranking("tree")[:5]] == [365, 119, 157, 408, 374]
    assert len(church.above(0.05)) == 392
    counted = [axes for axes in church.plot(cut=0.05).axes if "best for it" in axes.get_xlabel()]
    assert sum(int(t.get_text()) for t in counted[0].texts) == 392


@pytest.mark.parametrize("more", [{}, {"thresholds": None}, {"measure": "ace", "higher_is_better": False}])
def test_it_comes_back_from_a_file_as_it_was(tmp_path, more):
    first = scores(provenance={"seed": 3}, **more)
    first.save(tmp_path / "units")
    second = Explanation.load(tmp_path / "units")
    assert type(second) is UnitScores
    assert second.table() == first.table()
    assert (second.concepts, second.layers) == (("sky", "tree"), ("layer1", "layer2"))
    assert (second.measure, second.higher_is_better) == (first.measure, first.higher_is_better)
    assert (second.notes, second.provenance) == ({"samples": 1000}, {"seed": 3})
    for layer, values in first.scores.items():
        assert torch.equal(second.scores[layer], values)
        assert first.thresholds is None or torch.equal(second.thresholds[layer], first.thresholds[layer])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": {}}, "no layers"),
        ({"scores": {"l": torch.zeros(0, 2)}, "thresholds": None}, "'l' has no units"),
        ({"scores": {"l": torch.tensor([[0.0, float("nan")]])}, "thresholds": None}, r"scores\['l'\] holds NaN"),
        ({"scores": {"l": torch.zeros(2)}, "thresholds": None}, r"floating point \[U, concepts\], concepts = 2, not"),
        ({"scores": {"l": torch.zeros(2, 3)}, "thresholds": None}, r"float32 \[2, 3\]"),
        ({"scores": {"l": torch.zeros(2, 2).long()}, "thresholds": None}, r"not int64"),
        ({"scores": {"l": [[0.0, 1.0]]}, "thresholds": None}, "not list"),
        ({"concepts": ()}, "no concepts"),
        ({"concepts": ("sky", "sky")}, "'sky' twice"),
        ({"concepts": ("sky", 3)}, "not 3"),
        ({"measure": ""}, "not empty"),
        ({"thresholds": {"layer1": torch.zeros(3)}}, "thresholds are of layers"),
        ({"thresholds": {"layer1": torch.zeros(2), "layer2": torch.zeros(1)}}, r"\[U\], U = 3, not float32 \[2\]"),
        ({"thresholds": {"layer1": torch.full((3,), float("nan")), "layer2": torch.zeros(1)}}, "hold NaN"),
        ({"intervals": {"layer1": torch.zeros(3, 2), "layer2": torch.zeros(1, 2)}}, "ends = 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, said):
    with pytest.raises(ExplainerError, match=said) as raised:
        scores(**changes)
    assert "\n" not in str(raised.value)


def test_unknown_names_are_answered_with_those_there_are():
    with pytest.raises(ExplainerError, match="no concept 'car'; there are sky, tree"):
        scores().ranking("car")
    with pytest.raises(ExplainerError, match="no concept 'car'"):
        scores().above(0.1, "car")
    with pytest.raises(ExplainerError, match="no layer 'layer9'; there are layer1, layer2"):
        scores().best("layer9")


def test_layers_are_not_joined_as_if_they_were_samples():
    with pytest.raises(ExplainerError, match="per_sample"):
        UnitScores.concat([scores(), scores()])


# -- edits, of which tests/test_unit_edits.py has the rest -----------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 0, 0), (1, 3, 0)])
def test_edits_act_somewhere(shape):
    with pytest.raises(ExplainerError, match="locations have no cells"):
        UnitEdits(("a",), torch.tensor([0]), torch.zeros(1), locations=torch.zeros(shape, dtype=torch.bool))


def test_one_unit_is_ablated_by_its_number_and_what_is_none_is_refused():
    found = UnitEdits.ablate({"a": 3, "b": torch.tensor(1), "c": np.array([2, 0])})
    assert (found.layers, found.units.tolist()) == (("a", "b", "c", "c"), [3, 1, 2, 0])
    with pytest.raises(InputError, match="unit -1 of layer 'a' is negative"):
        UnitEdits.ablate({"a": [0, -1]})
    with pytest.raises(InputError, match=r"unit 1\.5 of layer 'a' is not an integer"):
        UnitEdits.ablate({"a": 1.5})
    with pytest.raises(ExplainerError, match="condition"):
        UnitEdits.ablate({"a": 1}, condition={})
