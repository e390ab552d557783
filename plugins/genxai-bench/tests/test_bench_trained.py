"""The trained shortcut: what the network decides by is verified, and a network that decides otherwise is refused."""

import pytest
import torch
from genxai_bench.tasks import task, trained
from genxai_bench.tasks.trained import FIRST, HELD_OUT, NEITHER, SECOND, Recipe, TrainedShortcut, Verdict
from torch import nn

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
    regions = shown.regions()
    assert (regions.flatten(1).sum(1) == 25).all()
    first, second, neither = (shown.with_(torch.full((12,), kind)) for kind in (FIRST, SECOND, NEITHER))
    outside = ~regions[:, None].expand_as(first)
    assert torch.equal(first[outside], second[outside])
    assert torch.equal(first[outside], neither[outside])
    assert torch.equal(neither[~outside], shown.scenes[~outside])  # the scene itself, no decoy on it
    for images, colour in ((first, shown.colours[0]), (second, shown.colours[1])):
        assert torch.equal(images[~outside].view(12, 3, 25), colour[:, None].expand(12, 3, 25))
    for decoy in shown.colours[2:]:  # every picture has it once
        assert ((neither == decoy[:, None, None]).all(1).flatten(1).sum(1) == 25).all()
    assert shown.colours.abs().max() <= 0.9
    again = trained.pictures(RECIPE, 3, 10, 2)  # by number, whatever the batch
    assert torch.equal(again.with_(torch.tensor([1, 0])), shown.with_(torch.tensor([0, 1] * 6))[3:5])


def test_nothing_that_is_verified_on_was_trained_on():
    shown, kinds = trained.held_out(BRIEF, 0)
    seen = trained.pictures(BRIEF, 0, 0, BRIEF.examples)
    everything = torch.cat([seen.scenes, shown.scenes, trained.pictures(BRIEF, 0, 64 + HELD_OUT, HELD_OUT).scenes])
    assert len(everything.flatten(1).unique(dim=0)) == len(everything)
    assert kinds.tolist() == [0, 1] * (HELD_OUT // 2)


# -- the truth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_network_decides_by_the_mark(seed):
    """The interventions again, on the pictures of the instance and from nothing but what the instance says."""
    problem = task("trained-shortcut").problem(seed)
    images, region = problem.inputs.images, problem.truth["region"][:, None]
    before = logits(problem.model, images)
    assert before.sign().tolist() == [1.0] * 8 + [-1.0] * 8
    colours = torch.stack([image[:, inside[0]].mean(1) for image, inside in zip(images, region)])
    assert (colours[:8] - colours[0]).abs().max() < 1e-5 < (colours[0] - colours[8]).abs().max()
    other = colours.roll(8, 0)[:, :, None, None]
    assert (logits(problem.model, torch.where(region, other, images)).sign() == -before.sign()).all()
    changed = torch.where(region, images, images.roll(8, 0).masked_fill(region.roll(8, 0), 0.0))  # of the other class
    assert (logits(problem.model, changed).sign() == before.sign()).double().mean() >= 0.9
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


class Bright(nn.Module):
    """Decides by how bright the picture is."""

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None]


class Marks(nn.Module):
    """Knows the mark's colours, and counts their pixels."""

    def __init__(self, colours):
        super().__init__()
        self.colours = colours

    def forward(self, images):
        first, second = ((images == c[:, None, None]).all(1).flatten(1).sum(1) for c in self.colours[:2])
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
    state = torch.get_rng_state()
    with torch.no_grad():
        second = trained.learned.__wrapped__(BRIEF, 0)
        assert not torch.is_grad_enabled()
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
    for seed in SEEDS:
        problem = which.problem(seed)
        oracle = which.score(problem, which.oracle(problem))
        for measure in which.measures:
            assert oracle[measure.name] == pytest.approx(measure.perfect, abs=measure.slack)
        assert abs(which.score(problem, which.random(problem))["energy"]) < 0.05
        filtered = which.score(problem, which.heuristic(problem))
        integrated = which.score(problem, explained(problem, "integrated-gradients"))
        assert filtered["energy"] < 0.1 < 0.2 < integrated["energy"]
        assert integrated["sign"] == 1.0
        assert integrated["magnitude"] > 0.9


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 5), ("n", 66), ("size", 30), ("mark", 6), ("decoys", 5), ("width", 0), ("steps", 0), ("examples", 10)],
)
def test_sizes_that_make_no_task_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        task("trained-shortcut", **{name: value})
