"""KID: against a literal double loop and against torchmetrics, its floor and direction, its error, and its refusals."""

import copy
import math

import pytest
import torch
from genxai_metrics import kid
from genxai_metrics.kid import KID
from torch import nn
from torchmetrics.image.kid import poly_mmd

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError, MissingCapability


class Pixels(nn.Module):
    """Features are a fixed linear map of the pixels."""

    value_range = (-1.0, 1.0)

    def __init__(self, width=6):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)  # would notice a forward in train mode
        self.map = nn.Linear(16, width)
        with torch.no_grad():
            self.map.weight.copy_(torch.randn(width, 16, generator=torch.Generator().manual_seed(0)) / 4)
            self.map.bias.zero_()

    def features(self, images):
        return self.map(self.norm(images).flatten(1))


class Shaped(Pixels):
    image_shape = (1, 4, 4)


class Images(gx.Dataset):
    image_shape = (1, 4, 4)

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def _samples(self, rows):
        return self.samples[rows]


def noise(n, seed, shift=0.0, side=4):
    images = torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(seed)) / 3 + shift
    return gx.Samples(images, value_range=(-1.0, 1.0))


def features(n, seed, width=5, shift=0.0):
    return torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def kernel_distance(x, y, degree=3):
    found = kid.kernel_distance(x, y, degree)
    return found.value, found.error


def literal(x, y, degree=3):
    """Return the estimator as the paper writes it, one kernel value at a time."""
    x, y = x.tolist(), y.tolist()

    def k(a, b):
        return (math.fsum(p * q for p, q in zip(a, b)) / len(a) + 1) ** degree

    n, m = len(x), len(y)
    xx = math.fsum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = math.fsum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = math.fsum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def literal_jackknife(x, y, degree=3):
    def part(values):
        mean = sum(values) / len(values)
        return (len(values) - 1) / len(values) * sum((v - mean) ** 2 for v in values)

    without_x = [literal(torch.cat([x[:i], x[i + 1 :]]), y, degree) for i in range(len(x))]
    without_y = [literal(x, torch.cat([y[:j], y[j + 1 :]]), degree) for j in range(len(y))]
    return math.sqrt(part(without_x) + part(without_y))


# -- the formula ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "degree"), [(3, 3, 3), (9, 6, 3), (5, 11, 2), (7, 7, 1)])
def test_value_and_error_are_those_of_the_double_loop(n, m, degree):
    x, y = features(n, 0), features(m, 1, shift=0.3)
    value, error = kernel_distance(x, y, degree)
    assert value == pytest.approx(literal(x, y, degree), rel=1e-10, abs=1e-12)
    assert error == pytest.approx(literal_jackknife(x, y, degree), rel=1e-8)


def test_the_value_is_torchmetrics_on_all_samples():
    x, y = features(300, 0, width=64), features(300, 1, width=64, shift=0.2)
    assert kernel_distance(x, y)[0] == pytest.approx(float(poly_mmd(x, y)), rel=1e-6)


def test_chunks_of_the_kernel_matrix_make_no_difference(monkeypatch):
    x, y = features(50, 0), features(41, 1)
    whole = kernel_distance(x, y)
    monkeypatch.setattr("genxai_metrics.kid._ROWS", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-10)


def test_the_metric_computes_it_on_the_extractor_s_features():
    model, real, generated = Pixels().eval(), noise(20, 0), noise(15, 1, 0.2)
    with torch.no_grad():
        x, y = (model.features(s.images).double() for s in (real, generated))
    figures = KID(model).measure(real=real, generated=generated)
    assert figures["kid"] == pytest.approx(literal(x, y), rel=1e-6)
    assert figures["kid_se"] == pytest.approx(literal_jackknife(x, y), rel=1e-6)
    assert set(figures) == set(KID.higher_is_better)


# -- the statistics ---------------------------------------------------------------------------------------------


def test_halves_of_one_set_are_at_zero_on_average():
    """Unbiased: over many draws of equal distributions the mean is zero within its own error, and signs are mixed."""
    values = [kernel_distance(features(30, 2 * s), features(30, 2 * s + 1))[0] for s in range(300)]
    mean, spread = torch.tensor(values).mean(), torch.tensor(values).std()
    assert abs(mean) < 3 * spread / 300**0.5
    assert min(values) < 0 < max(values)


def test_the_error_is_the_spread_of_repeated_draws_and_conservative_at_the_floor():
    def ratio(shift):
        pairs = [kernel_distance(features(60, 2 * s), features(60, 2 * s + 1, shift=shift)) for s in range(300)]
        values, errors = torch.tensor(pairs).T
        return float(errors.square().mean().sqrt() / values.std())

    assert ratio(shift=1.0) == pytest.approx(1, abs=0.2)
    assert ratio(shift=0.0) == pytest.approx(2**0.5, abs=0.3)


def test_it_grows_with_the_distance():
    real = noise(200, 0)
    measured = [KID(Pixels()).measure(real=real, generated=noise(200, 1, shift)) for shift in (0.0, 0.1, 0.2, 0.4)]
    values = [figures["kid"] for figures in measured]
    assert values == sorted(values)
    assert abs(values[0]) < 3 * measured[0]["kid_se"]
    assert values[-1] > 5 * measured[-1]["kid_se"]


# -- gathering --------------------------------------------------------------------------------------------------


def test_number_of_updates_order_and_merging_make_no_difference():
    real, generated = noise(50, 0), noise(40, 1, 0.2)
    whole = KID(Pixels()).measure(real=real, generated=generated)
    metric, other = KID(Pixels()), KID(Pixels())
    for start in range(0, 30, 10):
        metric.update(real=real[start : start + 10], generated=generated[start : start + 10])
    other.update(real=real[30:], generated=generated[30:])
    metric.merge(other)
    assert metric.compute() == pytest.approx(whole, rel=1e-6)
    backwards = KID(Pixels()).measure(real=real[::-1], generated=generated[::-1])
    assert backwards == pytest.approx(whole, rel=1e-6)
    small = KID(Pixels()).measure(real=real, generated=generated, runtime=gx.Runtime(batch_size=7, quiet=True))
    assert small == pytest.approx(whole, rel=1e-6)


def test_datasets_are_read_batch_by_batch():
    real, generated = noise(30, 0), noise(30, 1)
    metric = KID(Pixels())
    assert metric.measure(real=Images(real), generated=Images(generated)) == KID(Pixels()).measure(
        real=real, generated=generated
    )
    streamed = KID(Pixels())
    streamed.update(real=Images(real), generated=generated)
    assert streamed.compute() == metric.compute()


def test_an_extractor_in_train_mode_is_used_in_eval_mode_and_left_as_it_was():
    model = Pixels().train()
    state = copy.deepcopy(model.state_dict())
    metric = KID(model)
    metric.update(real=noise(20, 0), generated=noise(20, 1))
    assert model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert metric.compute() == KID(Pixels().eval()).measure(real=noise(20, 0), generated=noise(20, 1))


def test_the_registry_builds_it():
    metric = gx.create("metric/kid", extractor=Pixels(), degree=2)
    assert metric.degree == 2
    assert metric.measure(real=noise(5, 0), generated=noise(5, 1))["kid_se"] > 0


# -- refusals ---------------------------------------------------------------------------------------------------


def test_a_model_without_features_is_refused():
    with pytest.raises(MissingCapability, match="metric/kid needs the capability HasFeatures, which Linear does not"):
        gx.create("metric/kid", extractor=nn.Linear(2, 2))


def test_a_degree_below_one_is_refused():
    with pytest.raises(BadParameter, match="degree 0 must be at least 1"):
        gx.create("metric/kid", extractor=Pixels(), degree=0)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_images_are_refused(n):
    metric = KID(Pixels())
    metric.update(real=noise(10, 0), generated=noise(n, 1))
    with pytest.raises(InputError, match=f"at least 3 real and 3 generated images, and has seen 10 and {n}"):
        metric.compute()


def test_nothing_at_all_is_refused():
    with pytest.raises(InputError, match="has seen 0 and 0"):
        KID(Pixels()).compute()


def test_another_value_range_is_refused():
    with pytest.raises(
        InputError, match=r"generated images are in \(0\.0, 1\.0\).*samples\.rescale\(\(-1\.0, 1\.0\)\)"
    ):
        KID(Pixels()).measure(real=noise(5, 0), generated=noise(5, 1).rescale((0.0, 1.0)))


def test_images_of_two_shapes_are_refused():
    with pytest.raises(InputError, match=r"real images are \(1, 4, 4\), generated ones \(1, 2, 2\)"):
        KID(Pixels()).measure(real=noise(5, 0), generated=noise(5, 1, side=2))
    with pytest.raises(InputError, match=r"real images are \(1, 2, 2\), the extractor takes \(1, 4, 4\)"):
        KID(Shaped()).measure(real=noise(5, 0, side=2), generated=noise(5, 1, side=2))


def test_tensors_are_refused():
    with pytest.raises(InputError, match="real must be Samples or a Dataset, not Tensor"):
        KID(Pixels()).measure(real=noise(5, 0).images, generated=noise(5, 1))


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="takes exactly generated, real; check: generated"):
        KID(Pixels()).measure(real=noise(5, 0))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x, r"features are \[5, 1, 4, 4\], not \[5, F\]"),
        (lambda x: x.flatten(1)[:2], r"features are \[2, 16\], not \[5, F\]"),
        (lambda x: x.flatten(1) * float("nan"), "features hold NaN or infinity"),
    ],
)
def test_malformed_features_are_refused_and_nothing_of_the_update_is_kept(returned, message):
    model = Pixels()
    metric = KID(model)
    metric.update(real=noise(5, 0), generated=noise(5, 1))
    before = metric.compute()
    model.features = returned
    with pytest.raises(InputError, match=message):
        metric.update(real=noise(5, 2), generated=noise(5, 3))
    assert metric.compute() == before


def test_sets_of_features_of_other_width_do_not_merge():
    one, other = KID(Pixels()), KID(Pixels(width=3))
    for metric in (one, other):
        metric.update(real=noise(5, 0), generated=noise(5, 1))
    with pytest.raises(InputError, match=r"other width: \[3, 6\]"):
        one.merge(other)
