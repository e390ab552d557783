"""The trained shortcut: what the network decides by is verified, and a network that decides otherwise is refused."""

from itertools import permutations

import pytest
import torch
from genxai_bench.maps import attribution
from genxai_bench.signed import excess
from genxai_bench.tasks import task, trained
from genxai_bench.tasks.trained import FIRST, HELD_OUT, NEITHER, SECOND, Recipe, TrainedShortcut, Verdict
from torch import nn
from torch.nn.functional import avg_pool2d

import genxai_core as gx
from genxai_core.errors import InputError

RECIPE = TrainedShortcut().recipe
BRIEF = Recipe(size=16, mark=2, decoys=1, width=4, examples=64, steps=3)
SEEDS = (0, 1)


def logits(model, images):
    with torch.no_grad():
        return model(images)[:, 0].double()


def explained(problem, name, **parameters):
    return gx.create(f"explainer/{name}", **parameters).explain(problem.model, problem.inputs, target=problem.target)


# -- the pictures ---------------------------------------------------------------------------------------------------


def test_pictures_differ_in_the_mark_and_nowhere_else():
    shown = trained.pictures(RECIPE, 3, 7, 12)
    squares = shown.squares()
    regions = squares[:, 0]
    assert (squares.flatten(2).sum(2) == 25).all()
    assert (squares.sum(1) <= 1).all()
    first, second, neither = (shown.with_(torch.full((12,), kind)) for kind in (FIRST, SECOND, NEITHER))
    outside = ~regions[:, None].expand_as(first)
    assert torch.equal(first[outside], second[outside])
    assert torch.equal(first[outside], neither[outside])
    assert torch.equal(neither[~outside], shown.scenes[~outside])  # the scene itself, no decoy on it
    for images, colour in ((first, shown.colours[0, 0]), (second, shown.colours[0, 1])):
        assert torch.equal(images[~outside].view(12, 3, 25), colour[:, None].expand(12, 3, 25))
    for decoy, picks, pair in zip(squares[:, 1:].unbind(1), shown.picks.T, shown.colours[1:]):
        for image, where, pick in zip(neither, decoy, picks):
            assert torch.equal(image[:, where], pair[pick][:, None].expand(3, 25))
    bare = ~squares.any(1)[:, None].expand_as(neither)
    assert torch.equal(neither[bare], shown.scenes[bare])
    assert shown.colours.abs().max() <= 0.9
    again = trained.pictures(RECIPE, 3, 10, 2)  # by number, whatever the batch
    assert torch.equal(again.with_(torch.tensor([1, 0])), shown.with_(torch.tensor([0, 1] * 6))[3:5])


def test_marks_and_decoys_are_alike():
    """One of two colours each, as often; at the same places on average; colours as far apart."""
    shown, kinds = trained.held_out(RECIPE, 1)
    for picks in (kinds, *shown.picks.T):
        assert abs(float(picks.double().mean()) - 0.5) < 0.1
    away = (shown.places.double() - (RECIPE.size - RECIPE.mark) / 2).abs().mean((0, 2))
    torch.testing.assert_close(away, away.mean().expand(3), atol=0, rtol=0.1)
    distance = (shown.colours[:, 0] - shown.colours[:, 1]).norm(dim=1)
    torch.testing.assert_close(distance, distance[0].expand(3))


def test_nothing_that_is_verified_on_was_trained_on():
    shown, kinds = trained.held_out(BRIEF, 0)
    seen = trained.pictures(BRIEF, 0, 0, BRIEF.examples)
    everything = torch.cat([seen.scenes, shown.scenes, trained.pictures(BRIEF, 0, 64 + HELD_OUT, HELD_OUT).scenes])
    assert len(everything.flatten(1).unique(dim=0)) == len(everything)
    assert kinds.unique().tolist() == [FIRST, SECOND]


# -- the truth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_network_decides_by_the_mark(seed):
    """The interventions again, on the pictures of the instance and from nothing but what the instance says."""
    problem = task("trained-shortcut").problem(seed)
    images, region = problem.inputs.images, problem.truth["region"][:, None]
    before = logits(problem.model, images)
    first = before > 0
    colours = torch.stack([image[:, inside[0]].mean(1) for image, inside in zip(images, region)])
    one, two = colours[first], colours[~first]
    assert min(len(one), len(two)) >= 2
    assert max((one - one[0]).abs().max(), (two - two[0]).abs().max()) < 1e-5 < (one[0] - two[0]).abs().max()
    other = torch.where(first[:, None], two[0], one[0])[:, :, None, None]
    assert (logits(problem.model, torch.where(region, other, images)).sign() == -before.sign()).all()
    changed = torch.where(region, images, images.roll(1, 0).masked_fill(region.roll(1, 0), 0.0))
    assert (logits(problem.model, changed).sign() == before.sign()).double().mean() >= 0.8
    torch.testing.assert_close(problem.truth["map"].sum((1, 2)), problem.truth["contribution"])
    assert (problem.truth["contribution"].sign() == before.sign()).all()
    assert ((before - problem.truth["contribution"]).abs() < before.abs() / 2 + 1e-6).all()  # what is left without it


@pytest.mark.parametrize("seed", SEEDS)
def test_the_verdict_is_what_interventions_give(seed):
    weights, verdict = trained.learned(RECIPE, seed)
    model = trained.MarkNet(RECIPE.size, RECIPE.width, seed)
    model.load_state_dict(weights)
    kinds = trained.held_out(RECIPE, seed)[1]
    for row in range(0, HELD_OUT, 37):
        kind = kinds[row : row + 1]
        one = trained.pictures(RECIPE, seed, RECIPE.examples + row, 1)
        f, g, h = (float(logits(model, one.with_(k))[0]) for k in (kind, 1 - kind, torch.tensor([NEITHER])))
        right = (f > 0) == (int(kind) == FIRST)
        assert bool(verdict.flips[row]) == (right and (g > 0) == (int(kind) == SECOND))
        assert bool(verdict.falls[row]) == (right and abs(h) < abs(f) / 2)
    assert verdict.flips.double().mean() >= 0.95
    assert verdict.stays.double().mean() >= 0.95


def test_an_undertrained_network_is_refused():
    with pytest.raises(InputError, match=r"seed 0 does not decide by the mark.*Raise steps \(5\)"):
        task("trained-shortcut", steps=5).problem(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_shapley_values_of_the_squares_are_those_of_all_orders(seed):
    problem = task("trained-shortcut").problem(seed)
    images, squares, values = problem.inputs.images[:2], problem.truth["squares"][:2], problem.truth["shapley"][:2]
    verdict = trained.learned(RECIPE, seed)[1]
    rows = (verdict.flips & verdict.stays & verdict.falls).nonzero()[:2, 0]
    scenes = trained.held_out(RECIPE, seed)[0].scenes[rows]
    found = torch.zeros(2, 3, dtype=torch.float64)
    for order in permutations(range(3)):
        shown = scenes
        for player in order:
            more = torch.where(squares[:, player, None], images, shown)
            found[:, player] += (logits(problem.model, more) - logits(problem.model, shown)) / 6
            shown = more
        torch.testing.assert_close(shown, images)
    torch.testing.assert_close(values, found, atol=1e-5, rtol=0)


class Bright(nn.Module):
    """Decides by how bright the picture is."""

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None]


class Marks(nn.Module):
    """Knows the mark's colours, and counts their pixels."""

    def __init__(self, colours):
        super().__init__()
        self.colours = colours[0]

    def forward(self, images):
        first, second = ((images == c[:, None, None]).all(1).flatten(1).sum(1) for c in self.colours)
        return (first - second).float()[:, None]


def test_a_network_that_decides_by_something_else_is_found_out():
    verdict = trained.intervened(Bright(), BRIEF, 0)
    assert verdict.flips.double().mean() < 0.7
    assert verdict.stays.double().mean() < 0.7
    with pytest.raises(InputError, match="does not decide by the mark"):
        verdict.check(BRIEF, 0)
    ideal = trained.intervened(Marks(trained.pictures(BRIEF, 0, 0, 1).colours), BRIEF, 0)
    assert bool((ideal.flips & ideal.stays & ideal.falls).all())
    ideal.check(BRIEF, 0)


@pytest.mark.parametrize("part", ["flips", "stays", "falls"])
def test_each_intervention_can_refuse_alone(part):
    held = {name: torch.ones(HELD_OUT, dtype=torch.bool) for name in ("flips", "stays", "falls")}
    held[part][: HELD_OUT // 20] = False  # just under 5 %
    Verdict(**held).check(BRIEF, 0)
    held[part][: HELD_OUT // 3] = False
    with pytest.raises(InputError, match="67%"):
        Verdict(**held).check(BRIEF, 0)


# -- how it is made -------------------------------------------------------------------------------------------------


def test_training_depends_on_the_seed_alone_and_disturbs_nothing():
    first = trained.learned.__wrapped__(BRIEF, 0)
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(3)
    with torch.no_grad():
        second = trained.learned.__wrapped__(BRIEF, 0)
        assert not torch.is_grad_enabled()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    other = trained.learned.__wrapped__(BRIEF, 1)
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name])
        if value.ndim > 1:
            assert not torch.equal(value, other[0][name])


def test_training_is_done_once_and_nobody_can_spoil_it(monkeypatch):
    one = task("trained-shortcut").problem(0)
    monkeypatch.setattr(trained, "train", None)
    with torch.no_grad():
        one.model.head.weight.zero_()
    two = task("trained-shortcut", n=4).problem(0)  # as many pictures as one likes, of one network
    assert two.model.head.weight.abs().max() > 0
    assert torch.equal(two.inputs.images[:2], one.inputs.images[:2])
    assert not two.model.training
    assert all(p.grad is None for p in two.model.parameters())
    assert two.inputs.masks is None
    assert two.inputs.labels is None


# -- what comes out -------------------------------------------------------------------------------------------------


def test_the_frame_holds_and_completeness_tells():
    which = task("trained-shortcut")
    assert which.measures[0].name == "contrast"
    for seed in SEEDS:
        problem = which.problem(seed)
        oracle = which.score(problem, which.oracle(problem))
        for measure in which.measures:
            assert oracle[measure.name] == pytest.approx(measure.perfect, abs=measure.slack)
        noise = which.score(problem, which.random(problem))
        assert max(abs(noise["contrast"]), abs(noise["energy"])) < 0.06
        squares = problem.truth["squares"] * problem.truth["shapley"][:, :, None, None]
        reached = which.score(problem, attribution(squares.sum(1), problem.inputs, 0))
        integrated = which.score(problem, explained(problem, "integrated-gradients"))
        assert 0.5 < integrated["contrast"] < 1
        assert reached["contrast"] > 0.75
        assert integrated["sign"] == 1.0
        assert integrated["magnitude"] > 0.9


def saturation(images):
    return images.amax(1) - images.amin(1)


def far(images):
    return (images - images.mean((2, 3), keepdim=True)).square().sum(1)


def patches(images):
    """Where flat squares of strong colours are, ``[K, 3]`` of image, top and left, and their colours ``[K, 3]``."""
    mean = avg_pool2d(images, 5, 1)
    flat = (avg_pool2d(images.square(), 5, 1) - mean.square()).sum(1) < 1e-4
    found = (flat & (saturation(mean) > 0.8)).nonzero()
    return found, mean[found[:, 0], :, found[:, 1], found[:, 2]]


def flat(images, keep=lambda images, found, colours: torch.ones(len(found), dtype=torch.bool)):
    maps = torch.zeros_like(images[:, 0])
    found, colours = patches(images)
    for n, top, left in found[keep(images, found, colours)].tolist():
        maps[n, top : top + 5, left : left + 5] = 1
    return maps


def varying(images):
    """Flat squares whose colour is not in every image."""

    def keep(images, found, colours):
        alike = torch.cdist(colours, colours) < 0.05
        return torch.tensor([len(found[row, 0].unique()) < 0.8 * len(images) for row in alike], dtype=torch.bool)

    return flat(images, keep)


def even(images):
    """Flat squares of a colour that is in as near half of the images as any."""

    def keep(images, found, colours):
        alike = torch.cdist(colours, colours) < 0.05
        odd = torch.tensor([abs(len(found[row, 0].unique()) - len(images) / 2) for row in alike])
        return odd == odd.min()

    return flat(images, keep)


@pytest.mark.parametrize("look", [saturation, far, flat, varying, even])
def test_what_sees_the_images_alone_does_not_find_the_mark(look):
    """On average over many seeds, and for the energy over which square is the mark; that takes no network."""
    contrasts, energies = [], []
    for seed in range(24):
        shown = trained.pictures(RECIPE, seed, RECIPE.examples, 16)
        squares = shown.squares()
        found = look(shown.with_(trained.held_out_kinds(seed)[:16]))
        contrasts.append(excess(found, squares[:, 0], squares.any(1)).mean())
        energies += [excess(found, square).mean() for square in squares.unbind(1)]
    assert abs(torch.stack(contrasts).mean()) < (0.3 if look is even else 0.1)  # one of three at random, all or nothing
    assert torch.stack(energies).mean() <= 0.35


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 3),
        ("n", 65),
        ("size", 30),
        ("mark", 6),
        ("decoys", 0),
        ("decoys", 5),
        ("width", 0),
        ("steps", 0),
        ("examples", 10),
    ],
)
def test_sizes_that_make_no_task_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        task("trained-shortcut", **{name: value})
