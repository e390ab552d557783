"""A number per image: ranks, pictures in order, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from genxai_core import Explanation, ImageScores
from genxai_core.errors import ExplainerError


@pytest.fixture
def scores():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 4, 4) / 4
    return ImageScores(torch.tensor([0.5, -1.0, math.inf, 2.0, -math.inf]), images, (0.0, 1.0), {"unit": "nats"})


def test_scores_rank_and_save_and_select(scores, tmp_path):
    assert [row["rank"] for row in scores.table()] == [2, 1, 4, 3, 0]
    loaded = Explanation.load(scores.save(tmp_path / "scores"))
    assert type(loaded) is ImageScores
    assert torch.equal(loaded.scores, scores.scores)
    assert loaded.notes == {"unit": "nats"}
    part = scores[[3, 0]]
    assert part.scores.tolist() == [2.0, 0.5]
    assert torch.equal(ImageScores.concat([scores[:2], scores[2:]]).images, scores.images)


def test_the_picture_goes_from_the_lowest_to_the_highest(scores):
    texts = [t.get_text() for t in scores.plot().axes[0].texts]
    assert texts[0] == "nats"
    assert texts[1:] == ["−inf", "−1.00", "+0.50", "+2.00", "+inf"]
    assert [t.get_text() for t in scores.plot(n=2).axes[0].texts][1:] == ["−inf", "+inf"]
    assert ImageScores(torch.zeros(3)).plot() is None


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"scores": torch.zeros(2, 1)}, r"scores must be floating point \[N\], not float32 \[2, 1\]"),
        ({"scores": [0.0, 1.0]}, "not list"),
        ({"scores": torch.arange(2)}, "not int64"),
        ({"scores": torch.tensor([math.nan])}, "NaN"),
        ({"scores": torch.zeros(2), "images": torch.zeros(3, 1, 4, 4)}, r"N = 2, not float32 \[3, 1, 4, 4\]"),
        ({"scores": torch.zeros(2), "images": torch.zeros(2, 4, 4)}, r"\[N, C, H, W\]"),
        ({"scores": torch.zeros(2), "images": torch.zeros(2, 1, 0, 4)}, r"\[N, C, H, W\]"),
        ({"scores": torch.zeros(2), "images": torch.full((2, 1, 4, 4), math.nan)}, "images holds NaN"),
        ({"scores": torch.zeros(2), "value_range": (1, 1)}, "value_range"),
    ],
)
def test_malformed_scores_are_refused(fields, match):
    with pytest.raises(ExplainerError, match=match) as raised:
        ImageScores(**fields)
    assert "\n" not in str(raised.value)
