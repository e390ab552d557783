"""The planted code: the symmetry, the range and the least error are what is said, by brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from genxai_bench.models.slot_generator import BACKGROUND, WAVES, WIDTH, SlotGenerator, outside
from genxai_bench.tasks import task
from genxai_bench.tasks.code import APART, SOLVED, PlantedCode, latent_errors

from genxai_core import Inversion, models
from genxai_core.errors import InputError

WHO = ("oracle", "random", "heuristic", "constant")


def literal(latent: torch.Tensor, size: int) -> torch.Tensor:
    """One image as the docstring says: Gaussians, each cut to its lowest cosines."""
    place = [(i + 0.5) / size for i in range(size)]

    def cut(centre: float) -> list[float]:
        height = WIDTH * math.sqrt(2 * math.pi)
        terms = [height * (2 if u else 1) * math.exp(-0.5 * (math.pi * u * WIDTH) ** 2) for u in range(WAVES)]
        return [
            sum(c * math.cos(math.pi * u * centre) * math.cos(math.pi * u * t) for u, c in enumerate(terms))
            for t in place
        ]

    image = torch.full((3, size, size), BACKGROUND, dtype=torch.float64)
    for x, y, b, w in torch.tanh(latent.double() / 2).tolist():
        spot = torch.outer(torch.tensor(cut(0.5 + 0.3 * y)), torch.tensor(cut(0.5 + 0.3 * x)))
        for c, tint in enumerate((1 + 0.25 * w, 1.0, 1 - 0.25 * w)):
            image[c] += (0.4 + 0.2 * b) * tint * min(1.0, 2 / len(latent)) * spot
    return image


def search(model: SlotGenerator, images: torch.Tensor, latents: torch.Tensor, steps: int = 400) -> torch.Tensor:
    """Adam in double precision."""
    latents = latents.clone().requires_grad_()
    optimiser = torch.optim.Adam([latents], 0.1)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / steps) + 1e-4
        loss = (model(latents) - images).square().mean((1, 2, 3)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return latents.detach()


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_the_model_draws_the_formula_and_the_spots(slots: int) -> None:
    model = SlotGenerator(slots, 24)
    latents = model.sample_latents(3, 0)
    images = model(latents)
    for latent, image in zip(latents, images):
        assert torch.allclose(literal(latent, 24), image.double(), atol=1e-5)
    if slots == 1:  # the cosines left out matter little: the spot is a Gaussian
        x, y = model.places(latents)[0, 0]
        place = (torch.arange(24) + 0.5) / 24
        away = (place[:, None] - y).square() + (place - x).square()
        amplitude = 0.4 + 0.2 * torch.tanh(latents[0, 0, 2] / 2)
        wanted = BACKGROUND + amplitude * torch.exp(-away / (2 * WIDTH**2))
        assert float((images[0, 1] - wanted).abs().max()) < 0.02


@pytest.mark.parametrize("slots", [2, 3])
def test_permuted_slots_are_the_same_image_and_the_same_score(slots: int) -> None:
    model = SlotGenerator(slots)
    latents = model.sample_latents(4, 1)
    made = PlantedCode(slots=slots, n=4)
    problem = made.problem(0)
    oracle = made.oracle(problem)
    for order in itertools.permutations(range(slots)):
        assert torch.allclose(model(latents[:, list(order)]), model(latents), atol=1e-6)
        moved = dataclasses.replace(oracle, latents=oracle.latents[:, list(order)])
        assert made.score(problem, moved)["solved"] == 1


def test_nothing_but_a_permutation_gives_the_same_image() -> None:
    """Whatever latents a search from anywhere finds that draw the same picture are z* in some order."""
    made = PlantedCode(n=16)
    problem = made.problem(2)
    model = problem.model.double()
    truth = problem.truth["latents"].double().repeat(4, 1, 1)
    images = model(truth)
    start = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = search(model, images, start)
    same = (model(found) - images).square().mean((1, 2, 3)).sqrt() < 1e-5
    errors = latent_errors(found, truth)
    swapped = (found - truth).square().mean((1, 2)).sqrt() > 0.5
    assert int(same.sum()) > 30
    assert int((same & swapped).sum()) > 10  # both orders are found, and
    assert float(errors[same].max()) < 0.02  # nothing else


def test_outside_is_orthogonal_to_everything_that_is_drawn() -> None:
    model = SlotGenerator(3).double()
    pattern = outside(torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    drawn = model(3 * model.sample_latents(64, 0).double()) - BACKGROUND
    assert float(drawn.flatten(1).norm(dim=1).min()) > 1
    assert float((drawn.flatten(1) @ pattern.flatten(1).T).abs().max()) < 1e-4  # the model keeps its cosines in single
    assert torch.allclose(outside(pattern), pattern)
    assert float(outside(drawn).abs().max()) < 1e-6


def test_the_least_error_is_the_distance() -> None:
    made = PlantedCode(n=8, distance=0.05)
    problem = made.problem(1)
    beyond, truth = problem.truth["outside"], problem.truth["latents"]
    model, images = problem.model.double(), problem.inputs.images.double()
    at_truth = (model(truth.double()) - images).square().mean((1, 2, 3)).sqrt()
    assert int(beyond.sum()) == 4
    assert torch.allclose(at_truth, 0.05 * beyond.double(), atol=1e-6)
    # no search does better, and searches that end at the truth reach it
    starts = torch.cat([truth.double() + 0.3, torch.randn(24, 2, 4, dtype=torch.float64)])
    target = images.repeat(4, 1, 1, 1)
    found = search(model, target, starts)
    errors = (model(found) - target).square().mean((1, 2, 3)).sqrt().view(4, 8)
    assert float((errors - at_truth).min()) > -1e-7
    assert torch.allclose(errors.min(0).values, at_truth, atol=1e-4)
    # Pythagoras: the excess depends on z alone
    one = (model(found[:8]) - model(truth.double())).square().mean((1, 2, 3))
    assert torch.allclose(errors[0].square(), one + at_truth.square(), atol=1e-8)


@pytest.mark.parametrize("parameters", [{}, {"slots": 1}, {"slots": 4}, {"distance": 0.1}, {"distance": 0.01}])
def test_images_keep_to_their_range_and_spots_are_apart(parameters: dict[str, float]) -> None:
    made = PlantedCode(**parameters)
    for seed in range(4):
        problem = made.problem(seed)
        low, high = problem.inputs.images.aminmax()
        assert low >= -1
        assert high <= 1
        places = problem.model.places(problem.truth["latents"])
        for place in places if made.slots > 1 else []:
            assert torch.pdist(place).min() > APART
    far = 100 * problem.model.sample_latents(256, 9)  # spots at the corners of what is possible
    assert problem.model(far).abs().max() <= 1


def test_frame() -> None:
    made = task("planted-code")
    rows = {}
    for who in WHO:
        scored = []
        for seed in range(5):
            problem = made.problem(seed)
            scored.append(made.score(problem, getattr(made, who)(problem)))
        rows[who] = {m.name: sum(s[m.name] for s in scored) / 5 for m in made.measures}
    assert rows["oracle"] == {"solved": 1, "latent-error": 0, "image-error": 0, "flag": 1}
    assert rows["random"]["solved"] < 0.02
    assert 0.3 < rows["random"]["flag"] < 0.7
    assert rows["constant"]["flag"] == 0.5
    assert rows["constant"]["image-error"] == pytest.approx(1)
    assert rows["constant"]["latent-error"] == pytest.approx(1, abs=0.25)  # spots that are apart lie farther out
    assert rows["heuristic"]["image-error"] < 0.5
    assert rows["heuristic"]["solved"] < 0.1


def test_an_honest_search_solves_it() -> None:
    """A method that does look at the model is told apart from those that do not."""
    made = PlantedCode()
    problem = made.problem(0)
    images, model = problem.inputs.images, problem.model
    latents = search(model, images, torch.zeros(16, 2, 4) + 0.3 * model.sample_latents(16, 5), steps=300)
    drawn = model(latents).detach()
    errors = (drawn - images).square().mean((1, 2, 3)).sqrt()
    scored = made.score(problem, Inversion(images, drawn, latents, errors, errors > 0.01))
    assert scored["solved"] > 0.8


def test_score_counts_both_parts() -> None:
    made = PlantedCode(n=8)
    problem = made.problem(3)
    oracle = made.oracle(problem)
    none = dataclasses.replace(oracle, failed=torch.zeros(8, dtype=torch.bool))
    assert made.score(problem, none)["solved"] == 0.5
    assert made.score(problem, none)["flag"] == 0.5
    near = dataclasses.replace(oracle, latents=oracle.latents + 0.99 * SOLVED)
    far = dataclasses.replace(oracle, latents=oracle.latents + 1.01 * SOLVED)
    assert made.score(problem, near)["solved"] == 1
    assert made.score(problem, far)["solved"] == 0
    assert made.score(problem, far)["latent-error"] == pytest.approx(1.01 * SOLVED, rel=1e-3)
    lost, failed = oracle.latents.clone(), oracle.failed.clone()
    lost[0], failed[0] = torch.nan, True  # a search that diverged, which must be called failed
    found = made.score(problem, dataclasses.replace(oracle, latents=lost, failed=failed))
    assert found["solved"] == 7 / 8
    assert all(math.isfinite(v) for v in found.values())


def test_score_refuses_what_does_not_belong() -> None:
    made = PlantedCode(n=4)
    problem = made.problem(0)
    with pytest.raises(InputError, match="judges an Inversion"):
        made.score(problem, problem.truth["latents"])
    with pytest.raises(InputError, match="latents are"):
        made.score(problem, made.oracle(problem)[:2])


def test_same_seed_same_problem() -> None:
    made = PlantedCode(n=6)
    one, two, other = made.problem(7), made.problem(7), made.problem(8)
    assert torch.equal(one.inputs.images, two.inputs.images)
    assert torch.equal(one.truth["latents"], two.truth["latents"])
    assert not torch.equal(one.inputs.images, other.inputs.images)
    assert one.inputs.latents is None


def test_sampling_the_model_with_the_seed_does_not_meet_the_truth() -> None:
    """Contestants run with the problem's seed, and many begin with samples of the generator."""
    for seed in range(3):
        problem = PlantedCode().problem(seed)
        drawn = problem.model.sample_latents(4000, seed).flatten(1)
        assert float(torch.cdist(problem.truth["latents"].flatten(1), drawn).min()) > 0.1


def test_an_image_is_the_same_however_many_there_are() -> None:
    few, many = PlantedCode(n=4).problem(0), PlantedCode(n=8).problem(0)
    assert torch.equal(few.truth["latents"], many.truth["latents"][:4])


@pytest.mark.parametrize("wrong", [{"n": 3}, {"n": 0}, {"distance": 0.0}, {"distance": 0.2}, {"slots": 5}, {"size": 8}])
def test_parameters_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises((ValueError, InputError)):
        PlantedCode(**wrong)


def test_generator_offers_its_capabilities() -> None:
    model = SlotGenerator()
    assert isinstance(model, models.HasLatents)
    assert isinstance(model, models.CanSample)
    assert torch.allclose(model.sample(4, 7, start=3).images[1:], model.sample(3, 7, start=4).images, atol=1e-6)
    with pytest.raises(InputError, match="no classes"):
        model.sample(1, 0, labels=torch.zeros(1, dtype=torch.long))
