"""Localisation: oracle, opposite and chance, literal versions of the three figures, ties, concepts, refusals."""

import itertools

import pytest
import torch
from genxai_metrics.localisation import Localisation
from genxai_metrics.ranks import largest

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError

NAMES = ("pointing_game", "energy", "iou")


def measured(maps, masks, **params):
    return Localisation(**params).measure(explanation=gx.Attribution(maps), masks=masks)


def masks_of(n, seed=0):
    masks = gx.draws.uniform(seed, range(n), (6, 6), "masks") < 0.3
    masks[:, 0, 0] = True
    return masks


def test_the_pixels_of_the_mask_are_perfect_and_their_negatives_the_worst(oracles):
    masks = masks_of(8)
    maps = (oracles.images_of(8)[:, 0] + 1) * masks
    right, wrong = measured(maps, masks), measured(-maps, masks)
    assert [right[name] for name in NAMES] == [1.0, 1.0, 1.0]
    assert [wrong[name] for name in NAMES] == [0.0, 0.0, 0.0]
    assert right["images"] == 8


def test_a_constant_map_is_at_chance_and_so_is_a_random_one():
    masks = masks_of(2000)
    area = masks.float().mean((1, 2)).double()
    constant, random = (measured(m, masks) for m in (torch.ones(2000, 6, 6), gx.draws.normal(7, range(2000), (6, 6))))
    for found, slack in ((constant, 1e-6), (random, 0.03)):
        assert found["pointing_game"] == pytest.approx(float(area.mean()), abs=slack)
        assert found["energy"] == pytest.approx(float(area.mean()), abs=slack)
        assert found["iou"] == pytest.approx(float((area / (2 - area)).mean()), abs=slack)
    nothing = measured(torch.zeros(2000, 6, 6), masks)
    assert nothing["energy"] == 0
    assert nothing["iou"] == constant["iou"]


def test_they_are_the_literal_versions():
    masks, maps = masks_of(20), gx.draws.normal(3, range(20), (2, 6, 6))
    metric = Localisation()
    metric.update(explanation=gx.Attribution(maps), masks=masks)
    found = metric.per_image()
    for i in range(20):
        plane, mask = maps[i].double().sum(0), masks[i]
        peak = divmod(int(plane.argmax()), 6)
        assert found["pointing_game"][i] == float(mask[peak])
        positive = [(max(0.0, float(plane[p])), bool(mask[p])) for p in itertools.product(range(6), range(6))]
        expected = sum(v for v, inside in positive if inside) / sum(v for v, _ in positive)
        assert float(found["energy"][i]) == pytest.approx(expected)
        chosen = torch.zeros(36, dtype=torch.bool)
        chosen[plane.flatten().topk(int(mask.sum())).indices] = True
        both, either = (chosen & mask.flatten()).sum(), (chosen | mask.flatten()).sum()
        assert float(found["iou"][i]) == pytest.approx(float(both / either))


def test_ties_at_the_cut_share_the_places_that_are_left():
    """The mean over all ways of breaking them."""
    values = torch.tensor([[5.0, 1.0, 1.0, 1.0, 0.0]])
    ways = [[0, *rest] for rest in itertools.combinations((1, 2, 3), 2)]
    mean = torch.stack([torch.zeros(5).index_fill(0, torch.tensor(w), 1.0) for w in ways]).mean(0)
    torch.testing.assert_close(largest(values, torch.tensor([3]))[0], mean.double())
    assert largest(values, torch.tensor([0])).sum() == 0
    assert largest(values, torch.tensor([5])).tolist() == [[1.0] * 5]


def test_several_peaks_count_by_their_share():
    maps, masks = torch.zeros(2, 6, 6), torch.zeros(2, 6, 6, dtype=torch.bool)
    maps[:, 0, :4] = 1.0
    masks[:, 0, 0] = True
    assert measured(maps, masks)["pointing_game"] == 0.25


@pytest.mark.parametrize(("tolerance", "hit"), [(0, 0), (2, 0), (3, 1)])
def test_the_tolerance_is_euclidean(tolerance, hit):
    maps, masks = torch.zeros(2, 6, 6), torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[:, 1, 1] = True
    maps[0, 3, 3] = maps[1, 1, 4] = 1.0  # √8 and 3 away
    assert measured(maps, masks, tolerance=tolerance)["pointing_game"] == hit


def test_a_concept_is_chosen_by_number_or_name(oracles):
    planes = torch.stack([masks_of(5, 1), masks_of(5, 2)], 1)
    images = oracles.images_of(5)
    samples = gx.Samples(images, masks=planes, concepts=("sun", "tree"), value_range=(-1, 1))
    maps = images[:, 0] * 1.0
    tree = measured(maps, planes[:, 1])
    assert measured(maps, planes, concept=1) == measured(maps, samples, concept="tree") == tree
    assert measured(maps, samples) == measured(maps, planes) == measured(maps, planes.any(1)) != tree
    with pytest.raises(InputError, match="no concept 'moon' \\(there are: sun, tree\\)"):
        measured(maps, samples, concept="moon")
    with pytest.raises(InputError, match="give samples, or the number"):
        measured(maps, planes, concept="tree")
    with pytest.raises(InputError, match="no concept 2; the masks have 2"):
        measured(maps, planes, concept=2)


def test_a_datasets_masks_are_taken_by_name():
    scenes = gx.create("dataset/scenes", n=40)
    samples = scenes[:]
    circles = samples.masks[:, samples.concepts.index("circle")]
    maps = circles.float()
    metric = Localisation(concept="circle")
    found = metric.measure(explanation=gx.Attribution(maps), masks=scenes)
    assert [found[name] for name in NAMES] == [1.0, 1.0, 1.0]
    assert found["images"] == float(circles.any(2).any(1).sum())


def test_images_without_the_concept_do_not_count():
    masks, maps = masks_of(6), gx.draws.normal(3, range(6), (6, 6))
    masks[1] = masks[4] = False
    rest = [0, 2, 3, 5]
    found = measured(maps, masks)
    assert found == measured(maps[rest], masks[rest])
    assert found["images"] == 4
    with pytest.raises(InputError, match="at least 2 images that count, and has seen 0"):
        measured(maps[[1, 4]], masks[[1, 4]])


def test_masks_that_do_not_fit_are_refused(oracles):
    maps, images = torch.ones(3, 6, 6), oracles.images_of(3)
    for masks, said in (
        (torch.ones(3, 6, 6), r"bool \[N, K, H, W\]"),
        (torch.ones(2, 6, 6, dtype=torch.bool), r"masks \[2, 1, 6, 6\] do not fit"),
        (torch.ones(3, 1, 5, 6, dtype=torch.bool), r"masks \[3, 1, 5, 6\] do not fit"),
        (gx.Samples(images, value_range=(-1, 1)), "have no masks"),
        ("sun", "not str"),
    ):
        with pytest.raises(InputError, match=said):
            measured(maps, masks)
    with pytest.raises(BadParameter, match="tolerance -1"):
        gx.create("metric/localisation", tolerance=-1)
