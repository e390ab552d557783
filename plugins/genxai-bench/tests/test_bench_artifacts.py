"""Planted artifacts do what their construction says, and the score can only be won by repairing."""

import dataclasses

import numpy as np
import pytest
import torch
from genxai_bench.models.planted_artifacts import ArtifactGenerator, StampJudge, draw_pattern
from genxai_bench.models.planted_generator import LAYERS
from genxai_bench.tasks.artifacts import PlantedArtifacts, changed

from genxai_core import UnitEdits, models, units
from genxai_core.errors import InputError

SEEDS = range(5)
HOW = [{}, {"overlap": True}, {"spread": True}, {"overlap": True, "spread": True, "artifacts": 6}]


@pytest.fixture(scope="module")
def task():
    return PlantedArtifacts()


@pytest.fixture(scope="module")
def problem(task):
    return task.problem(0)


def of_kind(problem, *kinds):
    roles = problem.truth["roles"]
    return {layer: [u for u, r in enumerate(roles[layer]) if r.kind in kinds] for layer in LAYERS}


def made_with(problem, edits):
    """Images of the given latents with units edited."""
    with torch.no_grad(), units.applied(problem.model, edits):
        return problem.model(problem.inputs.latents)


# -- the construction ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_the_twin_differs_in_the_stamp_of_broken_images_alone(how):
    made = PlantedArtifacts(**how)
    for seed in SEEDS:
        problem = made.problem(seed)
        inputs, clean = problem.inputs, problem.truth["clean"]
        differs = (inputs.images != clean).any(1, keepdim=True)
        assert torch.equal(differs, inputs.masks)
        assert torch.equal(inputs.masks.sum((1, 2, 3)), 36 * inputs.labels)
        assert int(inputs.labels.sum()) == 12
        assert (inputs.class_names, inputs.concepts) == (("fine", "artifact"), ("artifact",))
        assert torch.equal(problem.truth["twin"](inputs.latents), clean)
        assert not problem.truth["twin"].sample(40, seed).labels.any()


@pytest.mark.parametrize("how", HOW)
def test_without_its_stamps_the_generator_is_its_twin_bit_for_bit(how):
    made = PlantedArtifacts(**how)
    for seed in SEEDS:
        problem = made.problem(seed)
        assert torch.equal(made_with(problem, made.oracle(problem)), problem.truth["clean"])


@pytest.mark.parametrize("how", HOW)
def test_shadows_and_noise_change_no_bit(how):
    made = PlantedArtifacts(**how)
    for seed in SEEDS:
        problem = made.problem(seed)
        idle = of_kind(problem, "shadow", "noise")
        assert all(idle.values())
        assert torch.equal(made_with(problem, UnitEdits.ablate(idle)), problem.inputs.images)


def test_each_stamping_unit_draws_a_strip_of_its_own(problem):
    removed = []
    for layer, found in problem.truth["stamps"].items():
        for unit in found:
            images = made_with(problem, UnitEdits.ablate({layer: [unit]}))
            differs = (images != problem.inputs.images).any(1)
            assert torch.equal(differs.sum((1, 2)), 12 * problem.inputs.labels)
            assert torch.equal(images[:, 0][differs], problem.truth["clean"][:, 0][differs])
            removed.append(differs)
    assert len(removed) == 3
    assert torch.equal(sum(removed).bool(), problem.inputs.masks[:, 0])


def test_redundant_stamps_go_together_only():
    problem = PlantedArtifacts(artifacts=6).problem(0)
    ((layer, found),) = [x for x in problem.truth["stamps"].items() if x[1]]
    parts = [problem.truth["roles"][layer][u].part for u in found]
    assert sorted(parts) == sorted(2 * ["strip-0", "strip-1", "strip-2"])
    first = [found[parts.index(f"strip-{i}")] for i in range(3)]
    assert torch.equal(made_with(problem, UnitEdits.ablate({layer: first})), problem.inputs.images)
    assert torch.equal(made_with(problem, UnitEdits.ablate({layer: found})), problem.truth["clean"])


def test_activity_alone_prefers_shadows(problem):
    """IoU with the artifact's mask in broken images: shadows 1, units that stamp a third, units of concepts 0."""
    broken = problem.inputs[problem.inputs.labels.nonzero().flatten().tolist()]
    for layer, activation in problem.model.activations(broken.latents).items():
        active = activation > 0.5
        scale = 32 // active.shape[-1]
        active = active.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        iou = (active & broken.masks).sum((0, 2, 3)) / (active | broken.masks).sum((0, 2, 3))
        for unit, role in enumerate(problem.truth["roles"][layer]):
            if role.kind != "noise":
                wanted = {"shadow": 1, "stamp": 1 / 3, "cause": 0}[role.kind]
                assert float(iou[unit]) == pytest.approx(wanted)


def test_with_overlap_a_concept_is_active_in_the_artifact():
    problem = PlantedArtifacts(overlap=True).problem(0)
    broken = problem.inputs.labels.bool()
    inputs = problem.inputs
    scene = problem.model.scene(inputs.latents)
    assert float(scene.level[broken, 0].min()) > float(scene.level[~broken, 0].max())  # bright ones are covered
    red = [u for u, r in enumerate(problem.truth["roles"]["layer2"]) if (r.kind, r.concept) == ("cause", 0)]
    active = problem.model.activations(inputs.latents)["layer2"][:, red[0]] > 0.5
    assert bool((active[broken] <= inputs.masks[broken, 0]).all())
    assert active[broken].sum((1, 2)).unique().tolist() == [24]
    damaged = made_with(problem, UnitEdits.ablate({"layer2": red}))
    assert bool((damaged != problem.truth["clean"]).flatten(1).any(1)[~broken].all())


def test_stamps_lie_in_one_layer_or_are_spread():
    one, both = PlantedArtifacts(images=4), PlantedArtifacts(images=4, spread=True)
    layers = {tuple(k for k, v in one.problem(s).truth["stamps"].items() if v) for s in range(8)}
    assert layers == {("layer1",), ("layer2",)}
    for seed in SEEDS:
        spread = both.problem(seed).truth["stamps"]
        assert [len(spread[layer]) for layer in LAYERS] == [2, 1]


# -- the model and its judge --------------------------------------------------------------------------------------


def test_the_trigger_is_pulled_as_often_as_is_said(problem):
    model = problem.model
    assert isinstance(model, models.HasLatents)
    assert isinstance(model, models.CanSample)
    latents = model.sample_latents(4000, seed=9)
    assert float(model.triggered(latents).double().mean()) == pytest.approx(0.3, abs=0.03)
    samples = model.sample(50, seed=9)
    assert torch.equal(samples.labels.bool(), model.triggered(latents[:50]))


def test_given_latents_are_the_models_own_first_ones(problem):
    drawn = problem.model.sample_latents(400, seed=0)
    where = [int((drawn == row).all(1).nonzero()) for row in problem.inputs.latents]
    assert where == sorted(where)
    pulled = problem.model.triggered(drawn)
    for kind, n in ((True, 12), (False, 28)):
        assert [i for i in where if pulled[i] == kind] == (pulled == kind).nonzero().flatten().tolist()[:n]


def test_labels_and_masks_stay_true_when_the_generator_is_edited(problem):
    (layer, found), *_ = [x for x in problem.truth["stamps"].items() if x[1]]
    with units.applied(problem.model, UnitEdits.ablate({layer: found[:2]})):
        partly = problem.model.sample(30, seed=1)
    with units.applied(problem.model, UnitEdits.ablate({layer: found})):
        repaired = problem.model.sample(30, seed=1)
    assert torch.equal(partly.masks.sum((1, 2, 3)), 12 * partly.labels)
    assert partly.labels.any()
    assert not repaired.labels.any()


@pytest.mark.parametrize("how", [{}, {"overlap": True, "size": 64, "concepts": 6}])
def test_the_judge_is_always_right(how):
    made = PlantedArtifacts(images=4, **how)
    for seed in range(3):
        problem = made.problem(seed)
        judge, samples = problem.decided["classifier"], problem.model.sample(50, seed=3)
        with torch.no_grad():
            assert torch.equal(judge(samples.images).argmax(1), samples.labels)
            assert not judge(problem.truth["twin"](samples.latents)).argmax(1).any()


def test_the_judge_is_a_matched_filter():
    pattern = draw_pattern(4)
    assert pattern.shape == (6, 6)
    assert float(pattern.sum()) == 0
    images = torch.zeros(2, 3, 10, 12, requires_grad=True)
    with torch.no_grad():
        images[1, :, 3:9, 2:8] = pattern
    logits = StampJudge(pattern)(images)
    assert logits.detach().flatten().tolist() == pytest.approx([1.5, -1.5, -3.5, 3.5], abs=1e-5)
    (gradient,) = torch.autograd.grad(logits[1, 1], images)
    torch.testing.assert_close(gradient[1, :, 3:9, 2:8], (5 * pattern / 108).expand(3, 6, 6))


def test_gradients_reach_the_latents():
    model = PlantedArtifacts(overlap=True).problem(0).model.double()
    latents = model.sample_latents(6, seed=0).double().requires_grad_()
    (gradient,) = torch.autograd.grad(model(latents).square().sum(), latents)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any(1).all())


# -- the score ----------------------------------------------------------------------------------------------------


def test_the_score_is_what_it_says_it_is(task, problem):
    """Every figure, pixel by pixel."""
    some = UnitEdits.ablate({"layer1": [0, 3, 5], "layer2": [1, 2]})
    got = task.score(problem, some)
    images, clean = made_with(problem, some).double().numpy(), problem.truth["clean"].double().numpy()
    before, masks = problem.inputs.images.double().numpy(), problem.inputs.masks.numpy()
    left = was = left_in = was_in = 0.0
    moved = []
    for n, c, y, x in np.ndindex(before.shape):
        a, b = (images[n, c, y, x] - clean[n, c, y, x]) ** 2, (before[n, c, y, x] - clean[n, c, y, x]) ** 2
        left, was = left + a, was + b
        if masks[n, 0, y, x]:
            left_in, was_in = left_in + a, was_in + b
        else:
            moved.append(abs(images[n, c, y, x] - before[n, c, y, x]))
    assert got["correction"] == pytest.approx(max(0, 1 - (left / was) ** 0.5), abs=1e-9)
    assert got["repair-error"] == pytest.approx((left_in / was_in) ** 0.5)
    assert got["collateral"] == pytest.approx(np.mean(moved) / 2)
    true = {(k, u) for k, v in problem.truth["stamps"].items() for u in v}
    hits = len(true & {("layer1", 0), ("layer1", 3), ("layer1", 5), ("layer2", 1), ("layer2", 2)})
    assert (got["precision"], got["recall"], got["f1"]) == pytest.approx((hits / 5, hits / 3, hits / 4))


@pytest.mark.parametrize("how", HOW)
def test_switching_everything_off_loses(how):
    made = PlantedArtifacts(**how)
    every = UnitEdits.ablate({layer: range(16) for layer in LAYERS})
    for seed in SEEDS:
        problem = made.problem(seed)
        found = made.score(problem, every)
        assert found["correction"] == 0
        assert found["recall"] == 1
        assert found["precision"] < 0.2
        assert found["collateral"] > 0.01
        only_broken = dataclasses.replace(every, condition={"target": 1, "above": 0.5})
        assert made.score(problem, only_broken)["correction"] < 0.05


def test_the_right_units_and_one_that_draws_a_concept_lose_to_the_right_ones(task):
    for seed in SEEDS:
        problem = task.problem(seed)
        for layer, unit in [(k, u) for k, v in of_kind(problem, "cause").items() for u in v]:
            more = UnitEdits.concat([task.oracle(problem), UnitEdits.ablate({layer: [unit]})])
            found = task.score(problem, more)
            assert found["correction"] < 0.5
            assert found["collateral"] > 0.001


def test_shadows_cost_precision_and_nothing_else(task, problem):
    more = UnitEdits.concat([task.oracle(problem), UnitEdits.ablate(of_kind(problem, "shadow"))])
    found = task.score(problem, more)
    assert (found["correction"], found["repair-error"], found["collateral"], found["recall"]) == (1, 0, 0, 1)
    assert found["precision"] == 3 / 7


def test_a_condition_is_judged_by_the_classifier(task, problem):
    right = dataclasses.replace(task.oracle(problem), condition={"target": 1, "above": 0.5})
    assert task.score(problem, right) == task.score(problem, task.oracle(problem))
    turned = dataclasses.replace(
        right, condition={"target": 0, "above": 0.5}
    )  # the fine ones only: nothing is repaired
    assert task.score(problem, turned)["repair-error"] == 1


def test_scaling_repairs_in_part(task, problem):
    right = task.oracle(problem)
    found = [task.score(problem, dataclasses.replace(right, factors=torch.full((3,), f))) for f in (0.0, 0.3, 0.6, 1.0)]
    repair = [f["repair-error"] for f in found]
    assert repair == sorted(repair)
    assert (repair[0], repair[-1]) == (0, 1)
    assert found[-1]["recall"] == 0  # a factor of 1 is no edit


def test_where_artifacts_are_spread_one_layer_is_not_enough():
    for artifacts in (3, 6):
        made = PlantedArtifacts(images=20, spread=True, artifacts=artifacts)
        for seed in SEEDS:
            problem = made.problem(seed)
            for layer in LAYERS:
                one = UnitEdits.ablate({layer: problem.truth["stamps"][layer]})
                assert made.score(problem, one)["correction"] < 0.5
            assert made.score(problem, made.oracle(problem))["correction"] == 1


def test_the_units_whose_ablation_lowers_the_judges_logit_are_the_right_ones():
    """A causal check, unit by unit, finds all that stamp and no shadow; so the task can be won without the truth."""
    task = PlantedArtifacts(images=20)
    for seed in SEEDS:
        problem = task.problem(seed)
        judge, broken = problem.decided["classifier"], problem.inputs.labels.bool()
        found = {layer: [] for layer in LAYERS}
        with torch.no_grad():
            before = judge(problem.inputs.images)[broken, 1].mean()
            for layer in LAYERS:
                for unit in range(16):
                    images = made_with(problem, UnitEdits.ablate({layer: [unit]}))
                    if float(before - judge(images)[broken, 1].mean()) > 0.5:
                        found[layer].append(unit)
        assert task.score(problem, UnitEdits.ablate(found))["f1"] == 1


def test_random_is_near_chance_over_many_seeds():
    made = PlantedArtifacts(images=10)
    found = [made.score(p, made.random(p)) for p in map(made.problem, range(50))]
    for name in ("f1", "precision", "recall"):
        assert abs(np.mean([f[name] for f in found]) - 3 / 32) < 0.06


def test_what_counts_as_edited():
    edits = UnitEdits(
        ("layer1",) * 4,
        torch.arange(4),
        torch.tensor([1.0, 0.5, 1.0, 0.0]),
        torch.tensor([0.0, 0.0, 0.2, 0.0]),
        torch.tensor([True, True, True, False])[:, None, None].expand(4, 16, 16),
    )
    assert changed(edits) == {("layer1", 1), ("layer1", 2)}
    assert changed(UnitEdits.ablate({})) == set()


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (UnitEdits.ablate({"palette": [0]}), "edits of 'palette'"),
        (UnitEdits.ablate({"layer1": [16]}), "unit 16"),
        (UnitEdits.ablate({"layer1": [1]}, condition={"target": 2, "above": 0.5}), "class 2"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(task, problem, edits, said):
    with pytest.raises(InputError, match=said):
        task.score(problem, edits)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"artifacts": 2}, "from 3 to 6"),
        ({"shadows": -1}, "shadows"),
        ({"share": 0.0}, "between 0 and 1"),
        ({"share": 0.01}, "some must be broken"),
        ({"units": 8}, "fewer than the 9"),
        ({"size": 16, "concepts": 3}, "from 1 to 2 at size 16"),
    ],
)
def test_parameters_out_of_bounds_are_refused(how, said):
    with pytest.raises(ValueError, match=said):
        PlantedArtifacts(**how)


def test_seeds_make_other_patterns_and_other_orders(task):
    found = [task.problem(seed) for seed in SEEDS]
    assert all(isinstance(p.model, ArtifactGenerator) for p in found)
    assert len({tuple(p.model.pattern.flatten().tolist()) for p in found}) == 5
    assert len({str(p.truth["stamps"]) for p in found}) == 5
