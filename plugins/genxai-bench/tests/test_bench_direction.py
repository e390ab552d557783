"""The planted direction: what is constructed holds, by intervention on the pictures and by closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from genxai_bench.models.factor_generator import FACTORS, MIDDLE, REACH, FactorGenerator
from genxai_bench.tasks import task
from genxai_bench.tasks.direction import CorrelatedDirection, PlantedDirection, SpuriousDirection, leakage_matrix

from genxai_core import Direction, models
from genxai_core.errors import InputError

K = len(FACTORS)
MODES = ("orthogonal", "correlated", "spurious")


def measured(images: torch.Tensor) -> dict[str, float]:
    """Read the factors off a picture without texture, knowing only that it is a disc before a flat background."""
    image = images[0].double()
    tone = image[:, 0, 0]
    cover = (image - tone[:, None, None]).abs().sum(0)
    cover = cover / cover.max()
    place = (torch.arange(image.shape[1], dtype=torch.float64) + 0.5) / image.shape[1]
    colour = image.flatten(1)[:, cover.argmax()]
    return {
        "x": float((cover.sum(0) * place).sum() / cover.sum()),
        "y": float((cover.sum(1) * place).sum() / cover.sum()),
        "size": float((cover.mean() / math.pi).sqrt()),
        "warmth": float(colour[0] - colour[2]) / 2,
        "lightness": float(colour[1]),
        "background": float(tone.mean()),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", range(K))
def test_moving_along_the_truth_changes_one_factor_in_the_picture(mode: str, k: int) -> None:
    problem = PlantedDirection(mode, size=64).problem(3)
    truth, model = problem.truth["directions"].float(), problem.model
    start = torch.zeros(1, 16)  # no texture, every factor in the middle
    before, after = (measured(model(start + step * truth[k])) for step in (-0.5, 0.5))
    moved = {name: after[name] - before[name] for name in FACTORS}
    assert moved[FACTORS[k]] > 0.1 * REACH[k]
    for j, name in enumerate(FACTORS):
        if j != k:
            assert abs(moved[name]) < 0.02 * REACH[j], name


def test_the_picture_shows_the_factors() -> None:
    seen = measured(FactorGenerator(size=64)(torch.zeros(1, 16)))
    for name, middle, reach in zip(FACTORS, MIDDLE, REACH):
        assert seen[name] == pytest.approx(middle, abs=0.1 * reach), name


@pytest.mark.parametrize("dimensions", [6, 16, 128])
def test_the_truth_leaves_texture_and_other_factors_alone(dimensions: int) -> None:
    model = FactorGenerator(dimensions, cosine=0.6, seed=5)
    problem = PlantedDirection("correlated", dimensions=dimensions).problem(5)
    truth = problem.truth["directions"]
    assert torch.equal(model.exact_mixing, problem.truth["mixing"])
    gram = model.exact_mixing @ model.exact_mixing.T
    wanted = torch.full((K, K), 0.6, dtype=torch.float64).fill_diagonal_(1.0)
    assert torch.allclose(gram, wanted, atol=1e-12)
    effect = truth @ problem.truth["mixing"].T
    assert torch.allclose(effect, effect.diag().diag(), atol=1e-12)
    assert (effect.diag() > 0).all()
    assert (truth.float() @ model.rest.T).abs().sum() < 1e-4
    jacobian = torch.autograd.functional.jacobian(lambda z: model.factors(z[None])[0], torch.zeros(dimensions))
    reach = torch.tensor(REACH)[:, None]
    assert torch.allclose(jacobian * 1.5 / reach, model.mixing, atol=1e-6)


def test_no_other_direction_changes_one_factor_alone() -> None:
    """(f, t) is a bijection of z: its Jacobian at any latent has full rank, so the truth is unique up to length."""
    model = FactorGenerator(16, cosine=0.6, seed=1)
    assert torch.linalg.matrix_rank(torch.cat([model.mixing, model.rest])) == 16
    textures = FactorGenerator(128, seed=1).textures
    assert torch.linalg.matrix_rank(textures) == 122  # each latent of the rest is seen


def test_images_keep_their_range_and_carry_gradients() -> None:
    model = FactorGenerator(128, seed=2)
    latents = (3 * model.sample_latents(64, 0)).requires_grad_()
    images = model(latents)
    low, high = images.detach().aminmax()
    assert -1 < low < -0.3
    assert 0.5 < high < 1
    images.square().sum().backward()
    assert bool((latents.grad != 0).any(0).all())
    assert isinstance(model, models.HasLatents)
    assert isinstance(model, models.CanSample)
    assert torch.allclose(model.sample(4, 7, start=3).images[1:], model.sample(3, 7, start=4).images, atol=1e-6)
    assert torch.equal(model.sample_latents(4, 7, 3)[1:], model.sample_latents(3, 7, 4))


@pytest.mark.parametrize("seed", range(3))
def test_the_class_means_tend_to_what_is_said(seed: int) -> None:
    """How far the first thing that one tries stays from the truth, however many samples there are."""
    for made, wanted in (
        (PlantedDirection(n=5000, size=16), 1.0),
        (CorrelatedDirection(n=5000, size=16, cosine=0.6), (0.4 * (1 + 5 * 0.6) / (1 + 4 * 0.6)) ** 0.5),
        (SpuriousDirection(n=5000, size=16, rate=0.9), 1 / (1 + 0.8**2) ** 0.5),
    ):
        problem = made.problem(seed)
        if made.labels == "correlated":
            gram = problem.truth["mixing"] @ problem.truth["mixing"].T
            assert torch.linalg.inv(gram).diag().sqrt().reciprocal().tolist() == pytest.approx([wanted] * K)
        found = made.score(problem, made.heuristic(problem))["cosine"]
        assert found == pytest.approx(wanted, abs=0.02), made.name


def test_spurious_pairs_agree_at_the_rate_and_nothing_else_does() -> None:
    problem = SpuriousDirection(n=5000, size=16, rate=0.9).problem(0)
    signs = (problem.inputs.latents.double() @ problem.truth["mixing"].T).sign()
    agree = ((signs.T @ signs) / 5000 + 1) / 2
    off = agree[~torch.eye(K, dtype=torch.bool)]
    assert int((off > 0.88).sum()) == K
    assert float(off[off > 0.88].mean()) == pytest.approx(0.9, abs=0.01)
    assert float((off[off < 0.88] - 0.5).abs().max()) < 0.03


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dimensions", [16, 128])
def test_frame(mode: str, dimensions: int) -> None:
    made = PlantedDirection(mode, dimensions=dimensions, size=16)
    rows = {}
    for who in ("oracle", "random", "heuristic", "constant"):
        scored = []
        for seed in range(5):
            problem = made.problem(seed)
            scored.append(made.score(problem, getattr(made, who)(problem)))
        rows[who] = {name: sum(s[name] for s in scored) / 5 for name in ("cosine", "leakage")}
    assert rows["oracle"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert rows["oracle"]["leakage"] < 1e-5
    assert abs(rows["random"]["cosine"]) < 0.15
    assert rows["random"]["leakage"] == pytest.approx(1 - 1 / K, abs=0.1)
    assert abs(rows["constant"]["cosine"]) < 0.35
    assert rows["random"]["cosine"] + 0.2 < rows["heuristic"]["cosine"] < 0.99


def test_score_reads_names_and_signs() -> None:
    made = PlantedDirection(size=16)
    problem = made.problem(0)
    truth = made.oracle(problem)
    order = [3, 1, 0, 5, 4, 2]
    assert made.score(problem, truth[order]) == pytest.approx(made.score(problem, truth))
    turned = made.score(problem, Direction(-truth.vectors, FACTORS))
    assert turned["cosine"] == pytest.approx(-1)
    assert turned["leakage"] < 1e-6
    half = made.score(problem, truth[:3])
    assert half == pytest.approx({"cosine": 0.5, "leakage": 0.5}, abs=1e-6)
    joined = Direction.concat([truth, Direction(truth.vectors[:1], ("another",))])
    assert made.score(problem, joined) == made.score(problem, truth)
    with pytest.raises(InputError, match="named after"):
        made.score(problem, Direction(truth.vectors[:1], ("smile",)))
    with pytest.raises(InputError, match="latents"):
        made.score(problem, Direction(torch.eye(4)[:1], ("x",)))
    with pytest.raises(InputError, match="judges a Direction"):
        made.score(problem, truth.vectors)


def test_leakage_matrix_is_the_formula() -> None:
    mixing, vectors = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    vectors[2] = 0
    found = leakage_matrix(mixing, vectors)
    for i in range(4):
        effect = [abs(float(mixing[j] @ vectors[i])) for j in range(3)]
        for j in range(3):
            assert float(found[i, j]) == pytest.approx(effect[j] / sum(effect) if sum(effect) else 0.0)


def test_same_seed_same_problem_and_labels_say_the_factor() -> None:
    made = task("planted-direction", labels="spurious", n=32, size=16)
    one, two, other = made.problem(4), made.problem(4), made.problem(5)
    assert torch.equal(one.inputs.images, two.inputs.images)
    assert torch.equal(one.model.mixing, two.model.mixing)
    assert not torch.equal(one.inputs.latents, other.inputs.latents)
    named = one.inputs.class_names[1].removeprefix("more ")
    column = one.inputs.factors[:, FACTORS.index(named)]
    assert column[one.inputs.labels == 1].min() > column[one.inputs.labels == 0].max()
    assert int(one.inputs.labels.sum()) == 16
    assert torch.allclose(one.model(one.inputs.latents), one.inputs.images, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"labels": "other"}, {"n": 2}, {"cosine": 1.0}, {"rate": 0.3}, {"dimensions": 5}, {"dimensions": 150}]
)
def test_parameters_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, InputError)):
        PlantedDirection(**wrong)


def test_generator_refuses() -> None:
    with pytest.raises(InputError, match="no classes"):
        FactorGenerator().sample(1, 0, labels=torch.zeros(1, dtype=torch.long))
    with pytest.raises(InputError, match="rows coincide"):
        FactorGenerator(cosine=-0.2)
    with pytest.raises(InputError, match="size"):
        FactorGenerator(size=8)
