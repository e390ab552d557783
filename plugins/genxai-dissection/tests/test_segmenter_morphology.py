"""segmenter/morphology on drawn shapes, whose holes, ends and junctions are known, against literal counting."""

import numpy as np
import pytest
import torch
from genxai_dissection.morphology import Morphology, crossing_numbers, prune
from skimage import measure

import genxai_core as gx
from genxai_core.errors import BadParameter

SIZES = (16, 28, 32, 64)


def canvas(size):
    y, x = np.mgrid[:size, :size]
    return (x + 0.5) / size, (y + 0.5) / size


def bar(size, a, b, thickness=0.07):
    """A stroke from a to b, both (x, y) in image widths."""
    (px, py), (qx, qy) = a, b
    x, y = canvas(size)
    along = np.clip(((x - px) * (qx - px) + (y - py) * (qy - py)) / ((qx - px) ** 2 + (qy - py) ** 2), 0, 1)
    return np.hypot(x - px - along * (qx - px), y - py - along * (qy - py)) < thickness


def ring(size, centre=(0.5, 0.5), radius=0.3, thickness=0.07):
    x, y = canvas(size)
    return abs(np.hypot(x - centre[0], y - centre[1]) - radius) < thickness


CROSS = [((0.2, 0.5), (0.8, 0.5)), ((0.5, 0.2), (0.5, 0.8))]
SHAPES = {  # drawing, holes, ends, junctions
    "ring": (lambda s: ring(s), 1, 0, 0),
    "bar": (lambda s: bar(s, (0.2, 0.2), (0.8, 0.7)), 0, 2, 0),
    "cross": (lambda s: bar(s, *CROSS[0]) | bar(s, *CROSS[1]), 0, 4, 1),
    "T": (lambda s: bar(s, (0.2, 0.2), (0.8, 0.2)) | bar(s, (0.5, 0.2), (0.5, 0.8)), 0, 3, 1),
    "L": (lambda s: bar(s, (0.3, 0.2), (0.3, 0.8)) | bar(s, (0.3, 0.8), (0.8, 0.8)), 0, 2, 0),
    "six": (lambda s: ring(s, (0.5, 0.65), 0.22) | bar(s, (0.29, 0.65), (0.45, 0.1)), 1, 1, 1),
    "theta": (lambda s: ring(s, radius=0.36) | bar(s, (0.14, 0.5), (0.86, 0.5)), 2, 0, 2),
}


def samples(*drawings, value_range=(-1.0, 1.0), channels=1):
    images = torch.tensor(np.stack(drawings), dtype=torch.float32)[:, None].repeat(1, channels, 1, 1)
    return gx.Samples(images, value_range=(0.0, 1.0)).rescale(value_range)


def count(mask):
    return int(measure.label(mask.numpy(), connectivity=2).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_holes_ends_and_junctions_of_drawn_shapes(name, size):
    draw, holes, ends, junctions = SHAPES[name]
    drawn = draw(size)
    stroke, hole, background, endpoints, crossings = Morphology().segment(samples(drawn))[0]
    assert np.array_equal(stroke.numpy(), drawn)
    assert int(measure.label(hole.numpy(), connectivity=1).max()) == holes
    assert (count(endpoints), count(crossings)) == (ends, junctions)
    assert torch.equal(stroke.int() + hole.int() + background.int(), torch.ones(size, size, dtype=torch.int32))


def test_a_cross_has_its_points_where_it_was_drawn():
    masks = Morphology(radius=0).segment(samples(SHAPES["cross"][0](64)))[0]
    (y,), (x,) = np.nonzero(masks[4].numpy())
    assert abs(y - 31.5) <= 1
    assert abs(x - 31.5) <= 1
    ends = sorted((int(y), int(x)) for y, x in masks[3].nonzero())
    expected = [(12, 31), (31, 12), (31, 51), (51, 31)]  # 0.2 and 0.8 of 64; thinning stops within a stroke's radius
    assert all(np.hypot(a - c, b - d) <= 0.07 * 64 + 1 for (a, b), (c, d) in zip(ends, expected))


def test_holes_are_what_a_flood_from_the_border_does_not_reach():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ink = rng.random((12, 9)) < 0.55
        reached, queue = (
            np.zeros_like(ink),
            [(y, x) for y in range(12) for x in range(9) if y in (0, 11) or x in (0, 8)],
        )
        while queue:
            y, x = queue.pop()
            if 0 <= y < 12 and 0 <= x < 9 and not ink[y, x] and not reached[y, x]:
                reached[y, x] = True
                queue += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        masks = Morphology().segment(samples(ink))[0].numpy()
        assert np.array_equal(masks[0], ink)
        assert np.array_equal(masks[1], ~ink & ~reached)
        assert np.array_equal(masks[2], reached)


def test_a_gap_over_a_corner_closes_a_hole():
    ink = np.zeros((7, 7), dtype=bool)
    for y, x in ((1, 3), (2, 2), (2, 4), (3, 1), (3, 5), (4, 2), (4, 4), (5, 3)):  # a diamond that touches at corners
        ink[y, x] = True
    assert int(Morphology().segment(samples(ink))[0, 1].sum()) == 5
    ink[3, 1] = False
    assert int(Morphology().segment(samples(ink))[0, 1].sum()) == 0


def test_crossing_numbers_equal_a_walk_round_each_pixel():
    rng = np.random.default_rng(1)
    skeleton = rng.random((15, 11)) < 0.5
    found = crossing_numbers(skeleton)
    walk = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    for y in range(15):
        for x in range(11):
            ring = [bool(skeleton[y + i, x + j]) if 0 <= y + i < 15 and 0 <= x + j < 11 else False for i, j in walk]
            assert found[y, x] == sum(not ring[k] and ring[(k + 1) % 8] for k in range(8))


def test_short_branches_are_cut_off_and_lines_stay():
    line = np.zeros((20, 20), dtype=bool)
    line[10, 2:18] = True
    branched = line.copy()
    branched[7:10, 9] = True
    assert np.array_equal(prune(line, 30), line)
    assert np.array_equal(prune(branched, 3), branched)
    pruned = prune(branched, 4)
    crossing = crossing_numbers(pruned)[pruned]
    assert (crossing == 1).sum() == 2
    assert not (crossing >= 3).any()


def test_ink_threshold_radius_and_channels():
    drawn = SHAPES["cross"][0](32)
    bright = Morphology().segment(samples(drawn))
    assert torch.equal(Morphology(ink="dark").segment(samples(~drawn)), bright)
    assert torch.equal(Morphology().segment(samples(drawn, value_range=(0.0, 255.0), channels=3)), bright)
    assert torch.equal(Morphology(threshold=0.8).segment(samples(0.7 * drawn))[0, 2], torch.ones(32, 32).bool())
    areas = [int(Morphology(radius=r).segment(samples(drawn))[0, 4].sum()) for r in (0, 1, 2)]
    assert areas == [1, 5, 13]  # discs


def test_images_without_ink_or_all_ink():
    empty, full = Morphology().segment(samples(np.zeros((8, 8)), np.ones((8, 8))))
    assert empty[2].all()
    assert not empty[[0, 1, 3, 4]].any()
    assert full[0].all()
    assert not full[[1, 2, 4]].any()


@pytest.mark.parametrize("size", [8, 16, 32])
def test_written_zeros_and_ones_have_the_holes_that_they_have(size):
    digits = gx.create("dataset/digits", size=size)[:400]
    holes = [int(measure.label(m[1].numpy(), connectivity=1).max()) for m in Morphology().segment(digits)]
    share = {d: np.mean([h == e for h, lab in zip(holes, digits.labels) if lab == d]) for d, e in ((0, 1), (1, 0))}
    assert share[0] >= 0.7
    assert share[1] >= 0.97


@pytest.mark.parametrize("wrong", [{"threshold": 1.0}, {"radius": -1}, {"spur": 1.0}, {"ink": "red"}])
def test_parameters_out_of_bounds_are_refused(wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        gx.create("segmenter/morphology", **wrong)
