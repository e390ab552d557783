"""`Direction`: moving along it, the angles between several, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from genxai_core import Direction, Explanation
from genxai_core.errors import ExplainerError


def direction(**changes) -> Direction:
    fields = {
        "vectors": torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -1.0]]),
        "names": ("size", "hue", "age"),
        "intercepts": torch.tensor([0.5, -0.5, 0.0]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "images": torch.arange(3 * 2 * 4.0).view(3, 2, 1, 2, 2) / 24,
        "amounts": torch.tensor([-3.0, 3.0]),
        "value_range": (0.0, 1.0),
    }
    return Direction(**{**fields, **changes})


def test_latents_move_along_the_named_direction():
    latents = torch.zeros(2, 3)
    assert direction().move(latents, "hue", 2.0).tolist() == [pytest.approx([1.2, 1.6, 0.0])] * 2
    assert direction().move(latents, "age", torch.tensor([1.0, -1.0])).tolist() == [[0, 0, -1], [0, 0, 1]]
    assert latents.tolist() == [[0.0] * 3] * 2
    doubled = direction().move(latents.double(), "size", 1)
    assert doubled.dtype == torch.float64


def test_spatial_latents_move_too():
    vector = torch.zeros(1, 2, 4, 4)
    vector[0, 1, 2, 3] = 1.0
    moved = Direction(vector, ("x",)).move(torch.ones(5, 2, 4, 4), "x", torch.arange(5.0))
    assert moved[:, 1, 2, 3].tolist() == [1, 2, 3, 4, 5]
    assert float(moved.sum()) == 5 * 32 + 10


def test_cosines_and_the_nearest_other_direction():
    assert direction().cosines().tolist() == [
        pytest.approx([1.0, 0.6, 0.0]),
        pytest.approx([0.6, 1.0, 0.0]),
        pytest.approx([0.0, 0.0, 1.0]),
    ]
    rows = direction().table()
    assert rows[0] == {
        "name": "size",
        "intercept": 0.5,
        "score": pytest.approx(0.9),
        "largest_cosine": pytest.approx(0.6),
        "with": "hue",
    }
    opposite = Direction(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), ("a", "b"))
    assert opposite.table()[0] == {"name": "a", "largest_cosine": 1.0, "with": "b"}
    assert direction()[0].table() == [{"name": "size", "intercept": 0.5, "score": pytest.approx(0.9)}]


def test_directions_are_selected_and_joined():
    assert direction()[[2, 0]].names == ("age", "size")
    joined = Direction.concat([direction()[2], direction()[:2]])
    assert joined.names == ("age", "size", "hue")
    assert joined.images.shape == (3, 2, 1, 2, 2)
    with pytest.raises(ExplainerError, match="'size' twice"):
        Direction.concat([direction(), direction()[0]])
    for other in ({"amounts": torch.tensor([-3.0, 9.0])}, {"images": None, "amounts": None}):
        with pytest.raises(ExplainerError, match="differ in their amounts"):
            Direction.concat([direction(), direction(names=("a", "b", "c"), **other)])


def test_it_comes_back_from_a_file_as_it_was(tmp_path):
    first = direction(provenance={"seed": 3}, notes={"measure": "accuracy"})
    first.save(tmp_path / "saved")
    second = Explanation.load(tmp_path / "saved")
    assert type(second) is Direction
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vectors": torch.eye(3) * 1.001}, "'size' has length 1.001, not 1"),
        ({"vectors": torch.zeros(3, 3)}, "length 0"),
        ({"vectors": torch.ones(3)}, r"vectors must be floating point \[D, …\], D = 3, not float32 \[3\]"),
        ({"vectors": torch.ones(3, 0)}, r"not float32 \[3, 0\]"),
        ({"images": torch.zeros(3, 2, 1, 0, 2)}, "images"),
        ({"vectors": torch.eye(2)}, "D = 3"),
        ({"vectors": torch.eye(3).long()}, "not int64"),
        ({"vectors": torch.full((3, 3), float("nan"))}, "NaN"),
        ({"names": ("a", "b", "a")}, "'a' twice"),
        ({"names": ("a", "", "b")}, "not empty"),
        ({"intercepts": torch.zeros(2)}, "intercepts"),
        ({"scores": torch.zeros(3, 1)}, "scores"),
        ({"images": None}, "belong together"),
        ({"amounts": None}, "belong together"),
        ({"amounts": torch.zeros(3)}, "S = 3"),
        ({"images": torch.zeros(3, 2, 4, 4)}, "images"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, said):
    with pytest.raises(ExplainerError, match=said) as raised:
        direction(**changes)
    assert "\n" not in str(raised.value)


def test_unit_length_is_a_matter_of_rounding():
    assert len(direction(vectors=torch.eye(3) * 1.00005)) == 3


def test_moves_that_do_not_fit_are_refused():
    with pytest.raises(ExplainerError, match="no direction 'smile'; there are size, hue, age"):
        direction().move(torch.zeros(1, 3), "smile", 1.0)
    with pytest.raises(ExplainerError, match="latents"):
        direction().move(torch.zeros(1, 4), "size", 1.0)
    with pytest.raises(ExplainerError, match="amount"):
        direction().move(torch.zeros(2, 3), "size", torch.zeros(3))
