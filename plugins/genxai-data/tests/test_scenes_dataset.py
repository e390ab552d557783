import colorsys
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from genxai_data import scene_factors, scene_render
from genxai_data.scenes import Scenes

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError

PARTS = ("images", "labels", "masks", "factors")


def same(a, b):
    return all(torch.equal(getattr(a, p), getattr(b, p)) for p in PARTS) and a.captions == b.captions


def named(samples, row):
    return dict(zip(samples.factor_names, samples.factors[row].tolist()))


# -- determinism --------------------------------------------------------------------------------------------------


def test_image_i_depends_on_seed_and_start_plus_i_only():
    whole = Scenes(n=12, seed=4)[:]
    assert same(whole[5:8], Scenes(n=1000, seed=4)[5:8])
    assert same(whole[[9, 2]], Scenes(n=10, seed=4)[[9, 2]])
    assert same(whole[6:], Scenes(n=6, seed=4, start=6)[:])
    for i in (3, 11):
        assert same(whole[i], Scenes(n=12, seed=4)[i])
    again = Scenes(n=12, seed=4)
    assert same(again[:], again[:])  # rendered, then kept
    assert not same(whole, Scenes(n=12, seed=5)[:])


def test_the_scenes_of_a_seed_stay_the_same_from_version_to_version():
    assert Scenes()[[0, 1, 1999]].captions == (
        "a medium purple ring, a medium turquoise cross and a small orange square on a plain background",
        "a small pink star on a gradient background",
        "a small yellow ring in a landscape",
    )


def test_no_two_scenes_are_alike():
    rows = Scenes(n=500, size=16)[:].factors
    assert len({tuple(row.tolist()) for row in rows}) == 500


def test_the_same_scene_at_another_size_is_the_same_picture():
    small, large = Scenes(n=6, size=32)[:], Scenes(n=6, size=128)[:]
    assert torch.equal(small.factors, large.factors)
    pooled = torch.nn.functional.avg_pool2d(large.images, 4)
    assert float((pooled - small.images).abs().mean()) < 0.01


# -- truth: an independent, slow painter ----------------------------------------------------------------------------


def corners(shape):
    """Outlines in units of the radius, y down, without rotation."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(1.1 * math.sin(t), -1.1 * math.cos(t)) for t in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
    if shape == "star":
        outer = 0.35 / math.cos(math.radians(72))
        inner = 0.35 / math.cos(math.radians(36))
        radii = itertools.cycle([outer, inner])
        return [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in zip(range(10), radii)]
    a, b = 0.34, 0.95
    return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]


def in_polygon(px, py, polygon):
    """Count the edges that a ray to the right crosses."""
    inside = False
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1]):
        if (y0 > py) != (y1 > py) and px < x0 + (py - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return inside


class Oracle:
    """Says of a point which concept is seen there, from the factors by name."""

    def __init__(self, factors):
        self.f = factors
        self.objects = []
        for j in range(1, int(factors["count"]) + 1):
            shape = scene_factors.SHAPES[int(factors[f"shape_{j}"])]
            turn = math.radians(factors[f"angle_{j}"])
            r, cx, cy = (factors[f"{k}_{j}"] for k in ("size", "x", "y"))
            outline = [
                (cx + r * (u * math.cos(turn) - v * math.sin(turn)), cy + r * (u * math.sin(turn) + v * math.cos(turn)))
                for u, v in corners(shape)
            ]
            self.objects.append((shape, r, cx, cy, outline))

    def at(self, x, y):
        for shape, r, cx, cy, outline in reversed(self.objects):  # from front to back
            distance = math.hypot(x - cx, y - cy) / r
            if shape == "circle":
                hit = distance <= 0.92
            elif shape == "ring":
                hit = 0.47 <= distance <= 0.97
            else:
                hit = in_polygon(x, y, outline)
            if hit:
                return shape
        background = scene_factors.BACKGROUNDS[int(self.f["background"])]
        if background != "landscape":
            return background
        phase = self.f["phase"]
        line = self.f["horizon"] + 0.035 * math.sin(2 * math.pi * (x + phase))
        line += 0.015 * math.sin(2 * math.pi * (2.3 * x - phase))
        return "ground" if y > line else "sky"

    def seen(self, x, y):
        """The concepts within rounding (1e-5 image widths) of a point."""
        e = 1e-5
        return {self.at(x + dx, y + dy) for dx, dy in ((0, 0), (e, e), (e, -e), (-e, e), (-e, -e))}


@pytest.mark.parametrize("start", [0, 9, 18])
def test_every_sub_sample_shows_what_a_point_in_shape_oracle_says(start):
    size = 16
    samples = Scenes(n=9, size=size, seed=1, start=start)[:]
    n, borderline = size * scene_render.SUPERSAMPLES, 0
    for row in range(9):
        oracle = Oracle(named(samples, row))
        _, painted = scene_render.paint(samples.factors[row].numpy(), size)
        votes = [[Counter() for _ in range(size)] for _ in range(size)]
        for i in range(n):
            for j in range(n):
                got = scene_factors.CONCEPTS[painted[i, j]]
                votes[i // 4][j // 4][got] += 1
                x, y = (j + 0.5) / n, (i + 0.5) / n
                if got != oracle.at(x, y):
                    borderline += 1
                    assert got in oracle.seen(x, y), (row, i, j)
        for i in range(size):
            for j in range(size):
                tally = votes[i][j]
                most = max(tally.values())
                first = min(scene_factors.CONCEPTS.index(c) for c, k in tally.items() if k == most)
                assert samples.masks[row, :, i, j].nonzero().flatten().tolist() == [first]
    assert borderline < 20  # of 9 · 64 · 64


def test_the_oracle_saw_every_shape_and_every_background():
    factors = Scenes(n=27, seed=1)[:].factors
    columns = [i for i, name in enumerate(scene_factors.FACTORS) if name.startswith("shape_")]
    assert set(factors[:, columns].flatten().int().tolist()) == {-1, *range(6)}
    assert set(factors[:, 1].int().tolist()) == set(range(5))
    assert set(factors[:, 0].int().tolist()) == {1, 2, 3, 4}


def test_a_pixel_is_the_mean_of_its_sixteen_samples():
    row = scene_factors.draw(0, 3)
    colours, _ = scene_render.paint(row, 20)
    image, _ = scene_render.render(row, 20)
    for i, j in ((0, 0), (7, 11), (19, 19), (12, 5)):
        block = colours[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].astype(np.float64).mean((1, 2))
        assert np.abs(block * 255 - image[:, i, j]).max() <= 0.5 + 1e-3


# -- masks, factors, captions ---------------------------------------------------------------------------------------


def test_masks_are_disjoint_cover_the_image_and_match_the_background():
    samples = Scenes(n=200, size=24)[:]
    assert samples.masks.dtype == torch.bool
    assert samples.masks.shape == (200, 12, 24, 24)
    assert samples.concepts == scene_factors.CONCEPTS
    assert bool((samples.masks.sum(1) == 1).all())
    shown = samples.masks.flatten(2).any(2)
    for i in range(200):
        factors = named(samples, i)
        kind = scene_factors.BACKGROUNDS[int(factors["background"])]
        here = {scene_factors.SHAPES[int(factors[f"shape_{j}"])] for j in range(1, int(factors["count"]) + 1)}
        allowed = here | ({"sky", "ground"} if kind == "landscape" else {kind})
        assert {c for c, there in zip(samples.concepts, shown[i]) if there} == allowed


def test_every_object_is_wholly_inside_and_mostly_visible():
    samples = Scenes(n=300, size=32)[:]
    shapes = samples.masks[:, :6].any(1)
    edge = torch.cat([shapes[:, 0], shapes[:, -1], shapes[:, :, 0], shapes[:, :, -1]], 1)
    assert not bool(edge.any())
    for i in range(300):
        row = samples.factors[i].numpy()
        for j in range(int(row[0])):
            alone = row.copy()
            alone[0], alone[scene_factors.object_columns(0)] = 1, row[scene_factors.object_columns(j)]
            visible = whole = scene_render.paint(alone, 16)[1] < 6
            for k in range(j + 1, int(row[0])):
                alone[scene_factors.object_columns(0)] = row[scene_factors.object_columns(k)]
                visible = visible & ~(scene_render.paint(alone, 16)[1] < 6)
            assert visible.sum() > 0.6 * whole.sum(), (i, j)


def test_factors_say_where_how_large_and_what_the_objects_are():
    samples = Scenes(n=150, size=64)[:]
    single = [i for i in range(150) if samples.factors[i, 0] == 1]
    assert len(single) > 20
    areas = {"circle": math.pi * 0.92**2, "square": 1.6**2, "triangle": 3 * math.sqrt(3) * 0.55**2}
    areas |= {"ring": math.pi * (0.97**2 - 0.47**2), "cross": 4 * 0.34 * (2 * 0.95 - 0.34)}
    areas["star"] = (
        10 * 0.5 * (0.35 / math.cos(math.radians(72))) * (0.35 / math.cos(math.radians(36))) * math.sin(math.pi / 5)
    )
    for i in single:
        factors = named(samples, i)
        shape = samples.class_names[int(samples.labels[i])]
        assert shape == scene_factors.SHAPES[int(factors["shape_1"])]
        mask = samples.masks[i, samples.concepts.index(shape)]
        ys, xs = mask.nonzero(as_tuple=True)
        assert abs(float(xs.float().mean() + 0.5) / 64 - factors["x_1"]) < 0.01
        assert abs(float(ys.float().mean() + 0.5) / 64 - factors["y_1"]) < 0.01
        assert float(mask.sum()) / 64**2 == pytest.approx(areas[shape] * factors["size_1"] ** 2, rel=0.12)


def test_factors_hold_no_nan_and_minus_one_exactly_where_they_do_not_apply():
    samples = Scenes(n=300, size=16)[:]
    assert samples.factors.shape == (300, 31)
    assert samples.factors.dtype == torch.float32
    assert bool(torch.isfinite(samples.factors).all())
    for i in range(300):
        factors = named(samples, i)
        applies = {"count", "background", "tone"}
        applies |= set(scene_factors.SETTINGS[scene_factors.BACKGROUNDS[int(factors["background"])]])
        for j in range(1, int(factors["count"]) + 1):
            applies |= {f"{name}_{j}" for name in ("shape", "colour", "size", "x", "y", "angle")}
        assert {name for name, value in factors.items() if value != -1} == applies
        sizes = [factors[f"size_{j}"] for j in range(1, int(factors["count"]) + 1)]
        assert sizes == sorted(sizes, reverse=True)


WORDS = re.compile(r"a (small|medium|large) (\w+) (circle|square|triangle|star|ring|cross)")
ENDS = {
    "plain": "plain background",
    "gradient": "gradient background",
    "stripes": "striped background",
    "dots": "dotted background",
    "landscape": "in a landscape",
}


def test_captions_tell_the_factors():
    samples = Scenes(n=200, size=16)[:]
    for i, text in enumerate(samples.captions):
        factors = named(samples, i)
        said = WORDS.findall(text)
        assert len(said) == int(factors["count"])
        assert text.endswith(ENDS[scene_factors.BACKGROUNDS[int(factors["background"])]])
        assert len({colour for _, colour, _ in said}) == len(said)
        for j, (size, colour, shape) in enumerate(said, 1):
            low, high = {"small": (0.11, 0.15), "medium": (0.17, 0.21), "large": (0.24, 0.30)}[size]
            assert low <= factors[f"size_{j}"] + 1e-6
            assert factors[f"size_{j}"] - 1e-6 <= high
            assert scene_factors.COLOURS[int(factors[f"colour_{j}"])] == colour
            assert scene_factors.SHAPES[int(factors[f"shape_{j}"])] == shape


def test_a_caption_reads_as_english():
    row = scene_factors.draw(0, 0)
    row[: scene_factors.FACTORS.index("shape_1")] = [2, 2, 0, -1, 0.2, 30, 0]
    row[scene_factors.object_columns(0)] = [0, 0, 0.28, 0.3, 0.5, 0]
    row[scene_factors.object_columns(1)] = [3, 5, 0.12, 0.8, 0.5, 10]
    assert scene_factors.caption(row) == "a large red circle and a small blue star on a striped background"


def test_pixels_have_the_colour_that_the_caption_names():
    hues = {
        "red": 3,
        "orange": 28,
        "yellow": 46,
        "green": 140,
        "turquoise": 178,
        "blue": 217,
        "purple": 268,
        "pink": 335,
    }
    samples = Scenes(n=200, size=32, value_range=(0.0, 1.0))[:]
    seen = set()
    for i in range(200):
        if samples.factors[i, 0] != 1:
            continue
        mask = samples.masks[i, int(samples.labels[i])]
        hue = 360 * colorsys.rgb_to_hsv(*samples.images[i][:, mask].mean(1).tolist())[0]
        nearest = min(hues, key=lambda name: abs((hue - hues[name] + 180) % 360 - 180))
        assert f" {nearest} " in samples.captions[i]
        seen.add(nearest)
    assert seen == set(hues)


# -- rendering one's own factors -----------------------------------------------------------------------------------


def test_images_are_a_function_of_their_factors():
    scenes = Scenes(n=10, seed=2)
    assert same(scenes.render(scenes[:].factors), scenes[:])


def test_changing_one_factor_changes_what_it_names():
    scenes = Scenes(n=40, seed=2)
    kept = [i for i in range(40) if scenes[i].factors[0, 0] == 1]
    before = scenes[kept]
    factors = before.factors.clone()
    column = before.factor_names.index("colour_1")
    factors[:, column] = (factors[:, column] + 1) % 8
    after = scenes.render(factors)
    assert torch.equal(after.masks, before.masks)
    changed = (after.images != before.images).any(1)
    outside = ~before.masks[:, :6].any(1)
    grown = torch.nn.functional.max_pool2d((~outside).float()[:, None], 3, 1, 1)[:, 0].bool()
    assert bool(changed.flatten(1).any(1).all())
    assert not bool(changed[~grown].any())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("count", 5, "count is 5"),
        ("count", 0, "count is 0"),
        ("shape_1", 1.5, "shape_1 is 1.5"),
        ("tone", 6, "from 0 to 5"),
        ("size_1", 0, "size_1 is 0"),
        ("x_1", math.nan, "finite"),
        ("background", 4, "horizon is -1"),
    ],
)
def test_factors_that_cannot_be_rendered_are_refused_with_the_reason(name, value, says):
    scenes = Scenes(n=50)
    plain = next(i for i in range(50) if scenes[i].factors[0, 1] == 0)
    factors = scenes[plain].factors.clone()
    factors[0, scenes.factor_names.index(name)] = value
    with pytest.raises(InputError, match=re.escape(says)):
        scenes.render(factors)
    with pytest.raises(InputError, match=r"\[N, 31\]"):
        scenes.render(factors[:, 1:])


# -- parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 33, 256])
def test_any_size(size):
    samples = gx.create("dataset/scenes", n=2, size=size, value_range=[0, 1])[:]
    assert samples.images.shape == (2, 3, size, size)
    assert float(samples.images.min()) >= 0
    assert float(samples.images.max()) <= 1
    assert samples[0:0].images.shape == (0, 3, size, size)
    assert gx.create("dataset/scenes", n=2, size=size)[0:0].images.shape == (0, 3, size, size)


@pytest.mark.parametrize(
    ("params", "says"),
    [({"n": 0}, "n 0"), ({"size": 15}, "size 15"), ({"size": 257}, "size 257"), ({"start": -1}, "start -1")],
)
def test_bad_parameters_are_refused_by_name(params, says):
    with pytest.raises(BadParameter, match=says):
        gx.create("dataset/scenes", **params)


def test_what_is_kept_is_bounded(monkeypatch):
    from genxai_data import images

    monkeypatch.setattr(images, "STORE_BYTES", 3 * 4 * 32 * 32)
    scenes = Scenes(n=8)
    first = scenes[:]
    assert len(scenes._planes._kept) == 3
    assert same(first, scenes[:])
