"""The planted shortcuts hold what they promise: closed forms, interventions, brute force, and traps that snap."""

from itertools import permutations

import numpy as np
import pytest
import torch
from genxai_bench.maps import attribution, constant, edges
from genxai_bench.models.shortcut import ColourFunction, ColourNet, PatchFunction, PatchNet
from genxai_bench.signed import auc, correlation, excess, pointing
from genxai_bench.tasks import task
from genxai_bench.tasks.shortcut import COLOURS

import genxai_core as gx
from genxai_core import draws
from genxai_core.errors import InputError

NAMES = ("shortcut-patch", "shortcut-two-patches", "shortcut-colour")
SEEDS = range(5)


def logits(model, images):
    with torch.no_grad():
        return model(images)[:, 0].double()


def explained(problem, name, **parameters):
    return gx.create(f"explainer/{name}", **parameters).explain(problem.model, problem.inputs, target=problem.target)


def means(which, answer):
    scores = [which.score(problem, answer(problem)) for problem in map(which.problem, SEEDS)]
    return {key: sum(score[key] for score in scores) / len(scores) for key in scores[0]}


# -- the functions --------------------------------------------------------------------------------------------------


def literal_patch(function, image):
    """The definition, pixel by pixel."""
    total = 0.0
    for (top, left), weight in zip(function.places, function.weights):
        cells = []
        for y in range(top, top + function.patch, 4):
            for x in range(left, left + function.patch, 4):
                pixels = image[:, y : y + 4, x : x + 4].double().reshape(3, 16)
                e = sum(a * float(p.mean()) for a, p in zip(function.colour, pixels))
                t = function.saturation
                cells.append(e if abs(e) <= t else np.sign(e) * (t + function.slope * (abs(e) - t)))
        total += weight * sum(cells) / len(cells) / function.saturation
    return total


def literal_colour(function, image):
    members = [
        max(0.0, 1 - sum(abs(float(v) - c) for v, c in zip(pixel, function.colour)) / function.radius)
        for pixel in image.double().reshape(3, -1).T
    ]
    a, t = sum(members) / len(members), function.saturation
    return function.weight * (a if a <= t else t + function.slope * (a - t)) / t


@pytest.mark.parametrize(("size", "patch"), [(16, 4), (32, 8), (40, 12)])
def test_a_patch_network_computes_its_definition(size, patch):
    function = PatchFunction(size, patch, ((0, 4), (size - patch, 0)), (3.0, -1.5), (1.0, 0.2, -0.8), 0.3, 0.2)
    model = PatchNet(function, 1.5, np.random.default_rng(1))
    images = torch.rand(6, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = torch.tensor([literal_patch(function, image) for image in images])
    torch.testing.assert_close(logits(model, images), expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(function.contributions(images).sum(1), expected, atol=1e-12, rtol=0)
    assert (logits(model, images) < 0).any()
    assert (logits(model, images) > 0).any()


@pytest.mark.parametrize("size", [16, 32])
def test_a_colour_network_computes_its_definition(size):
    function = ColourFunction(size, (0.7, -0.4, -0.5), 0.8, -4.0, 0.05, 0.2)
    model = ColourNet(function, 1.5, np.random.default_rng(1))
    images = torch.rand(6, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[0, :, :8] = torch.tensor([0.65, -0.45, -0.5])[:, None, None]  # saturates
    expected = torch.tensor([literal_colour(function, image) for image in images], dtype=torch.float64)
    torch.testing.assert_close(logits(model, images), expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(function.logits(images), expected, atol=1e-12, rtol=0)
    assert expected[0] < -4.0 < expected[1:].min()


def test_the_patch_map_is_the_integral_of_gradients_and_the_shapley_value_of_cells():
    problem = task("shortcut-two-patches", n=4, patch=4).problem(3)
    integrated = explained(problem, "integrated-gradients", steps=400).maps.sum(1).double()
    torch.testing.assert_close(integrated, problem.truth["map"], atol=2e-3, rtol=1e-2)
    rescaled = explained(problem, "deeplift").maps.sum(1).double()
    torch.testing.assert_close(rescaled, problem.truth["map"], atol=1e-4, rtol=0)
    # Shapley by brute force over four players: both patches, and the halves of what is outside
    region = problem.truth["regions"]
    outside = ~region.any(0)
    top = torch.arange(32)[:, None] < 16
    players = [region[0], region[1], outside & top, outside & ~top]
    image, values = problem.inputs.images[:1], torch.zeros(4, dtype=torch.float64)
    for order in permutations(range(4)):
        kept = torch.zeros(32, 32, dtype=torch.bool)
        for player in order:
            before = logits(problem.model, image * kept)
            kept = kept | players[player]
            values[player] += (logits(problem.model, image * kept) - before)[0] / 24
    expected = torch.cat([problem.truth["contributions"][0], torch.zeros(2, dtype=torch.float64)])
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_sums_to_the_logit_and_grey_has_none(name):
    problem = task(name).problem(2)
    assert float(logits(problem.model, torch.zeros(1, 3, 32, 32)).abs()) < 1e-6
    found = logits(problem.model, problem.inputs.images)
    torch.testing.assert_close(found, problem.truth["contribution"], atol=3e-5, rtol=0)
    torch.testing.assert_close(problem.truth["map"].sum((1, 2)), found, atol=3e-5, rtol=0)


# -- interventions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES[:2])
def test_nothing_outside_the_patches_matters_and_all_inside_does(name, seed):
    problem = task(name).problem(seed)
    images, region = problem.inputs.images, problem.truth["region"][:, None]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    before = logits(problem.model, images)
    assert (logits(problem.model, torch.where(region, images, noise)) - before).abs().max() < 1e-4
    assert (logits(problem.model, torch.where(region, images, images.roll(1, 0))) - before).abs().max() < 1e-4
    assert logits(problem.model, torch.where(region, 0.0, images)).abs().max() < 3e-5
    for patch, adds in zip(problem.truth["regions"], problem.truth["contributions"].T):
        drop = before - logits(problem.model, images.masked_fill(patch, 0.0))
        torch.testing.assert_close(drop, adds, atol=5e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_but_the_colour_matters(seed):
    problem = task("shortcut-colour").problem(seed)
    images, support, region = problem.inputs.images, problem.truth["support"][:, None], problem.truth["region"]
    before = logits(problem.model, images)
    torch.testing.assert_close(logits(problem.model, images * support), before, atol=3e-5, rtol=0)
    assert logits(problem.model, images * ~support).abs().max() < 3e-5
    assert (region & ~problem.truth["support"]).sum() == 0
    core = logits(problem.model, images * region[:, None])
    assert (core / before).min() > 0.5  # the rim is no more than a rim
    area = region.double().mean((1, 2))
    assert area.min() >= 0.03
    assert area.max() <= 0.3
    order = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(seed))
    shuffled = images.flatten(2)[:, :, order].view_as(images)
    torch.testing.assert_close(logits(problem.model, shuffled), before, atol=5e-5, rtol=0)  # it has no place


@pytest.mark.parametrize("name", NAMES)
def test_decoys_are_loud_and_move_nothing(name):
    problem, quiet = task(name).problem(1), task(name, decoys=0.0).problem(1)
    images = problem.inputs.images
    torch.testing.assert_close(logits(problem.model, images), logits(quiet.model, images), atol=3e-5, rtol=0)
    with torch.no_grad():
        activity = problem.model.features(images).mean((0, 2, 3))
    assert activity.median() > 0.1  # most channels are decoys
    head = next(layer for layer in problem.model.modules() if isinstance(layer, torch.nn.Linear))
    weights = head.weight.detach()[0].view(len(activity), -1)
    unused = (weights == 0).all(1)
    assert int(unused.sum()) == 4
    assert activity[unused].min() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_an_instance_depends_on_its_seed_alone_and_disturbs_nothing(name):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = task(name).problem(4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two, other = task(name).problem(4), task(name).problem(5)
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[key])
    assert torch.equal(one.inputs.images, two.inputs.images)
    assert not torch.equal(one.inputs.images, other.inputs.images)
    for key, value in one.truth.items():
        assert torch.equal(value, two.truth[key])
    assert not one.model.training
    assert one.inputs.masks is None
    assert one.inputs.factors is None
    assert one.inputs.labels is None


def test_half_of_the_images_speak_against():
    for seed in SEEDS:
        one = task("shortcut-patch").problem(seed).truth["contribution"]
        assert int((one > 0).sum()) == 8
        assert one.abs().min() >= 1.0
        two = task("shortcut-two-patches").problem(seed).truth["contributions"]
        assert bool((two.prod(1) < 0).all())
        assert int((two[:, 0] > 0).sum()) == 8
    signs = {float(task("shortcut-colour").problem(seed).truth["contribution"].sign().mean()) for seed in SEEDS}
    assert signs == {-1.0, 1.0}


# -- what comes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_frame_holds(name):
    which = task(name)
    assert which.measures[0].name == "energy"
    oracle, random, filtered = (means(which, answer) for answer in (which.oracle, which.random, which.heuristic))
    for measure in which.measures:
        assert abs(oracle[measure.name] - measure.perfect) <= measure.slack
        if measure.chance is not None:
            assert abs(random[measure.name] - measure.chance) <= measure.near
    assert filtered["energy"] < (0.2 if name == "shortcut-colour" else 0.1)
    assert filtered["sign"] <= 0.7
    assert means(which, lambda problem: edges(problem.inputs, 0))["energy"] < 0.1


def saturation(images):
    return images.amax(1) - images.amin(1)


def popular(images):
    """The colour of objects that most images have enough of, and most of."""
    members = torch.stack([members_of(images, colour) for colour in COLOURS], 1)
    core = (members > 0.5).double().mean((2, 3))
    return members[:, int(((core > 0.03).double().sum(0) + core.mean(0)).argmax())]


def members_of(images, colour):
    return (1 - (images - torch.tensor(colour)[:, None, None]).abs().sum(1) / 0.5).clamp_min(0)


def objects(images):
    """All colours that objects may have."""
    return sum(members_of(images, colour) for colour in COLOURS)


@pytest.mark.parametrize("look", [saturation, popular, objects])
def test_what_sees_the_images_alone_does_not_find_the_colour(look):
    """On average over which of its colours is planted: the images do not depend on that."""
    found = []
    for seed in SEEDS:
        problem = task("shortcut-colour").problem(seed)
        answer = look(problem.inputs.images)
        found += [float(excess(answer, region).mean()) for region in problem.truth["rivals"].unbind(1)]
    assert sum(found) / len(found) <= 0.35


def test_the_images_do_not_depend_on_which_of_their_colours_is_planted(monkeypatch):
    which = task("shortcut-colour", n=4)
    one = which.problem(0)
    areas = one.truth["rivals"].double().mean((2, 3))
    generator = draws.generator

    class Turned:
        """Draws the same colours in another order."""

        def __init__(self, draw):
            self.draw = draw

        def permutation(self, n):
            order = self.draw.permutation(n)
            return np.concatenate([np.roll(order[:3], 1), order[3:]]) if n == len(COLOURS) else order

        def __getattr__(self, name):
            return getattr(self.draw, name)

    turn = lambda seed, index, stream: Turned(generator(seed, index, stream))  # noqa: E731
    monkeypatch.setattr("genxai_bench.tasks.shortcut.draws.generator", turn)
    two = which.problem(0)
    assert torch.equal(one.inputs.images, two.inputs.images)
    assert torch.equal(two.truth["rivals"].double().mean((2, 3)), areas.roll(1, 1))
    assert not torch.equal(one.truth["region"], two.truth["region"])


def test_rivals_are_as_frequent_as_the_colour():
    areas = torch.stack([task("shortcut-colour").problem(s).truth["rivals"].double().mean((2, 3)) for s in range(12)])
    assert areas.shape == (12, 16, 3)
    assert areas.min() >= 0.03
    assert areas.max() <= 0.3
    mean = areas.mean((0, 1))
    torch.testing.assert_close(mean, mean.mean().expand(3), atol=0, rtol=0.2)
    none = task("shortcut-colour", rivals=0, n=4).problem(0)
    assert none.truth["rivals"].shape[1] == 1


def test_the_sign_of_the_colour_is_not_told_by_the_seed_but_both_come():
    one = task("shortcut-colour", n=4, rivals=0)
    signs = [float(one.problem(seed).truth["contribution"].sign()[0]) for seed in range(12)]
    assert all(a == -b for a, b in zip(signs[::2], signs[1::2]))
    assert set(signs[::2]) == {-1.0, 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_what_promises_completeness_gets_sign_and_magnitude(name):
    which = task(name)
    for explainer in ("integrated-gradients", "deeplift"):
        found = means(which, lambda problem, explainer=explainer: explained(problem, explainer))
        assert min(found["energy"], found["magnitude"]) > 0.98, explainer
        assert found["sign"] == 1.0, explainer


def test_the_traps_snap():
    patch = task("shortcut-patch")
    gradient = means(patch, lambda problem: explained(problem, "saliency"))
    assert gradient["energy"] == pytest.approx(1, abs=1e-4)
    assert gradient["sign"] == pytest.approx(0.5, abs=0.1)
    local = means(patch, lambda problem: explained(problem, "cam", method="hirescam"))
    pooled = means(patch, lambda problem: explained(problem, "cam", method="gradcam"))
    assert pooled["energy"] < 0.1 < 0.7 < local["energy"]
    assert local["sign"] == 1.0
    assert means(patch, lambda problem: explained(problem, "guided-backprop"))["energy"] < 0.1
    easy = task("shortcut-patch", decoys=0.0)
    rectified = means(easy, lambda problem: explained(problem, "guided-backprop"))
    assert rectified["energy"] > 0.7  # the rest are maps of zeros


# -- figures --------------------------------------------------------------------------------------------------------


def test_excess_is_0_by_chance_and_1_inside():
    region = torch.zeros(2, 8, 8, dtype=torch.bool)
    region[:, :2] = True
    maps = torch.stack([torch.ones(8, 8), -region[0].float()])
    torch.testing.assert_close(excess(maps, region), torch.tensor([0.0, 1.0], dtype=torch.float64))
    counted = torch.ones_like(region)
    counted[:, 2] = False
    maps[1, 2] = 100.0  # does not count
    torch.testing.assert_close(excess(maps, region, counted), torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_auc_counts_pairs():
    draw = torch.Generator().manual_seed(0)
    maps = torch.randint(-3, 4, (3, 6, 6), generator=draw).double()  # many ties
    region = torch.rand(3, 6, 6, generator=draw) < 0.3
    counted = torch.rand(3, 6, 6, generator=draw) < 0.8
    for row, mass in enumerate(maps.abs()):
        ins, outs = mass[region[row] & counted[row]], mass[~region[row] & counted[row]]
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in ins for b in outs]
        assert float(auc(maps, region, counted)[row]) == pytest.approx(sum(pairs) / len(pairs))


def test_pointing_shares_ties_and_correlation_of_a_constant_is_none():
    region = torch.zeros(2, 4, 4, dtype=torch.bool)
    region[:, 0] = True
    maps = torch.zeros(2, 4, 4)
    maps[1, 0, 0], maps[1, 3, 3] = -2.0, 1.0
    assert pointing(maps, region).tolist() == [0.25, 1.0]
    x = torch.tensor([1.0, 2.0, 4.0])
    assert correlation(torch.full((3,), 0.1), x) == 0.0
    assert correlation(-3 * x + 1, x) == pytest.approx(-1)
    assert correlation(torch.zeros(3), x) == 0.0
    for scale in (1e200, 1e-200, 5e-324):  # their squares are infinite, or 0
        assert correlation(scale * x.double(), x) == pytest.approx(1)
        assert correlation(x, -scale * x.double()) == pytest.approx(-1)


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("shortcut-patch", {"n": 5}),
        ("shortcut-patch", {"patch": 12}),
        ("shortcut-patch", {"size": 30}),
        ("shortcut-patch", {"saturation": 0.0}),
        ("shortcut-patch", {"weakest": 1.0}),
        ("shortcut-two-patches", {"second": 1.0}),
        ("shortcut-colour", {"n": 2}),
        ("shortcut-colour", {"size": 31}),
        ("shortcut-colour", {"radius": 1.0}),
        ("shortcut-colour", {"slope": 2.0}),
        ("shortcut-colour", {"rivals": 4}),
    ],
)
def test_sizes_that_make_no_task_are_refused(name, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        task(name, **wrong)


def test_too_few_scenes_are_said_to_be_too_few():
    with pytest.raises(InputError, match="too few scenes of seed 0"):
        task("shortcut-colour", n=4, radius=0.01).problem(0)
    with pytest.raises(InputError, match="weaker evidence"):
        task("shortcut-patch", n=4, weakest=0.99, slope=0.0, saturation=3.0).problem(0)


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_other_images_or_of_nan_are_refused(name):
    which = task(name, n=4)
    problem = which.problem(0)
    assert which.score(problem, constant(problem.inputs, 0))["energy"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="the images need"):
        which.score(problem, edges(problem.inputs[:2], 0))
    with pytest.raises(InputError, match="not finite"):
        which.score(problem, attribution(torch.full((4, 32, 32), torch.nan), problem.inputs, 0))
    nothing = which.score(problem, attribution(torch.zeros(4, 32, 32), problem.inputs, 0))
    assert nothing["sign"] == nothing["magnitude"] == 0
    assert nothing["energy"] < 0
