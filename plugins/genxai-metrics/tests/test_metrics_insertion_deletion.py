"""Insertion and deletion: against a literal version, all orders of a small image, ties, and the refusals."""

import itertools

import numpy as np
import pytest
import torch
from genxai_metrics.insertion_deletion import InsertionDeletion
from genxai_metrics.ranks import descending
from torch import nn

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError, TargetError

QUIET = gx.Runtime(device="cpu", quiet=True)


def literal(model, image, order, baseline, target, steps):
    """The two areas for one image [C, H, W], pixel by pixel, in the order of their flat indices."""
    areas = []
    for start, end in ((baseline, image), (image, baseline)):
        curve = []
        for k in range(steps + 1):
            altered = start.clone()
            for p in order[: round(k * len(order) / steps)]:
                row, column = divmod(int(p), image.shape[2])
                altered[:, row, column] = end[:, row, column]
            with torch.no_grad():
                curve.append(float(model(altered[None])[0, target]))
        areas.append(np.trapezoid(curve, dx=1 / steps))
    return areas


@pytest.mark.parametrize(("channels", "steps"), [(1, 36), (3, 7)])
def test_it_is_the_literal_version(oracles, channels, steps):
    model, images = oracles.Curved(channels).eval(), oracles.images_of(5, channels)
    maps = gx.draws.normal(1, range(5), (channels, 6, 6))
    metric = InsertionDeletion(baseline="mean", steps=steps)
    found = metric.measure(model=model, explanation=oracles.explained(maps, images, target=2), runtime=QUIET)
    rows = []
    for image, values in zip(images, maps):
        order = values.sum(0).flatten().argsort(descending=True)
        baseline = image.mean((1, 2), keepdim=True).expand_as(image)
        rows.append(literal(model, image, order, baseline, 2, steps))
    insertion, deletion = np.mean(rows, 0)
    assert found["insertion"] == pytest.approx(insertion, abs=1e-6)
    assert found["deletion"] == pytest.approx(deletion, abs=1e-6)
    assert found["difference"] == pytest.approx(insertion - deletion, abs=1e-6)
    assert found["insertion_se"] == pytest.approx(np.std(rows, 0, ddof=1)[0] / 5**0.5, abs=1e-6)


@pytest.mark.parametrize("baseline", ["zero", "low", "mid", "mean"])
def test_the_pixels_of_a_sum_are_the_best_of_all_orders_and_their_negatives_the_worst(oracles, baseline):
    """All 720 orders of 2×3 pixels."""
    model, image = oracles.Sum(), oracles.images_of(1, size=6)[:, :, :2, :3]
    orders = torch.tensor(list(itertools.permutations(range(6)))).double()
    maps = torch.cat([orders.view(-1, 2, 3), image[0].double(), -image[0].double()])
    metric = InsertionDeletion(baseline=baseline, steps=6)
    metric.update(model=model, explanation=oracles.explained(maps, image.expand(722, 1, 2, 3).clone()))
    rows = metric.per_image()
    insertion, deletion = rows["insertion"], rows["deletion"]
    assert insertion[-2] == pytest.approx(float(insertion.max()), abs=1e-6)
    assert deletion[-2] == pytest.approx(float(deletion.min()), abs=1e-6)
    assert insertion[-1] == pytest.approx(float(insertion.min()), abs=1e-6)
    assert deletion[-1] == pytest.approx(float(deletion.max()), abs=1e-6)
    assert float(insertion.max() - insertion.min()) > 0.1


def test_a_linear_model_has_a_closed_form(oracles):
    """f = Σx from 0, in single steps: insertion = Σ_r x_(r) (P − r + ½) / P, the largest first."""
    images = oracles.images_of(4)
    found = InsertionDeletion(baseline="zero", steps=36).measure(
        model=oracles.Sum(), explanation=oracles.explained(images[:, 0], images), runtime=QUIET
    )
    ordered = images.double().flatten(1).sort(1, descending=True).values
    weights = (36 - torch.arange(1, 37) + 0.5) / 36
    assert found["insertion"] == pytest.approx(float((ordered * weights).sum(1).mean()), abs=1e-5)
    assert found["deletion"] == pytest.approx(float((ordered * (1 - weights)).sum(1).mean()), abs=1e-5)


def test_ties_are_broken_at_random_by_image_and_seed(oracles):
    """A constant map is a random order, which is on average nothing; and no order is favoured."""
    images = oracles.images_of(400)
    explanation = oracles.explained(torch.zeros(400, 6, 6), images)
    metric = InsertionDeletion(baseline="zero", steps=6)
    found = metric.measure(model=oracles.Sum(), explanation=explanation, runtime=QUIET)
    assert abs(found["difference"]) < 4 * found["difference_se"] < 1
    assert found == metric.measure(model=oracles.Sum(), explanation=explanation, runtime=QUIET)
    other = metric.measure(model=oracles.Sum(), explanation=explanation, runtime=QUIET.with_(seed=1))
    assert other["insertion"] != found["insertion"]


def test_what_is_drawn_for_an_image_depends_on_the_image_and_not_on_its_place(oracles):
    images = oracles.images_of(50)
    metric, model = InsertionDeletion(), oracles.Sum()

    def addresses(rows):
        explanation = oracles.explained(images[rows, 0], images[rows])
        return metric._batch(explanation, model, None, rows, images.device, QUIET).addresses

    found = addresses(list(range(50)))
    assert len(set(found)) == 50
    assert addresses([7, 3, 7]) == [found[7], found[3], found[7]]


def test_a_tie_leaves_the_rest_of_the_order_alone():
    maps = torch.zeros(3, 6, 6)
    maps[:, 2, 3], maps[:, 4, 4] = 2.0, -1.0
    places = descending(maps.flatten(1), gx.draws.uniform(0, range(3), (36,)))
    assert places[:, 2 * 6 + 3].tolist() == [0, 0, 0]
    assert places[:, 4 * 6 + 4].tolist() == [35, 35, 35]
    assert (places.sort(1).values == torch.arange(36)).all()


def test_each_image_has_its_own_target(oracles):
    images = oracles.images_of(4)
    model, metric = oracles.Sum(classes=3), InsertionDeletion(baseline="zero")
    both = oracles.explained(images[:, 0], images, target=torch.tensor([0, 2, 0, 2]))
    metric.update(model=model, explanation=both)
    one = InsertionDeletion(baseline="zero")
    one.update(model=model, explanation=oracles.explained(images[:, 0], images, target=0))
    factors = torch.tensor([1.0, 3.0, 1.0, 3.0])
    torch.testing.assert_close(
        metric.per_image()["deletion"], one.per_image()["deletion"] * factors.double(), atol=1e-5, rtol=1e-6
    )


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_of_a_sigmoid_or_a_softmax(oracles, classes):
    model, images = oracles.Sum(classes), oracles.images_of(3) / 6
    metric = InsertionDeletion(baseline="zero", steps=1, output="probability")
    metric.update(model=model, explanation=oracles.explained(images[:, 0], images))
    ends = [model(x).double() for x in (images, torch.zeros_like(images))]
    probability = [e.sigmoid() if classes == 1 else e.softmax(1) for e in ends]
    expected = (probability[0][:, 0] + probability[1][:, 0]) / 2
    torch.testing.assert_close(metric.per_image()["insertion"], expected.detach(), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 500])
def test_it_does_not_depend_on_the_batch_size(oracles, batch_size):
    model, images = oracles.Curved(), oracles.images_of(7)
    explanation = oracles.explained(gx.draws.normal(1, range(7), (6, 6)).round(), images, target=1)  # with ties
    found = [
        InsertionDeletion().measure(model=model, explanation=explanation, runtime=QUIET.with_(batch_size=b))
        for b in (64, batch_size)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


class Lost(gx.Discriminator):
    """Is not finite where a pixel is exactly 0."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return (self.one / images).flatten(1).sum(1, keepdim=True)


def test_what_does_not_fit_is_refused(oracles):
    images = oracles.images_of(3)
    maps = images[:, 0]
    good = oracles.explained(maps, images)
    metric, model = InsertionDeletion(baseline="zero"), oracles.Sum()
    with pytest.raises(InputError, match="has no images"):
        metric.measure(model=model, explanation=gx.Attribution(maps))
    with pytest.raises(InputError, match="not a Tensor"):
        metric.measure(model=model, explanation=maps)
    with pytest.raises(InputError, match="empty"):
        metric.measure(model=model, explanation=good[:0])
    with pytest.raises(InputError, match="is a Identity; wrap it"):
        metric.measure(model=nn.Identity(), explanation=good)
    with pytest.raises(InputError, match=r"do not fit images \[3, 1, 6, 6\]"):
        metric.measure(model=model, explanation=oracles.explained(maps[:, :5], images))
    with pytest.raises(InputError, match="the model expects"):
        metric.measure(model=model, explanation=oracles.explained(maps, images, value_range=(0.0, 1.0)))
    with pytest.raises(TargetError, match=r"target 1 was explained; this model's outputs are 0…0"):
        metric.measure(model=model, explanation=oracles.explained(maps, images, target=1))
    with pytest.raises(InputError, match="NaN or infinity for images that were altered"):
        metric.measure(model=Lost(), explanation=good)
    with pytest.raises(InputError, match="at least 2 images"):
        metric.measure(model=model, explanation=good[:1])
    with pytest.raises(BadParameter, match="steps 0"):
        gx.create("metric/insertion-deletion", steps=0)
    with pytest.raises(InputError, match="merge metrics of one kind"):
        metric.merge(gx.create("metric/sparseness"))


def test_a_failed_update_keeps_what_was_there(oracles):
    images = oracles.images_of(3)
    metric = InsertionDeletion(baseline="zero")
    metric.update(model=oracles.Sum(), explanation=oracles.explained(images[:, 0], images))
    before = metric.compute()
    with pytest.raises(TargetError):
        metric.update(model=oracles.Sum(), explanation=oracles.explained(images[:, 0], images, target=3))
    assert metric.compute() == before
