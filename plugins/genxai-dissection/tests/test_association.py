"""explainer/gan-dissection against a literal version of the paper's formula, and what it promises of its counts."""

import copy
import math

import numpy as np
import pytest
import torch
from genxai_dissection import association, information, jackknife, partial
from genxai_dissection.association import GanDissection
from quadrants import Blind, Quadrants, deep, painter
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Runtime, Samples, Spec, units
from genxai_core.errors import InputError, Interrupted

QUIET = {"device": "cpu", "quiet": True}
FEW = {"samples": 23, "threshold_samples": 11, "quantile": 0.9, "examples": 3}


def dissect(model, method=None, segmenter=None, **runtime):
    method = method or GanDissection(segmenter or Quadrants(), **FEW)
    return method.explain(model, runtime=Runtime(**{**QUIET, **runtime}))


# -- the formula ------------------------------------------------------------------------------------------------


def activations(model, layer, latents):
    with torch.no_grad(), units.record(model, layer, detach=True) as seen:
        images = model(latents)
    return seen[layer].double().numpy(), images


def pixel(a, y, x, height, width):
    """Bilinear, align_corners=False, edges repeated: one pixel of one map."""

    def taps(i, size, small):
        at = max((i + 0.5) * small / size - 0.5, 0.0)
        low = min(int(at), small - 1)
        return low, min(low + 1, small - 1), at - low

    y0, y1, v = taps(y, height, a.shape[0])
    x0, x1, u = taps(x, width, a.shape[1])
    return (a[y0, x0] * (1 - u) + a[y0, x1] * u) * (1 - v) + (a[y1, x0] * (1 - u) + a[y1, x1] * u) * v


def literal(model, layer, segmenter, *, samples, threshold_samples, quantile, seed, cells):
    """Thresholds and IoU by loops over pixels: layer thresholds [U], IoU [U, C], and both counts."""
    latents = model.sample_latents(threshold_samples + samples, seed)
    maps, images = activations(model, layer, latents)
    height, width = images.shape[2:]
    masks = segmenter.segment(Samples(images, value_range=model.value_range)).numpy()[threshold_samples:]
    levels = []
    for unit in range(maps.shape[1]):
        seen = maps[:threshold_samples, unit]
        if cells:
            values = seen.ravel()
        else:
            values = np.array(
                [pixel(a, y, x, height, width) for a in seen for y in range(height) for x in range(width)]
            )
        ordered = np.sort(values)[::-1]
        k = math.floor((1 - quantile) * len(ordered) + 0.5)
        levels.append((ordered[k - 1] + ordered[k]) / 2)
    both = np.zeros((maps.shape[1], masks.shape[1]), dtype=int)
    union = np.zeros_like(both)
    for i in range(samples):
        for unit, level in enumerate(levels):
            a = maps[threshold_samples + i, unit]
            on = [[pixel(a, y, x, height, width) > level for x in range(width)] for y in range(height)]
            both[unit] += (np.array(on) & masks[i]).sum((1, 2))
            union[unit] += (np.array(on) | masks[i]).sum((1, 2))
    return np.array(levels), both / np.maximum(union, 1), both


@pytest.mark.parametrize("cells", [False, True])
def test_thresholds_and_iou_are_the_literal_ones(cells):
    model = deep().double()
    options = {"samples": 9, "threshold_samples": 5, "quantile": 0.9}
    method = GanDissection(Quadrants(), layers=("norm", "second"), cells=cells, **options)
    found = dissect(model, method, seed=3, batch_size=4)
    for layer in ("norm", "second"):
        levels, iou, both = literal(model, layer, Quadrants(), seed=3, cells=cells, **options)
        assert np.abs(found.thresholds[layer].numpy() - levels).max() < 1e-9
        assert found.intersection[layer].tolist() == both.tolist()
        assert np.abs(found.scores[layer].numpy() - iou).max() < 1e-9


def test_a_unit_that_draws_a_quadrant_is_best_for_it():
    found = dissect(painter(), GanDissection(Quadrants(), samples=64, threshold_samples=64, quantile=0.95))
    assert [s.concept for s in found.best("layers")] == list(Quadrants.concepts[:4])
    assert all(s.score > 0.3 for s in found.best("layers"))
    off = found.scores["layers"][torch.arange(4), torch.arange(4).roll(1)]
    assert (off < 0.05).all()


def test_a_concept_that_is_never_there_scores_nothing():
    found = dissect(painter(), segmenter=Blind())
    assert found.scores["layers"].abs().max() == 0
    assert found.images is None
    assert found.concept_figure("nothing") is None
    assert not found.above(1e-9)


def test_planted_units_are_found_and_their_iou_is_the_constructed_one():
    """With decoys that cover one column of three, whose IoU is below the cut; with two, IoU cannot tell them apart."""
    contestant = Spec("explainer/gan-dissection", {"samples": 48, "threshold_samples": 32})
    for cover, precision in ((1, 1.0), (2, 0.6)):
        tasks = registered_task("planted-units", cover=cover)
        board = run_bench([contestant], tasks)
        assert not board.failures
        found = dict(zip(zip(board.contestant, board.measure, board.seed), board.value.tolist()))
        name = "explainer/gan-dissection:samples=48,threshold_samples=32"
        for seed in (0, 1):
            assert found[name, "recall", seed] == 1.0
            assert found[name, "precision", seed] == pytest.approx(precision)
            assert found[name, "iou-error", seed] < 1e-6


def registered_task(name, **parameters):
    """The bench's tasks are reached through what the registry resolves, as another distribution's code is."""
    bench = gx.resolve("explainer/bench")
    module = __import__(bench.__module__.rpartition(".")[0] + ".tasks", fromlist=["TASKS"])
    return [type(module.task(name))(**parameters)]


def run_bench(contestants, tasks):
    bench = gx.resolve("explainer/bench")
    contest = __import__(bench.__module__.rpartition(".")[0] + ".contest", fromlist=["run"])
    return contest.run(contestants, tasks, [0, 1], Runtime(**QUIET))


# -- what does not matter ---------------------------------------------------------------------------------------


def same(one, other):
    for name in ("intersection", "area", "scores", "thresholds", "intervals", "examples", "shown", "regions"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine), name
    assert torch.equal(one.concept_area, other.concept_area)
    assert one.pixels == other.pixels
    assert torch.equal(one.images, other.images)


def test_two_processes_count_what_one_does(monkeypatch):
    """Each takes whole batches in turn; here one after the other, exchanging what they would exchange."""
    whole = dissect(deep(), batch_size=4)
    states: dict[int, list] = {0: [], 1: []}
    for known in (0, 1, 2):  # thresholds are merged first, then counts: each round knows one exchange more
        for rank in (0, 1):
            calls = iter(range(known))

            def exchange(value, runtime, rank=rank, calls=calls):
                at = next(calls, None)
                if at is None:
                    states[rank].append(value)
                    raise Interrupted("waits for the other")
                return copy.deepcopy([states[0][at], states[1][at]])

            monkeypatch.setattr(association, "gathered", exchange)
            monkeypatch.setenv("WORLD_SIZE", "2")
            monkeypatch.setenv("RANK", str(rank))
            with pytest.raises(Interrupted):
                dissect(deep(), batch_size=4)
    monkeypatch.setattr(association, "gathered", lambda value, runtime: next(exchanged))
    exchanged = iter([copy.deepcopy([states[0][i], states[1][i]]) for i in range(3)])
    same(dissect(deep(), batch_size=4), whole)


def test_counts_do_not_depend_on_what_else_is_asked_for():
    few, many = (GanDissection(Quadrants(), **{**FEW, "examples": n, "shown": n}) for n in (0, 5))
    one, other = dissect(deep(), few), dissect(deep(), many)
    assert torch.equal(one.intersection["second.2"], other.intersection["second.2"])
    assert one.images is None
    assert not one.shown


def test_thresholds_come_from_other_samples_than_scores():
    seen = []
    model = painter()
    sample = model.sample
    model.sample = lambda n, seed, labels=None, start=0: seen.append((start, n)) or sample(n, seed, start=start)
    dissect(model, GanDissection(Quadrants(), layers=("layers",), **{**FEW, "examples": 0}), batch_size=6)
    assert seen == [(0, 1), (0, 6), (6, 5), (11, 6), (17, 6), (23, 6), (29, 5)]


# -- examples ---------------------------------------------------------------------------------------------------


def test_examples_are_the_strongest_images_and_their_regions():
    model = deep()
    found = dissect(model, GanDissection(Quadrants(), layers=("second",), **FEW), seed=2)
    maps, images = activations(model, "second", model.sample_latents(34, 2))
    maps, images = torch.from_numpy(maps[11:]).float(), images[11:]
    large = F.interpolate(maps, size=(16, 16), mode="bilinear", align_corners=False)
    assert len(found.shown["second"]) > 1
    for row, unit in enumerate(found.shown["second"].tolist()):
        strongest = maps[:, unit].amax((1, 2)).argsort(descending=True)[:3]
        assert torch.allclose(found.images[found.examples["second"][row]], images[strongest], atol=1e-6)
        wanted = large[strongest, unit] > found.thresholds["second"][unit]
        assert (found.regions["second"][row] != wanted).float().mean() < 1e-3  # batches of one round otherwise
        best = found.best("second")[unit]
        assert best.score > 0


def test_of_equally_strong_images_the_first_are_kept():
    state = partial.Partial({"l": torch.zeros(1)}, 8, 3)
    masks = torch.ones(4, 1, 2, 2, dtype=torch.bool)
    for first in (4, 0):
        state.take({"l": torch.ones(4, 1, 2, 2)}, masks, first)
    assert state.strongest["l"].tolist() == [[0, 1, 2]]


# -- intervals --------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_a_literal_jackknife():
    from scipy.stats import t

    g = torch.Generator().manual_seed(0)
    maps, masks = torch.randn(50, 2, 4, 4, generator=g), torch.rand(50, 3, 4, 4, generator=g) < 0.4
    state = partial.Partial({"l": torch.tensor([0.3, 1.0])}, 50, 1)
    for first in (0, 16, 32, 48):
        state.take({"l": maps[first : first + 16]}, masks[first : first + 16], first)
    block = [i * 20 // 50 for i in range(50)]
    on = (maps > torch.tensor([0.3, 1.0])[:, None, None]).numpy()

    def iou(rows, u, c):
        a, s = on[rows, u], masks[rows, c].numpy()
        return (a & s).sum() / (a | s).sum()

    found = jackknife.intervals(state.blocks)["l"]
    for u in range(2):
        for c in range(3):
            left_out = np.array([iou([i for i in range(50) if block[i] != j], u, c) for j in range(20)])
            half = t.ppf(0.975, 19) * np.sqrt(19 / 20 * ((left_out - left_out.mean()) ** 2).sum())
            whole = iou(list(range(50)), u, c)
            assert found[u, c].tolist() == pytest.approx([max(whole - half, 0), min(whole + half, 1)], abs=1e-6)
    assert [round(float(t.ppf(0.975, n)), 6) for n in range(1, 20)] == list(jackknife.QUANTILES)


def test_one_sample_has_no_interval():
    assert (
        dissect(painter(), GanDissection(Quadrants(), samples=1, threshold_samples=9, quantile=0.9)).intervals is None
    )


# -- the level that tells most ----------------------------------------------------------------------------------


def literal_quality(on, mask):
    """I(A; S) / H(A, S) from the four shares."""
    mutual = entropy = 0.0
    for a in (True, False):
        for s in (True, False):
            p = float(((on == a) & (mask == s)).mean())
            apart = float((on == a).mean() * (mask == s).mean())
            mutual += p * math.log(p / apart) if p else 0.0
            entropy -= p * math.log(p) if p else 0.0
    return mutual / entropy if entropy else 0.0


def test_the_level_is_the_one_at_which_unit_and_concept_tell_most_of_each_other():
    model = deep().double()
    method = GanDissection(Quadrants(), layers=("norm",), threshold="iqr", samples=5, threshold_samples=8)
    found = dissect(model, method, seed=4)
    maps, images = activations(model, "norm", model.sample_latents(8, 4))
    masks = Quadrants().segment(Samples(images, value_range=model.value_range)).numpy()
    large = F.interpolate(torch.from_numpy(maps), size=(16, 16), mode="bilinear", align_corners=False).numpy()
    for unit in range(4):
        values = np.sort(large[:, unit].ravel())[::-1]
        levels = []
        for share in information.SHARES:
            k = math.floor(share * len(values) + 0.5)
            if share * len(values) >= 1:
                levels.append((values[k - 1] + values[k]) / 2)
        quality = []
        for level in levels:
            on = large[:, unit] > level
            together = [(masks[:, c] & on).mean() > masks[:, c].mean() * on.mean() for c in range(5)]
            quality.append(max(literal_quality(on, masks[:, c]) if together[c] else -1 for c in range(5)))
        assert float(found.thresholds["norm"][unit]) == pytest.approx(levels[int(np.argmax(quality))], abs=1e-9)
    assert found.notes["threshold"] == "mutual information / joint entropy"


def test_quality_of_variables_that_are_alike_apart_or_constant():
    p = torch.tensor([0.3, 0.09, 0.0, 0.0], dtype=torch.float64)
    share = torch.tensor([0.3, 0.3, 0.0, 0.5], dtype=torch.float64)
    assert information.quality(p, share, share).tolist() == pytest.approx([1.0, 0.0, 0.0, 1.0], abs=1e-12)


# -- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"samples": 0}, "samples 0 must be at least 1"),
        ({"threshold_samples": 0}, "threshold_samples 0"),
        ({"quantile": 1.0}, "quantile 1.0 is not between 0 and 1"),
        ({"threshold": "best"}, "'best' is not quantile or iqr"),
        ({"layers": ()}, "name at least one, each once"),
        ({"layers": ("a", "a")}, "each once"),
        ({"call": -1}, "cannot be negative"),
        ({"examples": -1}, "cannot be negative"),
    ],
)
def test_parameters_out_of_bounds(given, said):
    with pytest.raises(ValueError, match=said):
        GanDissection(Quadrants(), **given)


def test_what_cannot_be_dissected():
    with pytest.raises(InputError, match="segmenter is a str; give a Segmenter"):
        dissect(painter(), segmenter="scenes")
    nameless = Quadrants()
    nameless.concepts = ()
    with pytest.raises(InputError, match="Quadrants has no concepts; give a segmenter that names at least one"):
        dissect(painter(), segmenter=nameless)
    with pytest.raises(InputError, match="did you mean 'layers'"):
        dissect(painter(), GanDissection(Quadrants(), layers=("layer",), **FEW))
    with pytest.raises(InputError, match="are too few for the quantile"):
        dissect(painter(), GanDissection(Quadrants(), threshold_samples=1, quantile=0.9999))
    with pytest.raises(InputError, match="'layers' has no call 1 when a batch of images is made"):
        dissect(painter(), GanDissection(Quadrants(), layers=("layers",), call=1, **FEW))

    class InParts(type(painter())):
        def sample(self, n, seed, labels=None, start=0):
            return Samples.concat([super(InParts, self).sample(1, seed, start=start + i) for i in range(n)])

    with pytest.raises(InputError, match="returned 1 rows for 11 samples"):
        dissect(InParts().eval(), GanDissection(Quadrants(), layers=("layers",), **FEW))


def test_too_few_values_for_a_level_are_told():
    class Flat(type(painter())):
        """Its latents are a layer of 4 units without places."""

        def __init__(self):
            super().__init__()
            self.flat = torch.nn.Identity()

        def forward(self, latents):
            return super().forward(self.flat(latents))

    def levels(n):
        method = GanDissection(
            Quadrants(), layers=("layers", "flat"), threshold="iqr", cells=True, threshold_samples=n, samples=4
        )
        return dissect(Flat().eval(), method).thresholds

    for n in (1, 2):
        with pytest.raises(InputError, match=f"'flat' has too few values per unit for a level: {n} in {n} threshold"):
            levels(n)
    assert levels(3)["flat"].shape == (4,)


def test_layers_that_are_not_named():
    assert tuple(dissect(deep()).layers) == ("norm", "second.2")  # of 4×4 and 8×8, the last leaf modules
    assert tuple(dissect(painter()).layers) == ("layers", "enlarge")


def test_a_chosen_call_of_a_layer_is_dissected():
    """As of a diffusion model, whose U-Net runs once per timestep."""

    class Steps(type(painter())):
        def forward(self, latents):
            for scale in (4.0, 2.0, 1.0):
                image = super().forward(scale * latents)
            return image

    def thresholds(call):
        method = GanDissection(Quadrants(), layers=("layers",), call=call, **{**FEW, "examples": 0})
        return dissect(Steps().eval(), method).thresholds["layers"]

    assert torch.equal(thresholds(None), thresholds(2))
    assert torch.allclose(thresholds(0), 4 * thresholds(2))
    assert torch.allclose(thresholds(1), 2 * thresholds(2))


def test_what_is_kept_does_not_grow_with_the_samples():
    def numbers(batches):
        state = partial.Partial({"l": torch.zeros(2)}, 1000, 4)
        for first in range(0, 10 * batches, 10):
            state.take({"l": torch.rand(10, 2, 4, 4)}, torch.ones(10, 1, 8, 8, dtype=torch.bool), first)
        kept = [*state.peaks.values(), *state.strongest.values()]
        for block in state.blocks:
            kept += [*block.intersection.values(), *block.area.values()]
        return sum(t.numel() for t in kept)

    assert numbers(100) == numbers(96)
