"""The counterfactual tasks: least changes and contributions against brute force, in double precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from genxai_bench.models.factor_classifier import GAIN, OVER, RADIUS, FactorClassifier
from genxai_bench.tasks import task
from genxai_bench.tasks.counterfactual import TARGET, LinearCounterfactual, QuadraticCounterfactual, planted
from genxai_bench.tasks.counterfactual_attribution import CounterfactualAttribution
from scipy.optimize import minimize

from genxai_core import Attribution, create
from genxai_core.errors import InputError

KINDS = ("linear", "quadratic")
PERFECT = {"weights": 1, "correlation": 1, "sign": 1, "localisation": 1, "iou": 1}
WHO = ("oracle", "random", "heuristic", "constant")
MAKE = {"linear": LinearCounterfactual, "quadratic": QuadraticCounterfactual}


def gap(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    logits = model(images)
    return logits[:, 1] - logits[:, 0]


def searched(model: FactorClassifier, image: torch.Tensor) -> torch.Tensor:
    """The least change of one image, knowing nothing but the model: SciPy on |δ|²/2 by an augmented Lagrangian."""
    weight, multiplier, change = 1.0, 0.0, torch.zeros_like(image)

    def loss(flat: object) -> tuple[float, object]:
        delta = torch.tensor(flat, dtype=torch.float64).view_as(image).requires_grad_()
        short = (-gap(model, image + delta) + multiplier / weight).clamp(min=0)
        value = delta.square().sum() / 2 + weight / 2 * short.square().sum()
        value.backward()
        return float(value.detach()), delta.grad.flatten().numpy()

    for _ in range(12):
        found = minimize(loss, change.flatten().numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 500})
        change = torch.tensor(found.x).view_as(image)
        multiplier = max(0.0, multiplier - weight * float(gap(model, image + change)))
    return change


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_change_is_what_a_search_finds(kind: str) -> None:
    problem = MAKE[kind](n=3).problem(1)
    model = problem.model.double()
    for image, truth in zip(problem.inputs.images.double(), problem.truth["change"]):
        change = searched(model, image[None])[0]
        assert float(gap(model, (image + change)[None])) == pytest.approx(0, abs=1e-4)
        assert float(change.norm()) == pytest.approx(float(truth.norm()), rel=1e-4)
        assert float((change - truth).norm() / truth.norm()) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_shorter_change_reaches_the_target(kind: str) -> None:
    """The largest g on a sphere around x, by projected gradient ascent from many starts, is 0 at the least length."""
    problem = MAKE[kind](n=2).problem(5)
    model = problem.model.double()
    for image, truth in zip(problem.inputs.images.double(), problem.truth["change"]):
        for share, reached in ((0.99, False), (1.01, True)):
            change = torch.randn((8, *image.shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            for _ in range(300):
                change = change * (share * truth.norm() / change.flatten(1).norm(dim=1))[:, None, None, None]
                change.requires_grad_()
                (grad,) = torch.autograd.grad(gap(model, image + change).sum(), change)
                change = (change + 0.5 * grad).detach()
            change = change * (share * truth.norm() / change.flatten(1).norm(dim=1))[:, None, None, None]
            assert bool((gap(model, image + change) > 0).all()) is reached


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_the_formula(kind: str) -> None:
    model = FactorClassifier(kind, marks=5, size=32, seed=3)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    logits = model(images).detach()
    assert torch.allclose(logits.sum(1), torch.zeros(4), atol=1e-6)
    for n in range(4):
        factors = []
        for i, (row, column) in enumerate(model.cells):
            cell = images[n, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].double()
            factors.append(float((cell * model.marks.weight[i].detach().double()).sum()))
        if kind == "linear":
            wanted = GAIN * sum(a * f for a, f in zip(model.centre.tolist(), factors))
        else:
            wanted = GAIN * (RADIUS**2 - sum((f - c) ** 2 for f, c in zip(factors, model.centre.tolist())))
        assert float(logits[n, 1] - logits[n, 0]) == pytest.approx(wanted, abs=1e-4)
        assert float(model.gap(images[n : n + 1])) == pytest.approx(wanted, abs=1e-4)
    rows = model.patterns.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(5, dtype=torch.float64), atol=1e-12)
    assert float(rows.sum(1).abs().max()) < 1e-9  # a flat picture has no marks
    if kind == "linear":
        assert float(model.centre.norm()) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_read_is_a_projection(kind: str) -> None:
    model = FactorClassifier(kind, seed=2)
    change = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    read = model.on_target(change)
    assert torch.allclose(model.on_target(read), read)
    images = 0.1 * torch.randn(3, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(model.gap(images + change), model.gap(images + read))  # the rest is not seen
    basis = model.patterns.flatten(1)
    basis = (model.centre @ basis)[None] if kind == "linear" else basis
    wanted = torch.linalg.lstsq(basis.T, change.flatten(1).T).solution.T @ basis
    assert torch.allclose(read.flatten(1), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_edges_and_colours_elsewhere_do_not_matter(kind: str) -> None:
    problem = MAKE[kind]().problem(0)
    model, images = problem.model, problem.inputs.images
    marked = (model.patterns != 0).any(1).any(0)
    assert float(marked.double().mean()) == pytest.approx(4 / 16)
    other = torch.where(marked, images, torch.rand_like(images) * 2 - 1)
    assert torch.allclose(model(other), model(images), atol=1e-5)
    assert bool((problem.truth["change"][:, :, ~marked] == 0).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parameters", [{}, {"marks": 1}, {"marks": 16}, {"size": 24}, {"size": 64}])
def test_images_and_their_counterfactuals_keep_to_the_range(kind: str, parameters: dict[str, int]) -> None:
    made = MAKE[kind](**parameters)
    for seed in range(3):
        problem = made.problem(seed)
        images, data = problem.inputs.images, problem.decided["data"]
        assert bool((problem.model(images).argmax(1) == 0).all())
        assert torch.equal(problem.model(data.images).argmax(1), data.labels)
        assert int(data.labels.sum()) == 32
        for shown in (images, data.images, images + (1 + OVER) * problem.truth["change"]):
            assert float(shown.abs().max()) <= 1


@pytest.mark.parametrize("name", ["counterfactual-linear", "counterfactual-quadratic"])
def test_frame(name: str) -> None:
    made = task(name)
    rows = {}
    for who in WHO:
        scored = []
        for seed in range(5):
            problem = made.problem(seed)
            scored.append(made.score(problem, getattr(made, who)(problem)))
        rows[who] = {m.name: sum(s[m.name] for s in scored) / 5 for m in made.measures}
    assert rows["oracle"]["quality"] == pytest.approx(1 / (1 + OVER), abs=1e-5)
    assert rows["oracle"]["validity"] == 1
    assert rows["oracle"]["off-target"] < 1e-6
    assert rows["random"]["quality"] == 0
    assert rows["random"]["off-target"] > 0.99
    for who in ("heuristic", "constant"):  # they are of the target class, and that is all
        assert rows[who]["validity"] == 1
        assert rows[who]["quality"] < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_score_of_known_changes(kind: str) -> None:
    made = MAKE[kind](n=4)
    problem = made.problem(2)
    images, truth, oracle = problem.inputs.images, problem.truth["change"], made.oracle(problem)

    def scored(changed: torch.Tensor) -> dict[str, float]:
        return made.score(problem, dataclasses.replace(oracle, counterfactuals=changed.float()))

    assert scored(images) == {"quality": 0, "validity": 0, "proximity": 0, "off-target": 1}
    assert scored(images + 0.99 * truth)["validity"] == 0
    further = scored(images + 1.25 * truth)
    assert further["proximity"] == pytest.approx(0.8, abs=1e-3)
    assert further["off-target"] < 1e-6
    noise = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    noise = noise - problem.model.on_target(noise)
    aim = (1 + OVER) * truth
    noise = noise * (aim.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1))[:, None, None, None]
    both = scored(images + aim + noise)
    assert both["off-target"] == pytest.approx(0.5, abs=1e-3)
    assert both["proximity"] == pytest.approx(0.5**0.5, abs=2e-3)
    assert both["quality"] == pytest.approx(0.5**1.5, abs=2e-3)
    beyond = images + aim
    beyond[:, 0, 0, 0] += 3  # where nothing is read
    assert scored(beyond)["validity"] == 0
    with pytest.raises(InputError, match="judges a Counterfactual"):
        made.score(problem, images)
    with pytest.raises(InputError, match="images are"):
        made.score(problem, oracle[:2])


def test_one_mark_makes_the_difference_where_it_shall() -> None:
    model = FactorClassifier("quadratic", seed=0)
    samples = planted(model, torch.zeros(32, dtype=torch.long), seed=0, one=True)
    away = (model.factors(samples.images) - model.centre).abs()
    assert bool(((away > 1e-5).sum(1) == 1).all())
    assert len({int(i) for i in away.argmax(1)}) == 4
    assert float(away.amax(1).min()) > 1.19


# -- attributions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_are_gradients_integrated_from_the_nearest_counterfactual(kind: str) -> None:
    problem = CounterfactualAttribution(kind, n=4).problem(3)
    model, images = problem.model.double(), problem.inputs.images.double()
    start = images + problem.truth["change"]
    total, steps = torch.zeros_like(images), 64
    for step in range(steps):
        at = (start + (step + 0.5) / steps * (images - start)).requires_grad_()
        (grad,) = torch.autograd.grad(gap(model, at).sum(), at)
        total += grad / steps
    wanted = ((images - start) * total).sum(1)
    true = problem.truth["contribution"]
    assert torch.allclose(true, wanted, atol=1e-6)
    assert torch.allclose(true.sum((1, 2)), gap(model, images), atol=1e-5)
    assert torch.equal(true.sign().sum((1, 2)).sign(), gap(model, images).sign())
    assert bool(((true >= 0).flatten(1).all(1) | (true <= 0).flatten(1).all(1)).all())
    assert float(true[~problem.truth["region"]].abs().max()) < 1e-12  # images are in single


@pytest.mark.parametrize(("kind", "cells"), [("quadratic", 1), ("linear", 4)])
def test_the_region_is_the_cells_of_what_changes(kind: str, cells: int) -> None:
    problem = CounterfactualAttribution(kind).problem(0)
    region, change = problem.truth["region"], problem.truth["change"]
    assert torch.equal(region.flatten(1).sum(1), torch.full((16,), cells * 64))
    assert float(change.abs().sum(1)[~region].max()) < 1e-6
    for image in range(16):
        inside = [bool(region[image, 8 * r, 8 * c]) for r, c in problem.model.cells]
        assert sum(inside) == cells


@pytest.mark.parametrize("kind", KINDS)
def test_frame_of_attributions(kind: str) -> None:
    made = task("counterfactual-attribution", classifier=kind)
    rows = {}
    for who in WHO:
        scored = []
        for seed in range(5):
            problem = made.problem(seed)
            scored.append(made.score(problem, getattr(made, who)(problem)))
        rows[who] = {m.name: sum(s[m.name] for s in scored) / 5 for m in made.measures}
    assert rows["oracle"] == pytest.approx(PERFECT)
    assert rows["heuristic"]["weights"] >= max(rows["random"]["weights"], rows["constant"]["weights"], 0)
    for who in ("random", "heuristic", "constant"):
        assert abs(rows[who]["weights"]) < 0.1, who
        assert abs(rows[who]["correlation"]) < 0.1, who
        assert abs(rows[who]["localisation"]) < 0.1, who
        assert rows[who]["iou"] < 0.3, who


@pytest.mark.parametrize("seed", range(3))
def test_a_baseline_that_is_the_counterfactual_beats_a_blank_one(seed: int) -> None:
    """What the task is for: the same method, integrated gradients, from the right baseline and from zero."""
    made = CounterfactualAttribution()
    problem = made.problem(seed)
    images, scored = problem.inputs.images, {}
    for name, start in (("right", images + problem.truth["change"].float()), ("blank", torch.zeros_like(images))):
        total = torch.zeros_like(images)
        for step in range(32):
            at = (start + (step + 0.5) / 32 * (images - start)).requires_grad_()
            (grad,) = torch.autograd.grad(problem.model(at)[:, TARGET].sum(), at)
            total += grad / 32
        scored[name] = made.score(problem, Attribution((images - start) * total, TARGET))
    assert scored["right"] == pytest.approx(PERFECT, abs=1e-3)
    assert scored["blank"]["weights"] < 0.6
    assert scored["blank"]["correlation"] < 0.6
    assert scored["right"]["iou"] > 2 * scored["blank"]["iou"]
    ours = create("explainer/integrated-gradients", baseline="mid").explain(problem.model, images, target=TARGET)
    assert made.score(problem, ours) == pytest.approx(scored["blank"], abs=0.02)


@pytest.mark.parametrize("name", ["saliency", "cam", "occlusion"])
def test_ordinary_attributions_take_part(name: str) -> None:
    made = CounterfactualAttribution(n=4)
    problem = made.problem(0)
    found = create(f"explainer/{name}").explain(problem.model, problem.inputs, target=problem.target)
    scored = made.score(problem, found)
    assert all(math.isfinite(v) for v in scored.values())
    assert scored["localisation"] > 0.1
    if name == "saliency":  # the right place, and no contribution
        assert scored["localisation"] == pytest.approx(1, abs=1e-4)
        assert abs(scored["correlation"]) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_one_sign_for_all_images_decides_nothing(kind: str, seed: int) -> None:
    """The squared gradient has the right weights, and neither it nor its negative is punished or paid for its sign."""
    made = CounterfactualAttribution(kind)
    problem = made.problem(seed)
    images = problem.inputs.images.clone().requires_grad_()
    (grad,) = torch.autograd.grad(problem.model(images)[:, TARGET].sum(), images)
    for sign in (1, -1):
        scored = made.score(problem, Attribution(sign * grad.square().sum(1), TARGET))
        assert scored["weights"] == pytest.approx(1, abs=1e-4)
        assert scored["correlation"] == pytest.approx(0, abs=1e-4)
        assert scored["sign"] == 0.5


def test_rows_and_seeds_say_nothing_of_the_classes() -> None:
    orders = []
    for seed in range(8):
        problem = CounterfactualAttribution().problem(seed)
        assert problem.inputs.labels is None
        orders.append((problem.truth["contribution"].sum((1, 2)) > 0).int())
    rows = torch.stack(orders)
    assert rows.sum(1).tolist() == [8] * 8
    assert len(rows.unique(dim=0)) == 8
    assert float((rows.double().mean(0) - 0.5).abs().max()) < 0.5  # no row is always of one class


def test_score_of_attributions_reads_signs_and_refuses() -> None:
    made = CounterfactualAttribution(n=4)
    problem = made.problem(1)
    truth = made.oracle(problem)
    turned = made.score(problem, dataclasses.replace(truth, maps=-truth.maps))
    assert turned == pytest.approx({**PERFECT, "correlation": -1, "sign": 0})
    signless = made.score(problem, dataclasses.replace(truth, maps=truth.maps.abs()))
    assert signless == pytest.approx({**PERFECT, "correlation": 0, "sign": 0.5})
    larger = made.score(problem, dataclasses.replace(truth, maps=5 * truth.maps))
    assert larger == pytest.approx(made.score(problem, truth))
    nothing = made.score(problem, dataclasses.replace(truth, maps=torch.zeros_like(truth.maps)))
    assert nothing["weights"] == nothing["correlation"] == nothing["sign"] == 0
    assert nothing["localisation"] < 0
    with pytest.raises(InputError, match="judges an Attribution"):
        made.score(problem, truth.maps)
    with pytest.raises(InputError, match="maps are"):
        made.score(problem, truth[:2])
    with pytest.raises(InputError, match="not finite"):
        made.score(problem, dataclasses.replace(truth, maps=truth.maps * torch.nan))


@pytest.mark.parametrize("kind", [*MAKE.values(), CounterfactualAttribution])
def test_same_seed_same_problem(kind: type) -> None:
    made = kind(n=4)
    one, two, other = made.problem(7), made.problem(7), made.problem(8)
    assert torch.equal(one.inputs.images, two.inputs.images)
    assert torch.equal(one.model.marks.weight, two.model.marks.weight)
    assert torch.equal(one.truth["change"], two.truth["change"])
    assert not torch.equal(one.inputs.images, other.inputs.images)
    assert not torch.equal(one.model.marks.weight, other.model.marks.weight)


def test_parameters_out_of_bounds_are_refused() -> None:
    for wrong in ({"marks": 0}, {"marks": 17}, {"size": 20}, {"size": 30}, {"n": 0}, {"data": 2}):
        with pytest.raises((ValueError, InputError)):
            LinearCounterfactual(**wrong)
    for wrong in ({"classifier": "cubic"}, {"n": 0}, {"marks": 17}):
        with pytest.raises((ValueError, InputError)):
            CounterfactualAttribution(**wrong)
