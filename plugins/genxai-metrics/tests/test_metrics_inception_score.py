"""Inception score: against its formula and torchmetrics, its bounds and error, how it is fooled, and its refusals."""

import math
import pickle

import pytest
import torch
from genxai_metrics.inception_score import InceptionScore, log_inception_score
from torch import nn
from torchmetrics.image.inception import InceptionScore as LibraryScore

import genxai_core as gx
from genxai_core.errors import InputError, MissingCapability


class Linear(gx.Discriminator):
    """Logits are a fixed linear map of the pixels."""

    image_shape = (1, 4, 4)

    def __init__(self, classes=5):
        super().__init__()
        self.map = nn.Linear(16, classes)
        with torch.no_grad():
            self.map.weight.copy_(torch.randn(classes, 16, generator=torch.Generator().manual_seed(0)))
            self.map.bias.zero_()

    def forward(self, images):
        return self.map(images.flatten(1))


class Headless(Linear):
    def forward(self, images):
        return images


def noise(n, seed=0):
    return gx.Samples(torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed)), value_range=(-1.0, 1.0))


def logits(n, seed, classes=5, scale=3.0):
    return scale * torch.randn(n, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def inception_score(rows):
    found = log_inception_score(rows)
    return math.exp(found.value), math.exp(found.value) * found.error


def literal(rows):
    """Return the paper's formula, one probability at a time."""
    each = []
    for row in rows.tolist():
        total = math.fsum(math.exp(v) for v in row)
        each.append([math.exp(v) / total for v in row])
    mean = [math.fsum(column) / len(each) for column in zip(*each, strict=True)]
    divergences = [math.fsum(p * math.log(p / q) for p, q in zip(row, mean, strict=True)) for row in each]
    return math.exp(math.fsum(divergences) / len(each))


def test_the_value_is_the_formula_s():
    rows = logits(40, 0)
    assert inception_score(rows)[0] == pytest.approx(literal(rows), rel=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the library's: it keeps features, and one split has no spread
def test_the_value_is_torchmetrics_on_one_split():
    rows = logits(300, 0, classes=20)
    library = LibraryScore(feature=nn.Identity(), splits=1)
    library.update(rows)
    assert inception_score(rows)[0] == pytest.approx(float(library.compute()[0]), rel=1e-6)


def test_it_lies_between_one_and_the_number_of_classes():
    same = logits(1, 0).repeat(50, 1)
    assert inception_score(same) == pytest.approx((1.0, 0.0), abs=1e-9)
    sure = torch.eye(5, dtype=torch.float64).repeat(10, 1) * 1e4  # so sure that the other probabilities are 0
    value, error = inception_score(sure)
    assert value == pytest.approx(5.0, rel=1e-12)
    assert error == pytest.approx(0.0, abs=1e-9)
    assert inception_score(sure[:, [0] * 5]) == pytest.approx((1.0, 0.0), abs=1e-9)  # every class as likely


def test_one_image_per_class_reaches_the_number_of_classes():
    per_class = torch.linalg.pinv(Linear().map.weight.detach()).T * 50  # images on which one logit is 50, the others 0
    samples = gx.Samples(per_class.reshape(5, 1, 4, 4).repeat(6, 1, 1, 1), value_range=(-1.0, 1.0))
    assert InceptionScore(Linear()).measure(generated=samples)["inception_score"] == pytest.approx(5.0, rel=1e-4)


def test_the_error_is_the_jackknife_s_nearly_and_the_spread_of_repeated_draws():
    rows = logits(150, 0)
    without = torch.tensor([inception_score(torch.cat([rows[:i], rows[i + 1 :]]))[0] for i in range(150)])
    assert inception_score(rows)[1] == pytest.approx(float(149 * without.var(unbiased=False)) ** 0.5, rel=0.02)
    values, errors = torch.tensor([inception_score(logits(150, s)) for s in range(300)]).T
    assert float(errors.square().mean().sqrt() / values.std()) == pytest.approx(1, abs=0.15)


def test_number_of_updates_order_and_merging_make_no_difference():
    generated = noise(50)
    whole = InceptionScore(Linear()).measure(generated=generated)
    with torch.no_grad():
        assert whole["inception_score"] == pytest.approx(literal(Linear()(generated.images).double()), rel=1e-6)
    metric, other = InceptionScore(Linear()), InceptionScore(Linear())
    for start in range(0, 30, 10):
        metric.update(generated=generated[start : start + 10])
    other.update(generated=generated[30:])
    metric.merge(pickle.loads(pickle.dumps(other)))
    assert metric.compute() == pytest.approx(whole, rel=1e-6)
    assert InceptionScore(Linear()).measure(generated=generated[::-1]) == pytest.approx(whole, rel=1e-6)
    metric.reset()
    with pytest.raises(InputError, match="has seen 0"):
        metric.compute()
    assert set(whole) == set(InceptionScore.higher_is_better)


def test_a_single_logit_is_refused():
    metric = gx.create("metric/inception-score", extractor=Linear(classes=1))
    with pytest.raises(MissingCapability, match=r"Linear has one logit .*: use a classifier"):
        metric.measure(generated=noise(5))


def test_what_is_no_discriminator_is_refused():
    with pytest.raises(MissingCapability, match="a Conv2d is no discriminator: use a classifier"):
        gx.create("metric/inception-score", extractor=nn.Conv2d(1, 1, 1))


def test_malformed_logits_other_images_and_too_few_are_refused():
    with pytest.raises(InputError, match=r"the extractor's logits are \[5, 1, 4, 4\], not \[5, F\]"):
        InceptionScore(Headless()).measure(generated=noise(5))
    with pytest.raises(InputError, match=r"generated images are in \(0\.0, 1\.0\)"):
        InceptionScore(Linear()).measure(generated=noise(5).rescale((0.0, 1.0)))
    with pytest.raises(InputError, match="needs at least 2 generated images, and has seen 1"):
        InceptionScore(Linear()).measure(generated=noise(1))
    with pytest.raises(InputError, match="takes exactly generated; check: real"):
        InceptionScore(Linear()).measure(generated=noise(5), real=noise(5))


def test_one_per_class_repeats_the_first_image_of_each():
    labels = torch.tensor([2, 0, 2, 1, 0])
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 4, 4) / 5
    real = gx.Samples(images, labels=labels, value_range=(-1.0, 1.0), class_names=("a", "b", "c"))
    picked = gx.create("dataset/one-per-class", n=7).load(real=real)
    assert picked.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert picked.images[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.6, 0.0, 0.2, 0.6, 0.0, 0.2])
    assert picked.class_names == ("a", "b", "c")


def test_one_per_class_refuses_images_without_labels_and_use_before_loading():
    dataset = gx.create("dataset/one-per-class")
    with pytest.raises(InputError, match="dataset/one-per-class needs images with labels"):
        dataset.load(real=noise(5))
    for use in (lambda: len(dataset), lambda: dataset[0]):
        with pytest.raises(InputError, match="holds no images until it has picked them"):
            use()
    with pytest.raises(gx.errors.BadParameter, match="n 0 must be at least 1"):
        gx.create("dataset/one-per-class", n=0)
