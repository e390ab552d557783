"""dataset/artifact-labels: which images become artifact, normal and real, and what is kept of them."""

from __future__ import annotations

import pytest
import torch
from genxai_correction import labels_file
from genxai_correction.labels import ArtifactLabels

from genxai_core import ImageScores, Samples, create
from genxai_core.errors import BadParameter, InputError
from genxai_core.testing import PatchDataset


def generated(n=10, **more):
    images = torch.arange(n).view(n, 1, 1, 1).expand(n, 1, 8, 8) / n
    return Samples(images, latents=torch.arange(float(n))[:, None], value_range=(-1.0, 1.0), **more)


def real(n=3, size=8):
    return Samples(-torch.ones(n, 1, size, size), value_range=(-1.0, 1.0))


@pytest.fixture
def by_hand(tmp_path):
    def made(labels, **more):
        labels_file.write(tmp_path / "labels.csv", labels)
        return ArtifactLabels(csv=tmp_path / "labels.csv", **more)

    return made


def by_scores(scores, **more):
    return ArtifactLabels(scores=ImageScores(torch.tensor(scores)), **more)


# -- by hand ----------------------------------------------------------------------------------------------------


def test_only_what_the_file_labels_is_kept_with_its_latents(by_hand):
    given = generated(labels=torch.arange(10) % 2, class_names=("cat", "dog"), captions=tuple("abcdefghij"))
    found = by_hand({7: "artifact", 2: "normal", 9: "artifact"}).load(generated=given)
    assert found.class_names == ("normal", "artifact")
    assert found.labels.tolist() == [0, 1, 1]
    assert found.latents.flatten().tolist() == [2.0, 7.0, 9.0]
    assert found.captions == ("c", "h", "j")
    assert torch.equal(found.images, given.images[[2, 7, 9]])
    assert given.class_names == ("cat", "dog")


def test_a_dataset_can_be_labelled_too(by_hand):
    found = by_hand({0: "normal", 1: "artifact"}).load(generated=PatchDataset(4))
    assert found.labels.tolist() == [0, 1]
    assert torch.equal(found.images, PatchDataset(4)[:2].images)


def test_an_index_that_is_no_image_is_refused_with_its_line(by_hand):
    with pytest.raises(InputError, match=r"^labels\.csv:3: index 10 is out of range for 10 images, 0 to 9$"):
        by_hand({0: "normal", 10: "artifact"}).load(generated=generated())


# -- by scores --------------------------------------------------------------------------------------------------


def test_the_least_realistic_are_artifacts_the_best_half_normal_and_the_middle_is_left_out():
    scores = [5.0, 0.0, 9.0, 1.0, 7.0, 3.0, 8.0, 2.0, 6.0, 4.0]
    found = by_scores(scores).load(generated=generated())
    rows = found.latents.flatten().long().tolist()
    assert rows == sorted(rows)
    labels = dict(zip(rows, found.labels.tolist()))
    assert {row for row, label in labels.items() if label == 1} == {1, 3}  # the lowest two of ten
    assert {row for row, label in labels.items() if label == 0} == {0, 2, 4, 6, 8}  # the highest five
    assert 5 not in labels


def test_infinite_and_equal_scores_have_their_place():
    found = by_scores([torch.inf, 1.0, -torch.inf, 1.0], share=0.5, normal_share=0.5).load(generated=generated(4))
    assert found.labels.tolist() == [0, 1, 1, 0]  # of the two ones the first counts as the lower


def test_of_many_equal_scores_the_first_count_as_the_lowest():
    found = by_scores([1.0] * 300).load(generated=generated(300))
    assert found.latents.flatten().long().tolist() == [*range(60), *range(150, 300)]
    assert found.labels.tolist() == [1] * 60 + [0] * 150


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_normal_share_is_half_or_what_is_left(share):
    found = by_scores(list(map(float, range(10))), share=share).load(generated=generated())
    assert found.labels.bincount().tolist() == [5 if share == 0.2 else 3, round(share * 10)]


def test_scores_of_other_images_are_refused():
    with pytest.raises(InputError, match="3 scores for 10 images; score these very images"):
        by_scores([1.0, 2.0, 3.0]).load(generated=generated())


def test_scores_that_carry_other_images_are_refused():
    given = Samples(torch.rand(10, 1, 8, 8), value_range=(0.0, 1.0))
    of_them = ImageScores(torch.arange(10.0), given.rescale((-1.0, 1.0)).images, (-1.0, 1.0))
    assert ArtifactLabels(scores=of_them).load(generated=given).labels.tolist() == [1, 1, 0, 0, 0, 0, 0]
    with pytest.raises(
        InputError, match=r"of other images \(they differ by \d\d% of the range on average\); score these"
    ):
        ArtifactLabels(scores=of_them).load(generated=given[[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]])
    smaller = ImageScores(torch.arange(10.0), torch.zeros(10, 1, 4, 4))  # scored at another size: not to be compared
    assert len(ArtifactLabels(scores=smaller).load(generated=given)) == 7


@pytest.mark.parametrize(("count", "share"), [(7, 0.5), (59, 0.5), (30, 0.85), (50, 0.95)])
def test_shares_that_leave_nothing_between_fit_any_number_of_images(count, share):
    found = by_scores(list(map(float, range(count))), share=share).load(generated=generated(count))
    worst = round(share * count)
    assert found.labels.tolist() == [1] * worst + [0] * (count - worst)


def test_what_is_no_samples_is_told():
    with pytest.raises(InputError, match="labels Samples or a Dataset, not a Tensor; wrap the images"):
        by_scores([1.0, 2.0]).load(generated=torch.zeros(2, 1, 8, 8))


def test_so_few_images_that_a_class_is_empty_are_refused():
    with pytest.raises(InputError, match=r"of 2 images share 0\.2 are 0 and normal_share 0\.5 are 1; there must be"):
        by_scores([1.0, 2.0]).load(generated=generated(2))


# -- real ones beside -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_dataset", [False, True])
def test_real_images_are_a_third_class_and_latents_go(by_hand, as_dataset):
    beside = PatchDataset(3, size=16) if as_dataset else real(3, 16)
    given = generated()
    given = Samples(given.images.repeat(1, 1, 2, 2), latents=given.latents, value_range=(-1.0, 1.0))
    found = by_hand({0: "artifact", 4: "normal"}, real=beside).load(generated=given)
    assert found.class_names == ("normal", "artifact", "real")
    assert found.labels.tolist() == [1, 0, 2, 2, 2]
    assert torch.equal(found.images[:2], given.images[[0, 4]])
    assert torch.equal(found.images[2:], beside[:].images)
    assert found.latents is None
    assert found.masks is None


def test_real_images_of_another_precision_become_like_the_generated_ones(by_hand):
    double = Samples(real().images.double(), value_range=(-1.0, 1.0))
    found = by_hand({0: "artifact", 4: "normal"}, real=double).load(generated=generated())
    assert found.images.dtype == torch.float32


@pytest.mark.parametrize("wrong", [real(3, 16), Samples(torch.rand(3, 1, 8, 8), value_range=(0.0, 1.0))])
def test_real_images_of_another_size_or_range_are_refused(by_hand, wrong):
    with pytest.raises(InputError, match="bring them to one size and range"):
        by_hand({0: "artifact"}, real=wrong).load(generated=generated())


def test_no_real_images_at_all_are_refused(by_hand):
    with pytest.raises(InputError, match="there are no real images; leave real out"):
        by_hand({0: "artifact"}, real=real(3)[:0]).load(generated=generated())


# -- what it is given -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "and neither is given; give exactly one of them"),
        ({"csv": "x.csv", "scores": ImageScores(torch.zeros(2))}, "and both are given; give exactly one of them"),
        ({"csv": "x.csv", "share": 0.0}, r"share 0\.0 must be between 0 and 1"),
        ({"csv": "x.csv", "share": 0.6, "normal_share": 0.5}, r"normal_share 0\.5 must be above 0, and at most what"),
    ],
)
def test_bad_parameters_are_told(params, said):
    with pytest.raises(BadParameter, match=said):
        create("dataset/artifact-labels", **params)


def test_before_it_has_labelled_it_holds_nothing():
    unlabelled = by_scores([1.0, 2.0])
    for ask in (len, lambda data: data[0]):
        with pytest.raises(InputError, match="holds no images until it has labelled some"):
            ask(unlabelled)
