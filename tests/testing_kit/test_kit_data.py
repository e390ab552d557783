"""Every check of `DatasetTests` and `SegmenterTests` fails on what breaks it, and says how to mend it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from genxai_core import Samples, Segmenter
from genxai_core.testing import DatasetTests, PatchDataset, SegmenterTests

INDEXED = "test_indexing_gives_samples"
OUTSIDE = "test_indices_out_of_range_are_refused"
DECLARED = "test_images_are_what_it_declares"
NAMED = "test_what_is_known_of_images_has_names"
SAME = "test_the_same_index_gives_the_same_image"
OWN = "test_samples_are_its_readers_own"
COPIED = "test_copies_read_the_same"
SHOWN = "test_it_can_be_shown"
IS = "test_it_is_a_dataset"


def mutant(**members):
    """A class that is `PatchDataset` but for some of its members, and can be found by its name, as pickling asks."""
    name = f"Mutant{len(globals())}"
    globals()[name] = type(name, (PatchDataset,), {"__doc__": PatchDataset.__doc__, "__module__": __name__, **members})
    return globals()[name]


def reading(change):
    return mutant(_samples=lambda self, rows: change(self, PatchDataset._samples(self, rows), rows))


def built(change):
    def init(self, n: int = 32, size: int = 16, channels: int = 1, seed: int = 0) -> None:
        PatchDataset.__init__(self, n, size, channels, seed)
        change(self)

    return init


def getting(change):
    return mutant(__getitem__=lambda self, index: change(lambda i=index: PatchDataset.__getitem__(self, i), index))


def views(self, rows):
    images = self._images[rows[0] : rows[0] + 1] if len(rows) == 1 else self._images[rows]
    return replace(PatchDataset._samples(self, rows), images=images)


def holds_lambda(self):
    self.transform = lambda x: x


def counts(self, samples, rows):
    self.reads = getattr(self, "reads", 0) + 1
    return replace(samples, images=samples.images * (1 - 1e-6 * self.reads))


def draws_for_nothing(self, samples, rows):
    torch.rand(1)
    return samples


DATASETS = {
    "nothing is wrong": (PatchDataset, {}),
    "a tensor for one index": (
        getting(lambda base, i: base().images[0] if i == 31 and isinstance(i, int) else base()),
        {INDEXED: "data[31] is Tensor of 1, not Samples of 1", SAME: ""},
    ),
    "sorted": (
        mutant(_samples=lambda self, rows: PatchDataset._samples(self, sorted(rows))),
        {INDEXED: "data[[last, 0]] and data[0] differ"},
    ),
    "wraps around": (
        getting(lambda base, i: base(i % 32) if isinstance(i, int) else base()),
        {OUTSIDE: "data[32]: expected InputError, but nothing was raised"},
    ),
    "another range": (
        mutant(__init__=built(lambda self: setattr(self, "value_range", (0.0, 1.0)))),
        {DECLARED: "pixels reach from -"},
    ),
    "overshoots": (
        reading(lambda self, s, rows: replace(s, images=s.images * 2)),
        {DECLARED: "value_range is (-1.0, 1.0)"},
    ),
    "overshoots somewhere": (
        reading(
            lambda self, s, rows: replace(s, images=s.images * (1 + torch.tensor(rows).eq(20)[:, None, None, None]))
        ),
        {DECLARED: "value_range is (-1.0, 1.0)"},
    ),
    "another shape": (
        mutant(__init__=built(lambda self: setattr(self, "image_shape", (3, 16, 16)))),
        {DECLARED: "it declares (3, 16, 16) in (-1.0, 1.0)"},
    ),
    "labels from -1": (
        reading(lambda self, s, rows: replace(s, labels=s.labels - 1)),
        {NAMED: "labels reach from -1 to 0, there are 2 class names"},
    ),
    "labels without names": (reading(lambda self, s, rows: replace(s, class_names=())), {NAMED: "its samples ()"}),
    "masks without names": (reading(lambda self, s, rows: replace(s, concepts=())), {NAMED: "masks [32, 1, 16, 16]"}),
    "changes as it is read": (
        reading(counts),
        {SAME: "alone and in a selection differ", INDEXED: "", OWN: ""},
    ),
    "moves generators": (reading(draws_for_nothing), {SAME: "reading moved torch's random generator"}),
    "views": (mutant(_samples=views), {OWN: "changed the dataset"}),
    "a lambda": (mutant(__init__=built(holds_lambda)), {COPIED: "cannot be copied (sent to another process)"}),
    "no picture": (mutant(plot=lambda self, n=64: None), {SHOWN: "plot() gave NoneType"}),
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = DATASETS[name]
    found = failures(conforms(DatasetTests, cls))
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_every_check_of_datasets_has_a_mutant():
    own = {n for n in vars(DatasetTests) if n.startswith("test_")}
    assert own == {check for _, expected in DATASETS.values() for check in expected} | {IS}


def test_what_a_dataset_loads(conforms, failures):
    loads = mutant(load=lambda self, runtime=None: [1, 2])
    assert "loads a list" in failures(conforms(DatasetTests, loads), IS)[IS]
    loads = mutant(load=lambda self, runtime=None: self[:])
    assert failures(conforms(DatasetTests, loads)) == {}


# -- segmenters ---------------------------------------------------------------------------------------------------

CONCEPTS = "test_its_concepts_have_names"
PLANES = "test_masks_have_a_plane_for_each_concept"
BATCHED = "test_one_at_a_time_equals_batched"
SEEDED = "test_the_same_seed_gives_the_same_masks"
EXACT = "test_exact_masks_are_used_as_they_are"
ALONE = "test_samples_and_models_are_left_alone"
REFUSED = "test_wrong_samples_are_refused"


class Brightness(Segmenter):
    """Where an image is bright, and where it is dark: bool [N, 2, H, W]."""

    concepts = ("bright", "dark")

    def _segment(self, samples):
        gray = samples.images.mean(1)
        return torch.stack([gray > 0.3, gray < -0.3], 1)


def segmenter(**members):
    return type("Mutant", (Brightness,), {"__doc__": Brightness.__doc__, **members})


def around(function):
    def segment(self, samples, runtime=None):
        return function(lambda given=samples: Segmenter.segment(self, given, runtime), samples)

    return segmenter(segment=segment)


def relative(self, samples):
    gray = samples.images.mean(1)
    return torch.stack([gray > gray.mean(), gray < gray.mean() - 0.1], 1)


def moves_generators(base, samples):
    torch.rand(1)
    return base()


def writes(base, samples):
    masks = base()
    samples.labels.zero_()
    return masks


def mends(base, samples):
    images = samples if isinstance(samples, torch.Tensor) else samples.images
    return base(Samples(images.nan_to_num(0.0), value_range=(-1.0, 1.0))) if len(images) else images


SEGMENTERS = {
    "nothing is wrong": (Brightness, {}),
    "a list of concepts": (segmenter(concepts=["bright", "dark"]), {CONCEPTS: "concepts are ['bright', 'dark']"}),
    "one name twice": (segmenter(concepts=("bright", "bright")), {CONCEPTS: "named twice", EXACT: "did not return"}),
    "numbers": (
        around(lambda base, samples: base().float()),
        {PLANES: "masks are torch.float32"},
    ),
    "relative to the batch": (segmenter(_segment=relative), {BATCHED: "in batches of 2 the masks of images"}),
    "moves generators": (around(moves_generators), {SEEDED: "moved torch's random generator"}),
    "ignores exact masks": (
        around(lambda base, samples: base(samples if not isinstance(samples, Samples) else _bare(samples))),
        {EXACT: "did not return the exact masks"},
    ),
    "writes": (around(writes), {ALONE: "changed labels"}),
    "mends": (around(mends), {REFUSED: "with a tensor: expected InputError, but nothing was raised", EXACT: ""}),
}


def _bare(samples):
    return replace(samples, masks=None, concepts=())


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenter_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = SEGMENTERS[name]
    found = failures(conforms(SegmenterTests, cls))
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_every_check_of_segmenters_has_a_mutant():
    own = {n for n in vars(SegmenterTests) if n.startswith("test_")}
    assert own == {check for _, expected in SEGMENTERS.values() for check in expected}
