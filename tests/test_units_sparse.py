"""Thresholds and counts compute only the pixels that can matter; here against all pixels, bit for bit."""

import math

import pytest
import torch
from torch.nn import functional as F
from unit_models import Net, Says, places

from genxai_core import units
from genxai_core.errors import InputError
from genxai_core.units import active, extremes, upsampling

SHAPES = [
    ((4, 4), (16, 16)),
    ((4, 4), (12, 12)),
    ((5, 3), (9, 7)),
    ((3, 7), (10, 7)),
    ((6, 6), (4, 3)),
    ((1, 1), (8, 8)),
    ((1, 4), (3, 8)),
    ((2, 2), (64, 64)),
    ((7, 5), (7, 5)),
]


def activations(kind, cells, n=6, u=5, dtype=torch.float32):
    g = torch.Generator().manual_seed(3)
    white = torch.randn(n, u, *cells, generator=g, dtype=torch.float64)
    smooth = F.interpolate(white[:, :, :2, :2], size=cells, mode="bicubic")
    made = {
        "white": white,
        "smooth": smooth,
        "rectified": (white - 1.5).clamp(min=0),
        "off": (white - 3).clamp(min=0),
        "negative": -white.abs() - 0.1,
        "constant": torch.full_like(white, -0.3),
        "ties": white.round(),
        "spikes": white * 10 ** white.mul(3).round(),
        "far": white + 1e4,
    }
    return made[kind].to(dtype)


KINDS = ["white", "smooth", "rectified", "off", "negative", "constant", "ties", "spikes", "far"]


def everywhere(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def dense_counts(maps, level, masks):
    on = everywhere(maps, tuple(masks.shape[2:])) > level[:, None, None]
    both = torch.einsum("nuhw,nchw->uc", on.double(), masks.double()).long()
    return both, on.sum((0, 2, 3))


def dense_threshold(maps, quantile, size):
    """Midway between two order statistics, of all pixels, in float64."""
    pixels = everywhere(maps.double(), size).transpose(0, 1).flatten(1)
    k = math.floor((1 - quantile) * pixels.shape[1] + 0.5)
    ordered = pixels.sort(1, descending=True).values
    return (ordered[:, k - 1] + ordered[:, k]) / 2, ordered[:, k - 1] - ordered[:, k], k


# -- counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("cells", "size"), SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_all_pixels(kind, cells, size, dtype):
    maps, masks = activations(kind, cells, dtype=dtype), places(6, 11, *size)
    pixels = everywhere(maps, size).transpose(0, 1).flatten(1).sort(1).values
    for share in (0.995, 0.9, 0.3):
        at = int(share * (pixels.shape[1] - 1))
        # on a pixel's very value, and midway between two
        for level in (pixels[:, at], (pixels[:, at] + pixels[:, at + 1]) / 2):
            counter = units.Tally({"l": level})
            counter.count({"l": maps}, masks)
            both, area = dense_counts(maps, level, masks)
            assert torch.equal(counter.area["l"], area)
            assert torch.equal(counter.intersection["l"], both)
            assert torch.equal(counter.concept_area, masks.sum((0, 2, 3)))


def test_counts_do_not_depend_on_what_is_looked_at_at_once(monkeypatch):
    maps, masks = activations("white", (5, 3)), places(6, 9, 13, 8)
    level = torch.linspace(-1, 1, 5)
    found = []
    for cells, pixels in ((1 << 20, 1 << 18), (1, 4), (100, 50)):
        monkeypatch.setattr(active, "CELLS", cells)
        monkeypatch.setattr(upsampling, "AT_ONCE", pixels)
        counter = units.Tally({"l": level})
        counter.count({"l": maps}, masks)
        found.append(counter.intersection["l"])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", ["constant", "ties", "white"])
def test_pixels_in_doubt_are_decided_a_few_at_a_time(kind, monkeypatch):
    maps, masks = activations(kind, (4, 4), n=9), places(9, 11, 13, 8)
    maps[3:7, 2] = 0.25  # one unit is in doubt everywhere in some of the samples
    level = everywhere(maps, (13, 8)).transpose(0, 1).flatten(1).median(1).values
    level[2] = 0.25
    both, area = dense_counts(maps, level, masks)
    large, decided = [], []
    true, pixels = active.upsampled, active._as_among_all
    monkeypatch.setattr(active, "upsampled", lambda of, size: large.append(of.numel()) or true(of, size))
    monkeypatch.setattr(active, "_as_among_all", lambda *args: decided.append(len(args[1])) or pixels(*args))
    monkeypatch.setattr(upsampling, "AT_ONCE", 50)
    for cells, rows in ((1 << 20, 9), (2 * 5 * 13 * 8, 2), (100, 1)):
        large.clear()
        decided.clear()
        monkeypatch.setattr(active, "CELLS", cells)
        counter = units.Tally({"l": level})
        counter.count({"l": maps}, masks)
        assert torch.equal(counter.area["l"], area)
        assert torch.equal(counter.intersection["l"], both)
        assert 0 < max(large) <= rows * 5 * 4 * 4
        assert max(decided) <= cells + 5 * 50
    assert len(decided) > 1


def test_levels_beyond_all_values_and_other_layouts_of_memory():
    maps, masks = activations("white", (4, 4)), places(6, 3, 8, 8)
    level = torch.tensor([torch.inf, -torch.inf, 0.5, -100.0, 100.0])
    for given in (maps, maps.contiguous(memory_format=torch.channels_last), maps.flip(0).flip(0)):
        counter = units.Tally({"l": level})
        counter.count({"l": given}, masks)
        both, area = dense_counts(maps, level, masks)
        assert torch.equal(counter.area["l"], area)
        assert torch.equal(counter.intersection["l"], both)
    assert counter.area["l"].tolist()[:2] == [0, 6 * 64]


def test_few_pixels_are_computed_where_few_cells_are_high(monkeypatch):
    computed = []
    values = upsampling.Grid.values
    monkeypatch.setattr(
        upsampling.Grid, "values", lambda self, of, quads: computed.append(len(quads)) or values(self, of, quads)
    )
    maps = torch.zeros(4, 3, 8, 8)
    maps[0, 1, 0, 0] = maps[2, 2, 4, 4] = 1.0
    counter = units.Tally({"l": torch.full((3,), 0.5)})
    counter.count({"l": maps}, torch.ones(4, 1, 32, 32, dtype=torch.bool))
    assert sum(computed) == 8  # four quads round each of two cells, of 12 · 81
    _, area = dense_counts(maps, torch.full((3,), 0.5), torch.ones(4, 1, 32, 32, dtype=torch.bool))
    assert torch.equal(counter.area["l"], area)


def test_what_is_counted_at_hand_must_fit():
    counter = units.Tally({"l": torch.zeros(2)})
    with pytest.raises(InputError, match="has 3 units, its thresholds are 2"):
        counter.count({"l": torch.zeros(1, 3, 2, 2)}, places(1, 1, 4, 4))
    huge = torch.full((1, 2, 2, 2), 3e38)  # its sum is infinite, and it is not
    counter.count({"l": huge}, places(1, 1, 4, 4))
    assert counter.area["l"].tolist() == [16, 16]
    huge[0, 0, 0, 0] = torch.inf
    with pytest.raises(InputError, match="NaN or infinity"):
        counter.count({"l": huge}, places(1, 1, 4, 4))


# -- thresholds -------------------------------------------------------------------------------------------------


DEAD = [((4, 4), (28, 28)), ((7, 7), (28, 28)), ((8, 8), (64, 64)), ((4, 4), (32, 32)), ((8, 8), (24, 24)), *SHAPES[4:]]
"""Sizes at which upsampling does not leave all constants as they are, and others."""


@pytest.mark.parametrize(("cells", "size"), SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [6, 80])
def test_thresholds_are_those_of_all_pixels(kind, cells, size, n):
    maps = activations(kind, cells, n=n, u=3, dtype=torch.float64)
    found = units.Thresholds(["l"], 0.9, size)
    found.see({"l": maps})
    for quantile in (0.99, 0.9, 0.4):
        wanted, gap, k = dense_threshold(maps, quantile, size)
        level = found.values(quantile)["l"]
        scale = float(maps.abs().max())
        assert (level - wanted).abs().max() <= 1e-9 * max(1.0, scale)
        exceeding = (everywhere(maps, size).transpose(0, 1).flatten(1) > level[:, None]).sum(1)
        assert torch.equal(exceeding[gap > 1e-12 * scale], torch.full_like(exceeding[gap > 1e-12 * scale], k))


def test_thresholds_in_single_precision_leave_exactly_k():
    maps = activations("white", (4, 4), n=300)
    found = units.Thresholds(["l"], 0.995, (16, 16))
    for part in maps.split(64):
        found.see({"l": part})
    on = everywhere(maps, (16, 16)) > found.values()["l"][:, None, None]
    _, gap, k = dense_threshold(maps, 0.995, (16, 16))
    apart = gap > 1e-5  # the corner cell is that of four pixels
    assert apart.sum() >= 3
    assert on.sum((0, 2, 3))[apart].tolist() == [k] * int(apart.sum())
    assert found.cells("l") == 300 * 256


@pytest.mark.parametrize(("seen", "size"), DEAD, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("noise", [0, 1, 8, 40, 1000])
def test_of_a_unit_that_is_all_but_constant_no_more_than_k_pixels_exceed(noise, dtype, seen, size):
    """Upsampled, it is itself but for rounding, which must not make it active here and there."""
    g = torch.Generator().manual_seed(11)
    level = torch.cat([torch.rand(30, generator=g, dtype=dtype) * 2, -torch.rand(30, generator=g, dtype=dtype)])
    level = torch.cat([level * 10.0 ** torch.randint(-3, 4, (60,), generator=g), torch.zeros(1)]).to(dtype)
    white = torch.randn(20, 61, *seen, generator=g, dtype=dtype)
    maps = level[:, None, None] * (1 + noise * torch.finfo(dtype).eps * white)
    masks = torch.ones(20, 1, *size, dtype=torch.bool)
    for own, quantile in ((size, 0.995), (size, 0.8), (None, 0.8)) if noise == 0 else ((size, 0.995), (size, 0.8)):
        made = units.Thresholds(["l"], quantile, own)
        made.see({"l": maps})
        found = made.values()["l"]
        counter = units.Tally({"l": found})
        counter.count({"l": maps}, masks)
        k = math.floor((1 - quantile) * 20 * size[0] * size[1] + 0.5)
        assert int(counter.area["l"].max()) <= (k if noise else 0)
        assert torch.equal(dense_counts(maps, found, masks)[1], counter.area["l"])
        assert float(found[-1]) == 0
        assert ((found - level).abs() <= (6 * noise + 40) * torch.finfo(dtype).eps * level.abs()).all()


def test_a_constant_unit_is_not_even_upsampled(monkeypatch):
    maps = torch.tensor([0.3, -0.7, 2.0])[None, :, None, None].expand(5, 3, 4, 4)
    made = units.Thresholds(["l"], 0.995, (28, 28))
    made.see({"l": maps})
    counter = units.Tally({"l": made.values()["l"]})
    computed = []
    mixed = upsampling.mixed
    monkeypatch.setattr(upsampling, "mixed", lambda *args: computed.append(args[0].numel()) or mixed(*args))
    counter.count({"l": maps}, torch.ones(5, 1, 28, 28, dtype=torch.bool))
    assert sum(computed) == 0
    assert counter.area["l"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [None, (9, 8)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_the_thresholds_one_by_one(kind, size):
    made = units.Thresholds(["l"], 0.9, size)
    made.see({"l": activations(kind, (5, 3), n=40)})
    quantiles = [0.5, 0.999, 0.9, 0.9, 0.02]
    found = made.levels(quantiles)["l"]
    assert found.shape == (5, 5)
    assert torch.equal(found, torch.stack([made.values(quantile)["l"] for quantile in quantiles]))
    with pytest.raises(InputError, match=r"too few for the quantile 0\.99999"):
        made.levels([0.5, 0.99999])


def test_the_guess_changes_the_work_and_not_the_threshold(monkeypatch):
    maps = activations("smooth", (6, 6), n=200)
    made = units.Thresholds(["l"], 0.99, (15, 15))
    made.see({"l": maps})
    first = made.values()["l"]
    guesses = []
    for low in (math.nan, -math.inf, 1e9):  # nothing is above NaN, all is above -inf
        monkeypatch.setattr(
            extremes,
            "_bounds",
            lambda maps, mesh, k, low=low: (
                guesses.append(1) or torch.tensor([low, -math.inf])[:, None].expand(2, len(maps))
            ),
        )
        assert torch.equal(made.values()["l"], first)
    monkeypatch.setattr(extremes, "CELLS", 10)
    monkeypatch.setattr(upsampling, "AT_ONCE", 100)
    assert torch.equal(made.values()["l"], first)
    assert len(guesses) > 3


def test_maps_of_another_size_are_refused():
    made = units.Thresholds(["l"], 0.9, (8, 8))
    made.see({"l": torch.zeros(1, 2, 4, 4)})
    with pytest.raises(InputError, match=r"returned \[4, 4\] cells before and \[2, 2\] now"):
        made.see({"l": torch.zeros(1, 2, 2, 2)})
    other = units.Thresholds(["l"], 0.9, (8, 8))
    other.see({"l": torch.zeros(1, 2, 2, 2)})
    with pytest.raises(InputError, match="2 and 2 units, maps"):
        made.merge(other)


def test_what_is_kept_of_the_maps_is_a_copy():
    model = Says()
    maps = activations("white", (4, 4))
    with units.threshold(model, "layer", 0.9) as made:
        model(maps)  # a rectification in place follows the layer
    first = made.values()["layer"]
    assert (maps >= 0).all()
    assert torch.equal(first, dense_threshold(activations("white", (4, 4)), 0.9, (4, 4))[0].float())
    maps.zero_()
    assert torch.equal(made.values()["layer"], first)


# -- recording one call -----------------------------------------------------------------------------------------


def test_one_of_several_calls_is_recorded():
    torch.manual_seed(0)
    net, z = Net().eval(), torch.randn(3, 3)
    with (
        units.record(net, "twice", detach=True) as last,
        units.record(net, "twice", detach=True, call=0) as first,
        units.record(net, "twice", detach=True, call=1) as second,
    ):
        net(z)
    assert torch.equal(second["twice"], last["twice"])
    assert not torch.equal(first["twice"], last["twice"])
    with units.record(net, "twice", call=2) as third:
        net(z)
    with pytest.raises(InputError, match="is not recorded, or did not run"):
        third["twice"]
