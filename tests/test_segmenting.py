"""Segmenters: exact masks first, then checks, batches and guard around an author's `_segment`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genxai_core import Runtime, Samples, Segmenter
from genxai_core.errors import ExplainerError, InputError


class Bright(Segmenter):
    """Where a pixel is above, and below, a learnt level. Notes the sizes of the batches that it saw."""

    concepts = ("bright", "dark")

    def __init__(self) -> None:
        self.level = nn.BatchNorm2d(1)
        self.batches: list[int] = []

    def _segment(self, samples):
        assert not torch.is_grad_enabled()
        self.batches.append(len(samples))
        level = self.level(samples.images)
        return torch.cat([level > 0, level < 0], 1)


def images(n=5):
    return torch.linspace(-1, 1, n * 16).view(n, 1, 4, 4)


def samples(n=5, **known):
    return Samples(images(n), value_range=(-1.0, 1.0), **known)


def test_it_is_done_in_batches_and_the_module_stays_as_it_was():
    segmenter = Bright()
    segmenter.level.train()
    masks = segmenter.segment(samples(), Runtime(batch_size=2))
    assert segmenter.batches == [2, 2, 1]
    assert segmenter.level.training
    assert int(segmenter.level.num_batches_tracked) == 0
    assert masks.dtype == torch.bool
    assert torch.equal(masks[:, 0], images()[:, 0] > 0)
    assert torch.equal(masks, Bright().segment(samples()))


def test_exact_masks_are_the_answer_by_their_names():
    planes = torch.rand(5, 3, 4, 4) > 0.5
    segmenter = Bright()
    found = segmenter.segment(samples(masks=planes, concepts=("dark", "sky", "bright")))
    assert torch.equal(found, planes[:, [2, 0]])
    assert segmenter.batches == []
    segmenter.segment(samples(masks=planes, concepts=("dark", "sky", "tree")))  # one concept is not among them
    assert segmenter.batches == [5]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (images(), "takes Samples, not Tensor; wrap images"),
        (samples()[:0], "the samples are empty"),
        (Samples(images() / 0, value_range=(-1.0, 1.0)), "NaN or infinity; remove"),
    ],
    ids=["tensor", "empty", "nan"],
)
def test_bad_samples_are_refused_in_one_line(given, said):
    with pytest.raises(InputError, match=said):
        Bright().segment(given)


@pytest.mark.parametrize(
    "returned",
    [
        torch.zeros(5, 2, 4, 4),
        torch.zeros(5, 1, 4, 4, dtype=torch.bool),
        torch.zeros(5, 2, 8, 8, dtype=torch.bool),
        None,
    ],
    ids=["float", "one concept", "another size", "nothing"],
)
def test_what_an_author_returns_is_checked(returned):
    class Wrong(Bright):
        def _segment(self, samples):
            return returned

    with pytest.raises(ExplainerError, match=r"_segment returns torch.bool \[5, 2, 4, 4\]"):
        Wrong().segment(samples())
