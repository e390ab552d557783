"""Thresholds of units and their agreement with concepts, against slow literal versions, edge pixels included."""

import pickle

import numpy as np
import pytest
import torch
from unit_models import Net, Says, before_relu, places

from genxai_core import units
from genxai_core.errors import ExplainerError, InputError


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double().eval()


@pytest.fixture
def z():
    return torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# -- threshold --------------------------------------------------------------------------------------------------


def literal_threshold(cells, quantile):
    ordered = np.sort(cells)[::-1]
    k = int(np.floor((1 - quantile) * len(ordered) + 0.5 + 1e-9))
    return (ordered[k - 1] + ordered[k]) / 2, k


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.013])
def test_a_threshold_is_midway_between_two_order_statistics_of_all_cells(net, z, quantile):
    layers = ["body.0", "flat"] if quantile == 0.5 else ["body.0"]  # of a flat layer there are only 7 cells
    with units.threshold(net, layers, quantile) as collector:
        for part in (z[:3], z[3:4], z[4:]):
            net(part)
    found = collector.values()
    maps = before_relu(net, z).numpy()
    assert found["body.0"].shape == (6,)
    for unit in range(6):
        wanted, k = literal_threshold(maps[:, unit].ravel(), quantile)
        assert float(found["body.0"][unit]) == pytest.approx(wanted, abs=1e-15)
        assert (maps[:, unit] > float(found["body.0"][unit])).sum() == k
    if quantile == 0.5:
        wanted = [literal_threshold(column, quantile)[0] for column in net.flat(z).detach().numpy().T]
        assert np.allclose(found["flat"], wanted, atol=1e-15)


def states(net, parts, quantile=0.9, **options):
    made = []
    for part in parts:
        with units.threshold(net, "body.0", quantile, **options) as collector:
            for batch in part:
                net(batch)
        made.append(collector)
    return made


def test_merged_thresholds_are_those_of_the_whole_bit_for_bit(net, z):
    (whole,) = states(net, [[z]])
    first, second, empty = states(net, [[z[5:]], [z[:2], z[2:5]], []])
    empty.merge(first)
    empty.merge(pickle.loads(pickle.dumps(second)))
    a, b = (torch.cat(made._maps["body.0"], 1).flatten().sort().values for made in (empty, whole))
    assert torch.allclose(a, b, atol=1e-12)
    again = states(net, [[z[5:], z[:2], z[2:5]]])[0]  # the same batches, so the same activations
    assert torch.equal(empty.values()["body.0"], again.values()["body.0"])


def test_thresholds_of_upsampled_maps(net, z):
    (collector,) = states(net, [[z]], 0.8, size=(7, 9))
    maps = before_relu(net, z).numpy()
    for unit in (0, 5):
        cells = np.stack([literal_upsampling(maps[n, unit], 7, 9) for n in range(7)])
        assert float(collector.values()["body.0"][unit]) == pytest.approx(literal_threshold(cells.ravel(), 0.8)[0])


def thresholds_of(values, quantile, dtype=torch.float32):
    model = Says()
    with units.threshold(model, "layer", quantile) as collector:
        model(torch.tensor(values, dtype=dtype).reshape(-1, 1, 1, 2))
    return collector.values()["layer"]


def test_negative_cells_count_although_an_activation_follows_in_place():
    assert thresholds_of([-4.0, -3.0, -2.0, -1.0], 0.5).tolist() == [-2.5]


def test_tied_cells_do_not_exceed_their_threshold():
    assert thresholds_of([0, 0, 0, 0, 0, 1.0], 0.5).tolist() == [0]  # one cell exceeds it, not three


def test_between_neighbouring_floats_the_upper_one_still_exceeds():
    """There is no float between them, and half of the time their mean is rounded to the upper one."""
    one = np.float32(1)
    two = np.nextafter(one, np.float32(2))
    for below, above in ((one, two), (two, np.nextafter(two, np.float32(2)))):
        level = thresholds_of([0.5, float(below), float(above), 2.0], 0.5)
        assert (torch.tensor([float(above), 2.0]) > level).all()
        assert not (torch.tensor([0.5, float(below)]) > level).any()


def test_half_precision_is_taken_as_float():
    assert thresholds_of([1, 2, 3, 4.0], 0.5, torch.bfloat16).dtype == torch.float32


@pytest.mark.parametrize(("quantile", "n", "k"), [(0.9, 10, 1), (0.99, 100, 1), (0.995, 1000, 5), (0.7, 10, 3)])
def test_the_share_is_not_lost_to_rounding(quantile, n, k):
    level = thresholds_of(list(range(n)), quantile)
    assert level.tolist() == [n - k - 0.5]


def test_too_few_cells_for_a_quantile():
    with pytest.raises(InputError, match=r"4 cells per unit are too few for the quantile 0\.995, which needs 100"):
        thresholds_of([1, 2, 3, 4], 0.995)
    with pytest.raises(InputError, match="too few"):
        thresholds_of([1, 2, 3, 4], 0.01)


def test_what_has_no_thresholds(net, z):
    for quantile in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="is not between 0 and 1"), units.threshold(net, "flat", quantile):
            pass
    with pytest.raises(InputError, match="quantile='a' is not between 0 and 1"):
        units.Thresholds(["flat"], "a")
    for size in ((0, 4), (4,), 4, (4.0, 4), "ab"):
        with pytest.raises(InputError, match=r"is not \(H, W\), two positive integers"):
            units.Thresholds(["flat"], 0.5, size)
    with units.threshold(net, "flat", 0.5) as collector:
        with pytest.raises(InputError, match="layer 'flat' did not run"):
            collector.values()
        with pytest.raises(InputError, match="layer 'flat' returns NaN or infinity"):
            net(z * float("nan"))
    for other in (
        states(net, [[z]], 0.8)[0],
        states(net, [[z]], size=(4, 4))[0],
        units.Thresholds(["flat"], 0.9),
    ):
        with pytest.raises(InputError, match="cannot be merged"):
            states(net, [[z]])[0].merge(other)
    wider = units.Thresholds(["body.0"], 0.9)
    wider._see("body.0", torch.zeros(1, 9, 2, 2))
    with pytest.raises(InputError, match="6 and 9 units"):
        states(net, [[z]])[0].merge(wider)
    with pytest.raises(InputError, match="returned 9 units before and 2 now"):
        wider._see("body.0", torch.zeros(1, 2, 2, 2))


# -- tally ------------------------------------------------------------------------------------------------------


def literal_upsampling(a, height, width):
    """Bilinear with align_corners=False: output pixel i is at (i + 0.5) * h / H - 0.5 of the input, edges repeated."""

    def taps(i, size, small):
        at = max((i + 0.5) * small / size - 0.5, 0.0)
        low = min(int(at), small - 1)
        return low, min(low + 1, small - 1), at - low

    out = np.zeros((height, width))
    for y in range(height):
        y0, y1, v = taps(y, height, a.shape[0])
        for x in range(width):
            x0, x1, u = taps(x, width, a.shape[1])
            top = a[y0, x0] * (1 - u) + a[y0, x1] * u
            out[y, x] = top * (1 - v) + (a[y1, x0] * (1 - u) + a[y1, x1] * u) * v
    return out


def literal_counts(maps, levels, masks):
    """Intersections [U, C], areas [U] and concepts' areas [C], pixel by pixel."""
    n, c, height, width = masks.shape
    both = np.zeros((maps.shape[1], c), dtype=int)
    area, concept = np.zeros(maps.shape[1], dtype=int), np.zeros(c, dtype=int)
    for i in range(n):
        active = [literal_upsampling(a, height, width) > t for a, t in zip(maps[i], levels)]
        for y in range(height):
            for x in range(width):
                for k in range(c):
                    concept[k] += bool(masks[i, k, y, x])
                for u in range(len(active)):
                    area[u] += bool(active[u][y, x])
                    for k in range(c):
                        both[u, k] += bool(active[u][y, x] and masks[i, k, y, x])
    return both, area, concept


def counted(net, z, masks, batches, levels):
    with torch.no_grad(), units.tally(net, levels) as counter:
        for rows in batches:
            net(z[rows])
            counter.add(masks[rows])
    return counter


@pytest.fixture
def levels(net, z):
    with units.threshold(net, ["body.0", "flat"], 0.8) as collector:
        net(torch.cat([z, z + 1]))
    return collector.values()


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (9, 7), (4, 4), (3, 2)], ids=str)
def test_counts_and_iou_are_the_literal_ones(net, z, levels, size):
    masks = places(7, 3, *size)
    masks[:, 2] = False
    counter = counted(net, z, masks, [slice(0, 7)], levels)
    flat = net.flat(z).detach().numpy()[:, :, None, None]
    for layer, maps in (("body.0", before_relu(net, z).numpy()), ("flat", flat)):
        both, area, concept = literal_counts(maps, levels[layer].numpy(), masks.numpy())
        assert counter.intersection[layer].tolist() == both.tolist()
        assert counter.area[layer].tolist() == area.tolist()
        assert counter.concept_area.tolist() == concept.tolist()
        assert counter.pixels == 7 * size[0] * size[1]
        union = area[:, None] + concept[None] - both
        wanted = np.where(union > 0, both / np.maximum(union, 1), 0)
        assert np.abs(counter.iou()[layer].numpy() - wanted).max() < 1e-12
        assert counter.iou()[layer].dtype == torch.float64


def test_edge_pixels_repeat_the_edge_cell():
    model = Says()
    with units.tally(model, {"layer": torch.tensor([1.0])}) as counter:
        model(torch.tensor([[0.0, 1.5], [0.0, 1.5]]).reshape(1, 1, 2, 2))
        # along x: 0, 0.375, 1.125, 1.5
        counter.add(torch.tensor([False, False, True, True]).expand(1, 1, 4, 4))
    assert counter.area["layer"].tolist() == [8]
    assert counter.iou()["layer"].tolist() == [[1.0]]


def test_batches_and_merged_tallies_are_the_whole_bit_for_bit(net, z, levels):
    masks = places(7, 3, 8, 8)
    whole = counted(net, z, masks, [slice(0, 7)], levels)
    split = counted(net, z, masks, [slice(0, 1), slice(1, 5), slice(5, 7)], levels)
    merged = units.Tally(levels)
    for rows in (slice(5, 7), slice(0, 5)):
        merged.merge(pickle.loads(pickle.dumps(counted(net, z, masks, [rows], levels))))
    merged.merge(units.Tally(levels))
    for other in (split, merged):
        assert torch.equal(other.concept_area, whole.concept_area)
        assert other.pixels == whole.pixels
        for layer in levels:
            assert torch.equal(other.intersection[layer], whole.intersection[layer])
            assert torch.equal(other.area[layer], whole.area[layer])


def test_nothing_active_and_nothing_there_is_zero_not_nan():
    model = Says()
    with units.tally(model, {"layer": torch.tensor([float("inf"), 0.0])}) as counter:
        model(torch.ones(1, 2, 2, 2))
        counter.add(torch.zeros(1, 1, 2, 2, dtype=torch.bool))
    assert counter.iou()["layer"].tolist() == [[0.0], [0.0]]


def test_active_is_greater_than_the_threshold_before_what_follows_in_place():
    model = Says()
    with units.tally(model, {"layer": torch.tensor([-2.0])}) as counter:
        model(torch.tensor([-3.0, -2.0, -1.0, 4.0]).reshape(1, 1, 2, 2))
        counter.add(torch.ones(1, 1, 2, 2, dtype=torch.bool))
    assert counter.area["layer"].tolist() == [2]


def test_counts_are_exact_under_autocast(net, z):
    net = net.float()
    masks = torch.ones(7, 1, 64, 64, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16), units.tally(net, {"body.0": torch.full((6,), -100.0)}) as counter:
        net(z.float())
        counter.add(masks)
    assert counter.intersection["body.0"].tolist() == [[7 * 64 * 64]] * 6  # 28,672 is no bfloat16


def test_edits_are_counted(net, z, levels):
    with units.edit(net, "body.0", 2, value=1e3):
        counter = counted(net, z, places(7, 3, 8, 8), [slice(0, 7)], levels)
    assert int(counter.area["body.0"][2]) == 7 * 64


def test_the_scores_of_a_tally(net, z, levels):
    counter = counted(net, z, places(7, 2, 8, 8), [slice(0, 7)], levels)
    scores = counter.scores(["hat", "shoe"])
    assert scores.measure == "iou"
    assert scores.concepts == ("hat", "shoe")
    assert torch.equal(scores.scores["body.0"], counter.iou()["body.0"])
    assert torch.equal(scores.thresholds["flat"], levels["flat"])
    with pytest.raises(ExplainerError):
        counter.scores(["hat"])


def test_what_cannot_be_counted_is_refused(net, z, levels):
    masks = places(7, 3, 8, 8)
    level = {"body.0": levels["body.0"]}
    with units.tally(net, level) as counter:
        with pytest.raises(InputError, match="nothing is counted yet"):
            counter.iou()
        for given, said in (
            (masks.float(), r"bool \[N, C, H, W\], not torch\.float32"),
            (masks[:, 0], r"not torch\.bool \[7, 8, 8\]"),
            (masks.numpy(), "not ndarray"),
            (masks[:6], "masks of 6 images for a forward of 7"),
        ):
            net(z)
            with pytest.raises(InputError, match=said):
                counter.add(given)
        with pytest.raises(InputError, match=r"'body\.0' ran 0 times since the last add"):
            counter.add(masks)
        net(z)
        net(z)
        with pytest.raises(InputError, match=r"'body\.0' ran 2 times since the last add"):
            counter.add(masks)
        assert counter.pixels == 0
        net(z)
        counter.add(masks)
        net(z)
        with pytest.raises(InputError, match="masks of 2 concepts after masks of 3"):
            counter.add(masks[:, :2])
        assert counter.pixels == 7 * 64
        net(z * float("nan"))
        with pytest.raises(InputError, match="returns NaN or infinity"):
            counter.add(masks)
    with units.tally(net, {"twice": torch.zeros(6)}) as used_twice:
        net(z)
        with pytest.raises(InputError, match="'twice' ran 2 times since the last add"):
            used_twice.add(masks)
    with units.tally(net, {"body.0": torch.zeros(5)}) as other:
        net(z)
        with pytest.raises(InputError, match="has 6 units, its thresholds are 5"):
            other.add(masks)
    with pytest.raises(InputError, match="other layers or thresholds"):
        counter.merge(other)
    fewer = counted(net, z, masks[:, :1], [slice(0, 7)], level)
    with pytest.raises(InputError, match="of 3 and 1 concepts cannot be merged"):
        counter.merge(fewer)
    with pytest.raises(InputError, match="thresholds are a list, not a mapping"), units.tally(net, ["flat"]):
        pass
    for wrong in (torch.zeros(2, 3), torch.tensor([1]), torch.tensor([float("nan")]), [1.0, 2.0]):
        with pytest.raises(InputError, match="must be a floating-point tensor"), units.tally(net, {"flat": wrong}):
            pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_units_on_a_gpu_are_those_on_the_cpu(net, z, levels):
    masks = places(7, 3, 9, 7)
    with units.edit(net, "body.0", [1, 2], factor=torch.tensor([0.5, 2.0]), value=1.0, where=places(4, 4)):
        here = counted(net, z, masks, [slice(0, 7)], levels)
        net, z = net.cuda(), z.cuda()
        there = counted(net, z, masks, [slice(0, 7)], levels)
    with units.threshold(net, list(levels), 0.8) as collector:
        net(torch.cat([z, z + 1]))
    for layer, found in collector.values().items():
        assert torch.equal(there.intersection[layer], here.intersection[layer])
        assert torch.equal(there.area[layer], here.area[layer])
        assert torch.allclose(found, levels[layer], atol=1e-12)
