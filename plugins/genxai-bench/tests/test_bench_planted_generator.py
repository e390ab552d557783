"""The planted generator as a model: samples, masks, gradients, and colours that can be read back."""

import itertools

import pytest
import torch
from genxai_bench.models.palette import COLOURS, GRAY, NEAR, PaletteSegmenter
from genxai_bench.models.planted_generator import LAYERS, PlantedGenerator, opacity
from genxai_bench.models.planted_roles import Role, draw_roles
from genxai_bench.tasks.units import PlantedUnits

from genxai_core import Samples, models, units
from genxai_core.errors import InputError


@pytest.fixture(scope="module")
def problem():
    return PlantedUnits().problem(0)


def test_the_generator_has_the_capabilities(problem):
    model = problem.model
    assert isinstance(model, models.Generator)
    assert isinstance(model, models.HasLatents)
    assert isinstance(model, models.CanSample)
    assert set(LAYERS) <= {name for name, _ in model.named_modules()}
    assert problem.inputs.concepts == ("red", "green", "blue", "yellow")
    assert float(problem.inputs.images.abs().max()) <= 1
    with pytest.raises(InputError, match="unconditional"):
        model.sample(2, 0, labels=torch.tensor([0, 1]))
    with pytest.raises(InputError, match="takes latents"):
        model(torch.zeros(2, 3))


def test_a_sample_depends_on_seed_and_index_alone(problem):
    whole, model = problem.model.sample(9, seed=4), problem.model
    parts = Samples.concat([model.sample(4, seed=4), model.sample(5, seed=4, start=4)])
    assert torch.equal(whole.latents, parts.latents)
    assert torch.equal(whole.masks, parts.masks)
    torch.testing.assert_close(whole.images, parts.images, atol=1e-6, rtol=0)
    assert not torch.equal(model.sample(9, seed=5).latents, whole.latents)


def test_masks_stay_true_when_the_generator_is_edited(problem):
    ((unit, concept),) = [
        (u, r.concept) for u, r in enumerate(problem.truth["roles"]["layer2"]) if (r.kind, r.part) == ("cause", "first")
    ]
    with units.edit(problem.model, "layer2", [unit]):
        samples = problem.model.sample(4, seed=0)
    assert samples.masks[:, concept].sum((1, 2)).unique().tolist() == [12]


def test_gradients_reach_the_latents(problem):
    model = PlantedUnits().problem(1).model.double()
    latents = model.sample_latents(3, seed=0).double().requires_grad_()
    image = model(latents)
    (gradient,) = torch.autograd.grad(image.square().sum(), latents)
    assert bool(gradient.isfinite().all())
    assert bool((gradient[:, -6:] != 0).all())  # the background
    keys, level = 16, 4
    assert bool((gradient[:, keys + 2 * level : keys + 3 * level] != 0).any(1).all())  # the shade of the concepts
    step = 1e-6 * torch.randn(latents.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step[:, : keys + 2 * level] = 0  # where objects lie moves in steps
    with torch.no_grad():
        numeric = (model(latents + step).square().sum() - model(latents - step).square().sum()) / 2
    assert float((gradient * step).sum()) == pytest.approx(float(numeric), rel=1e-4)


def test_units_are_in_another_order_for_another_seed():
    task = PlantedUnits()
    orders = [[r.kind for r in task.problem(seed).truth["roles"][layer]] for seed in range(5) for layer in LAYERS]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_the_palette_is_far_enough_apart():
    colours = torch.tensor(list(COLOURS.values()))
    assert float(torch.pdist(colours).min()) > 2 * NEAR
    faintest = float(opacity(opacity(torch.tensor(0.9))))
    corners = torch.tensor(list(itertools.product((-GRAY, GRAY), repeat=3)))
    assert float(torch.cdist(colours, corners).min()) > NEAR
    assert (1 - faintest) * float(torch.cdist(colours, torch.cat([colours, corners])).max()) < NEAR


def test_the_segmenter_refuses():
    with pytest.raises(ValueError, match="pink"):
        PaletteSegmenter(("pink",))
    with pytest.raises(InputError, match="RGB"):
        PaletteSegmenter(("red",)).segment(Samples(torch.zeros(1, 1, 8, 8), value_range=(-1, 1)))
    blue = torch.tensor(COLOURS["blue"])[None, :, None, None].expand(1, 3, 4, 4)
    found = PaletteSegmenter(("red", "blue")).segment(Samples(blue / 2 + 0.5, value_range=(0, 1)))
    assert found[:, 1].all()
    assert not found[:, 0].any()


def test_roles_that_do_not_make_a_generator_are_refused():
    roles = draw_roles(0, 0, units=8, concepts=2, redundant=0, split=0, decoys=0, extra=[])
    with pytest.raises(ValueError, match="2 layers"):
        PlantedGenerator([roles], concepts=2)
    with pytest.raises(ValueError, match="0 units draw concept 1"):
        PlantedGenerator([[Role("cause", 0)], [Role("cause", 0)]], concepts=2)
