"""torchmetrics metrics as Metrics: equal to the library fed by hand, in batches, merged, and from a seed."""

import warnings

import pytest
import torch
from torch import nn

from genxai_core import Runtime, Samples, adapt
from genxai_core.errors import InputError

torchmetrics = pytest.importorskip("torchmetrics")
from torchmetrics.aggregation import MeanMetric, SumMetric  # noqa: E402
from torchmetrics.classification import MulticlassAccuracy  # noqa: E402
from torchmetrics.image import (  # noqa: E402
    MultiScaleStructuralSimilarityIndexMeasure,
    PeakSignalNoiseRatio,
    StructuralSimilarityIndexMeasure,
)
from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: E402
from torchmetrics.image.inception import InceptionScore  # noqa: E402
from torchmetrics.image.kid import KernelInceptionDistance  # noqa: E402
from torchmetrics.regression import PearsonCorrCoef  # noqa: E402


class Features(nn.Module):
    """Six features, with a batch norm that betrays train mode."""

    num_features = 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 6), nn.BatchNorm1d(6))

    def forward(self, images):
        return self.body(images)


def samples(seed, n=40, channels=3, size=16):
    images = torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Samples(images, value_range=(-1.0, 1.0))


def quiet(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics announces that KID and IS keep features
        return make()


def kid():
    return quiet(lambda: KernelInceptionDistance(feature=Features(), subsets=5, subset_size=20))


REAL, FAKE = samples(1), samples(2)
UNIT_REAL, UNIT_FAKE = REAL.rescale((0, 1)).images, FAKE.rescale((0, 1)).images
SMALL = Runtime(batch_size=16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StructuralSimilarityIndexMeasure(data_range=1.0),
        lambda: MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0, betas=(0.5, 0.5), kernel_size=3, sigma=0.5),
        lambda: PeakSignalNoiseRatio(data_range=1.0),
    ],
    ids=["ssim", "ms-ssim", "psnr"],
)
def test_pairs_equal_the_library(make):
    library = make()
    library.update(UNIT_FAKE, UNIT_REAL)
    adapted = adapt.metric(make(), feed="pairs", value_range=(0, 1))
    assert adapted.needs == {"real", "generated"}
    assert adapted.higher_is_better == {type(library).__name__: True}
    figures = adapted.measure(real=REAL, generated=FAKE, runtime=SMALL)
    assert list(figures) == [type(library).__name__]
    assert figures[type(library).__name__] == pytest.approx(float(library.compute()), rel=1e-5)


def test_fid_on_own_features_equals_the_library_and_leaves_the_features_as_they_were():
    network = Features()
    library = FrechetInceptionDistance(feature=Features().eval())
    library.update(UNIT_REAL, real=True)
    library.update(UNIT_FAKE, real=False)
    adapted = adapt.metric(FrechetInceptionDistance(feature=network), value_range=(0, 1))
    assert adapted.feed == "sets"
    before = {k: v.clone() for k, v in network.state_dict().items()}
    adapted.update(generated=FAKE, real=REAL)  # in train mode: the adapter evaluates, and puts it back
    assert adapted.compute()["FrechetInceptionDistance"] == pytest.approx(float(library.compute()), rel=1e-4)
    assert adapted.higher_is_better == {"FrechetInceptionDistance": False}
    assert network.body.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_kid_is_drawn_from_the_runtimes_seed_and_the_global_generator_is_left_alone():
    adapted = adapt.metric(kid(), value_range=(0, 1), names=("kid", "kid_std"))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = adapted.measure(real=REAL, generated=FAKE, runtime=Runtime(seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = adapted.measure(real=REAL, generated=FAKE, runtime=Runtime(seed=3))
    other = adapted.measure(real=REAL, generated=FAKE, runtime=Runtime(seed=4))
    assert first == again
    assert first != other
    assert list(first) == ["kid", "kid_std"]
    assert adapted.higher_is_better == {"kid": False, "kid_std": None}

    library = kid().eval()
    library.update(UNIT_REAL, real=True)
    library.update(UNIT_FAKE, real=False)
    torch.manual_seed(3)
    assert first["kid"] == pytest.approx(float(library.compute()[0]), rel=1e-4)


def test_a_metric_of_one_set_needs_no_real_images():
    adapted = adapt.metric(quiet(lambda: InceptionScore(feature=Features(), splits=2)), value_range=(0, 1))
    assert adapted.needs == {"generated"}
    figures = adapted.measure(generated=FAKE)
    assert list(figures) == ["InceptionScore", "InceptionScore_1"]
    assert 1 <= figures["InceptionScore"] <= 6  # exp of a KL divergence over six classes


def test_a_classifiers_accuracy():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.BatchNorm1d(4))
    labels = torch.arange(40) % 4
    expected = (model.eval()(REAL.images).argmax(1) == labels).float().mean()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapted = adapt.metric(MulticlassAccuracy(num_classes=4, average="micro"), feed="labels", names=["accuracy"])
    assert adapted.needs == {"model", "inputs", "labels"}
    for inputs in (REAL, REAL.images):
        figures = adapted.measure(model=model, inputs=inputs, labels=labels, runtime=SMALL)
        assert figures == {"accuracy": pytest.approx(float(expected))}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(InputError, match="one label for each of 40 images"):
        adapted.measure(model=model, inputs=REAL, labels=labels[:3])


def test_grey_images_reach_an_rgb_metric_when_said():
    grey = samples(4, channels=1)
    adapted = adapt.metric(FrechetInceptionDistance(feature=Features()), value_range=(0, 1), channels=3)
    figure = adapted.measure(real=grey, generated=grey)["FrechetInceptionDistance"]
    assert figure == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "feed"),
    [
        (lambda: StructuralSimilarityIndexMeasure(data_range=1.0), "pairs"),
        (lambda: StructuralSimilarityIndexMeasure(data_range=1.0, return_contrast_sensitivity=False), "pairs"),
        (lambda: PeakSignalNoiseRatio(data_range=1.0), "pairs"),
        (lambda: FrechetInceptionDistance(feature=Features()), "sets"),
        (kid, "sets"),
    ],
    ids=["ssim", "ssim-2", "psnr", "fid", "kid"],
)
@pytest.mark.parametrize("computed_before", [True, False])
def test_merging_equals_having_seen_both(make, feed, computed_before):
    halves = slice(0, 24), slice(24, 40)
    whole, a, b, fresh = (adapt.metric(make(), feed=feed, value_range=(0, 1)) for _ in range(4))
    for part, half in zip((a, b), halves):
        part.update(real=REAL[half], generated=FAKE[half])
        whole.update(real=REAL[half], generated=FAKE[half])
    if computed_before:
        a.update(real=REAL[:24], generated=FAKE[:24])
        whole.reset()
        for half in (halves[0], halves[0], halves[1]):
            whole.update(real=REAL[half], generated=FAKE[half])
        a.compute()
    second = b.compute() if feed == "pairs" else None
    a.merge(b)
    merged, expected = a.compute(), whole.compute()
    assert merged.keys() == expected.keys()
    for name, value in merged.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-6)  # KID too: its rows are in the same order
    fresh.merge(a)
    assert fresh.compute() == merged
    a.merge(adapt.metric(make(), feed=feed, value_range=(0, 1)))  # one that has seen nothing
    assert a.compute() == merged
    if second is not None:
        assert b.compute() == second  # what was merged is unharmed
    fresh.reset()
    assert not fresh.torchmetric.update_called
    assert a.compute() == merged  # what `fresh` took over was a copy


def test_what_cannot_be_merged_exactly_is_refused_and_stays_as_it_was():
    half, other = REAL[:20], REAL[20:]
    a, b = (adapt.metric(PeakSignalNoiseRatio(data_range=r), feed="pairs", value_range=(0, 1)) for r in (1.0, 2.0))
    a.update(real=half, generated=other)
    b.update(real=half, generated=other)
    before = a.compute()
    with pytest.raises(InputError, match=r"data_range.*cannot be merged exactly"):
        a.merge(b)
    assert a.compute() == before
    with pytest.raises(InputError, match="KernelInceptionDistance cannot be merged into PeakSignalNoiseRatio"):
        a.merge(adapt.metric(kid(), value_range=(0, 1)))


class Predict(nn.Module):
    def forward(self, images):
        return images.flatten(1).mean(1)


def test_a_running_correlation_has_no_exact_merge():
    a, b = (adapt.metric(PearsonCorrCoef(), feed="labels") for _ in range(2))
    for part in (a, b):
        part.update(model=Predict(), inputs=REAL, labels=torch.linspace(0, 1, 40))
    with pytest.raises(InputError, match="cannot be merged"):
        a.merge(b)


def test_wrong_metrics_and_arguments_are_refused():
    ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
    with pytest.raises(InputError, match="not a Features"):
        adapt.metric(Features(), value_range=(0, 1))
    with pytest.raises(InputError, match="adapt each of its metrics"):
        adapt.metric(torchmetrics.MetricCollection([ssim]), feed="pairs")
    with pytest.raises(ValueError, match=r"update\(preds, target\).*feed='pairs'.*feed='labels'"):
        adapt.metric(ssim, value_range=(0, 1))
    with pytest.raises(ValueError, match=r"update\(value\)"):
        adapt.metric(SumMetric(), value_range=(0, 1))
    with pytest.raises(ValueError, match="value_range="):
        adapt.metric(ssim, feed="pairs")
    with pytest.raises(ValueError, match="takes no value_range"):
        adapt.metric(MulticlassAccuracy(num_classes=4), feed="labels", value_range=(0, 1))
    with pytest.raises(ValueError, match="feed='both'"):
        adapt.metric(ssim, feed="both", value_range=(0, 1))
    with pytest.raises(ValueError, match="channels=2"):
        adapt.metric(ssim, feed="pairs", value_range=(0, 1), channels=2)


def test_wrong_inputs_and_figures_are_refused():
    adapted = adapt.metric(StructuralSimilarityIndexMeasure(data_range=1.0), feed="pairs", value_range=(0, 1))
    with pytest.raises(InputError, match="40 generated and 39 real"):
        adapted.update(real=REAL[:39], generated=FAKE)
    with pytest.raises(InputError, match="takes exactly generated, real"):
        adapted.update(real=REAL)
    with pytest.raises(InputError, match="real must be Samples or a Dataset, not Tensor"):
        adapted.update(real=REAL.images, generated=FAKE)
    each = StructuralSimilarityIndexMeasure(data_range=1.0, reduction="none")
    with pytest.raises(InputError, match=r"tensor \[40\]; give the metric a reduction"):
        adapt.metric(each, feed="pairs", value_range=(0, 1)).measure(real=REAL, generated=FAKE)
    with pytest.raises(InputError, match="gives 2 figures, names has 1"):
        adapt.metric(kid(), value_range=(0, 1), names=["kid"]).measure(real=REAL, generated=FAKE)


class Spread(torchmetrics.Metric):
    """A user's own metric, with a dict of figures and a metric inside."""

    higher_is_better = True
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.mean = MeanMetric()

    def update(self, imgs):
        self.mean.update(imgs)

    def compute(self):
        return {"mean": self.mean.compute(), "twice": 2 * self.mean.compute()}


def test_a_dict_of_figures_and_a_metric_inside_a_metric():
    adapted = adapt.metric(Spread(), value_range=(0, 1))
    figures = adapted.measure(generated=FAKE, runtime=SMALL)
    mean = float(UNIT_FAKE.mean())
    assert figures == {"mean": pytest.approx(mean, rel=1e-5), "twice": pytest.approx(2 * mean, rel=1e-5)}
    assert adapted.higher_is_better == {"mean": True, "twice": True}
