"""explainer/realism against a literal version of the equation, at its ties and edges, and where it fails."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from genxai_correction import realism as module
from genxai_correction.realism import Realism, realism
from torch import nn

from genxai_core import Discriminator, Runtime, Samples, create, draws
from genxai_core.errors import BadParameter, InputError, MissingCapability
from genxai_core.testing import LinearDiscriminator, PatchDataset

RUNTIME = Runtime(device="cpu", quiet=True)


class Pixels(Discriminator):
    """Features are the pixels."""

    class_names = ("a", "b", "c")

    def features(self, images):
        return images.flatten(1)

    def forward(self, images):
        return images.flatten(1)[:, :3]


def samples(rows):
    return Samples(torch.as_tensor(rows, dtype=torch.float32)[:, None, None, :], value_range=(-1.0, 1.0))


def literal(generated, real, k):
    """Equation 3, word by word, over plain lists."""
    rows = [[float(v) for v in row] for row in real]
    radii = []
    for i, row in enumerate(rows):
        others = sorted(math.dist(row, other) for j, other in enumerate(rows) if j != i)
        radii.append(others[k - 1])
    median = sorted(radii)[(len(radii) - 1) // 2]
    scores = []
    for point in generated:
        point = [float(v) for v in point]
        best = 0.0
        for row, radius in zip(rows, radii):
            if radius <= median:
                apart = math.dist(point, row)
                best = max(best, math.inf if apart == 0 else radius / apart)
        scores.append(best)
    return scores


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("n", [6, 11, 24])
def test_it_is_the_equation(k, n):
    real, generated = draws.normal(n, range(n), (4,)).double(), draws.normal(1, range(17), (4,)).double()
    found = realism(generated, real, k)
    assert found.tolist() == pytest.approx(literal(generated, real, k), rel=1e-12)


def test_the_half_with_the_large_balls_does_not_count():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0], [200.0], [300.0]]).double()
    # the outlier at 200 has a ball of radius 100, which holds 150; only the four to the left count
    (found,) = realism(torch.tensor([[150.0]]).double(), real, 1).tolist()
    assert found == pytest.approx(1 / 147)


def test_of_several_with_the_radius_of_the_median_all_count():
    grid = torch.arange(5.0).double()[:, None]  # each has radius 1
    assert realism(torch.tensor([[4.5], [-0.5]]).double(), grid, 1).tolist() == [2.0, 2.0]


def test_copies_of_real_images_score_infinity_and_doubled_real_images_no_nan():
    real = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [5.0, 5.0]]).double()
    found = realism(torch.tensor([[0.0, 0.0], [3.0, 4.0], [5.0, 5.0]]).double(), real, 2)
    assert found[0] == torch.inf  # radius 0 and distance 0
    assert found[1] == 0  # all that counts has the radius 0
    assert found[2] == 0  # the copy of a real image whose ball does not count


def test_neither_chunks_nor_order_nor_company_matter(monkeypatch):
    real, generated = draws.normal(0, range(40), (9,)).double(), draws.normal(1, range(23), (9,)).double()
    whole = realism(generated, real, 3)
    assert torch.equal(realism(generated, real.flip(0), 3), whole)
    assert torch.equal(torch.cat([realism(row[None], real, 3) for row in generated]), whole)
    monkeypatch.setattr(module, "_CELLS", 100)
    assert torch.equal(realism(generated, real, 3), whole)


def test_scores_are_of_the_features_of_the_images_and_carry_the_images():
    real, generated = draws.uniform(0, range(12), (6,)), draws.uniform(1, range(5), (6,))
    found = Realism(samples(real), k=2).explain(Pixels(), samples(generated), runtime=RUNTIME)
    assert found.scores.tolist() == pytest.approx(literal(generated, real, 2), rel=1e-6)
    assert torch.equal(found.images[:, 0, 0], generated)
    assert found.value_range == (-1.0, 1.0)
    assert (found.notes["neighbour"], found.notes["real images"]) == (2, 12)


def test_real_images_of_their_kind_are_more_realistic_than_noise():
    real = PatchDataset(40)
    explainer = create("explainer/realism", real=real)
    noise = Samples(draws.normal(0, range(10), (1, 16, 16)).clamp(-1, 1), value_range=(-1.0, 1.0))
    for model, least in ((LinearDiscriminator(num_classes=3), 2), (Pixels(), 5)):
        good = explainer.explain(model, PatchDataset(10, seed=7), runtime=RUNTIME).scores
        bad = explainer.explain(model, noise, runtime=RUNTIME).scores
        assert good.median() > least * bad.median()


def test_a_model_on_the_way_is_left_as_it_was():
    model = LinearDiscriminator(num_classes=2).train()
    Realism(PatchDataset(8)).explain(model, PatchDataset(4, seed=1), runtime=RUNTIME)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


# -- what does not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"real": PatchDataset(3), "k": 3}, "3 real images have no neighbour number 3; give at least 4"),
        ({"real": PatchDataset(8), "k": 0}, "k 0 must be at least 1"),
    ],
)
def test_bad_parameters_are_told(params, said):
    with pytest.raises(BadParameter, match=said):
        create("explainer/realism", **params)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Samples(torch.rand(4, 1, 16, 16), value_range=(0.0, 1.0)), "images are in .*samples.rescale"),
        (PatchDataset(4, size=20), r"images are \(1, 20, 20\), the model takes \(1, 16, 16\)"),
        (Samples(torch.full((4, 1, 16, 16), torch.nan), value_range=(-1.0, 1.0)), "hold NaN or infinity"),
        (Samples(torch.full((4, 1, 16, 16), 200.0), value_range=(-1.0, 1.0)), "lie far outside|pixel values reach"),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        Realism(PatchDataset(8)).explain(LinearDiscriminator(), wrong, runtime=RUNTIME)
    with pytest.raises(InputError, match=said) as told:
        Realism(wrong).explain(LinearDiscriminator(), PatchDataset(4), runtime=RUNTIME)
    assert "real images" in str(told.value)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda images: images, r"features are \[8, 1, 16, 16\], not \[8, F\]; flatten them"),
        (lambda images: None, "features are NoneType"),
        (lambda images: images.flatten(1) / 0, "features of the real images hold NaN or infinity"),
    ],
)
def test_features_that_are_none_are_refused(broken, said):
    model = Pixels()
    model.features = broken
    with pytest.raises(InputError, match=said):
        Realism(PatchDataset(8)).explain(model, PatchDataset(4), runtime=RUNTIME)


class Striped(Discriminator):
    """A layer with one channel that responds to stripes, one that is constant; the logit sees neither."""

    class_names = ("real",)

    def __init__(self):
        super().__init__()
        self.stripes = nn.Conv2d(1, 2, (1, 2), bias=False)
        with torch.no_grad():
            self.stripes.weight.copy_(torch.tensor([[[[1.0, -1.0]]], [[[0.0, 0.0]]]]))

    def forward(self, images):
        return self.stripes(images).flatten(1)[:, :1] * 0 + images.mean((1, 2, 3))[:, None]


def test_a_layer_counts_by_the_mean_and_spread_of_its_channels_over_that_of_the_real_ones():
    torch.manual_seed(0)
    real, shown = torch.rand(12, 1, 3, 5) - 0.5, torch.rand(4, 1, 3, 5) - 0.5
    model = Striped().eval()
    given = Samples(real, value_range=(-1, 1))
    found = Realism(real=given, k=2, layer="stripes").explain(
        model, Samples(shown, value_range=(-1, 1)), runtime=RUNTIME
    )

    def literal_features(images):
        rows = []
        for image in images[:, 0].double():
            values = [float(a - b) for row in image for a, b in itertools.pairwise(row)]
            mean = sum(values) / len(values)
            rows.append([mean, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))])
        return rows

    rows = literal_features(real)
    spreads = []
    for column in zip(*rows):
        mean = sum(column) / len(column)
        spreads.append(math.sqrt(sum((v - mean) ** 2 for v in column) / len(column)))
    scaled = [[[v / s for v, s in zip(row, spreads)] for row in part] for part in (literal_features(shown), rows)]
    assert found.scores.tolist() == pytest.approx(literal(*scaled, 2), rel=1e-4)
    assert found.notes["layer"] == "stripes"


def test_a_discriminator_without_features_needs_a_layer_that_it_has():
    real = Samples(torch.rand(6, 1, 3, 5), value_range=(-1, 1))
    with pytest.raises(MissingCapability, match="features"):
        Realism(real=real).explain(Striped().eval(), real, runtime=RUNTIME)
    with pytest.raises(InputError, match="'stripe'"):
        Realism(real=real, layer="stripe").explain(Striped().eval(), real, runtime=RUNTIME)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (
            nn.Sequential(nn.Flatten(1), nn.Unflatten(1, (3, 5))),
            r"returns .* \[6, 3, 5\], not floating-point \[N, U, h, w\]",
        ),
        (nn.Conv2d(1, 2, 1, bias=False).requires_grad_(False), "says the same of every real image; name another one"),
    ],
)
def test_a_layer_that_tells_nothing_or_is_no_map_is_refused(layer, said):
    for weight in layer.parameters():
        weight.zero_()
    model = Striped().eval()
    model.stripes = layer
    real = Samples(torch.rand(6, 1, 3, 5), value_range=(-1, 1))
    with pytest.raises(InputError, match=f"layer 'stripes' {said}"):
        Realism(real=real, layer="stripes").explain(model, real, runtime=RUNTIME)
