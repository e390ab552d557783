"""FID: against the formula and torchmetrics, its error, its bias beside KID's, degenerate covariances, its refusals."""

import itertools

import pytest
import torch
from genxai_metrics import fid, kid
from genxai_metrics.fid import FID
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

import genxai_core as gx
from genxai_core import pipeline
from genxai_core.errors import BadParameter, GenxaiError, InputError, MissingCapability


class Pixels(nn.Module):
    """Features are a fixed linear map of the pixels."""

    value_range = (-1.0, 1.0)

    def __init__(self, width=6):
        super().__init__()
        self.num_features = width  # for torchmetrics
        self.norm = nn.BatchNorm2d(1)  # would notice a forward in train mode
        self.map = nn.Linear(16, width)
        with torch.no_grad():
            self.map.weight.copy_(torch.randn(width, 16, generator=torch.Generator().manual_seed(0)) / 4)
            self.map.bias.zero_()

    def features(self, images):
        return self.map(self.norm(images).flatten(1))

    forward = features


def noise(n, seed, shift=0.0):
    images = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) / 3 + shift
    return gx.Samples(images, value_range=(-1.0, 1.0))


def features(n, seed, width=4, shift=0.0, scale=1.0):
    return scale * torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def frechet_distance(x, y):
    found = fid.frechet_distance(x, y)
    return found.value, found.error


def literal(x, y):
    """Return the formula as the paper writes it, the root of the product by way of the symmetric roots."""
    sx, sy = x.T.cov(), y.T.cov()

    def root(s):
        values, vectors = torch.linalg.eigh(s)
        return vectors * values.clamp(min=0).sqrt() @ vectors.T

    middle = root(root(sx) @ sy @ root(sx))
    return float((x.mean(0) - y.mean(0)).square().sum() + (sx + sy - 2 * middle).trace())


def literal_jackknife(x, y):
    def part(values):
        return (len(values) - 1) * torch.tensor(values).var(unbiased=False)

    without_x = [literal(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(len(x))]
    without_y = [literal(x, torch.cat([y[:j], y[j + 1 :]])) for j in range(len(y))]
    return float(part(without_x) + part(without_y)) ** 0.5


# -- the formula ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "width", "shift", "scale"), [(30, 20, 3, 0.5, 1.7), (300, 200, 64, 0.2, 1.0)])
def test_the_value_is_the_formula_s_and_torchmetrics_formula_s(n, m, width, shift, scale):
    x, y = features(n, 0, width), features(m, 1, width, shift, scale)
    library = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet_distance(x, y)[0] == pytest.approx(float(library), rel=1e-9)
    assert frechet_distance(x, y)[0] == pytest.approx(literal(x, y), rel=1e-9)


def test_the_metric_is_torchmetrics_metric_with_the_same_extractor():
    model, real, generated = Pixels().double().eval(), noise(80, 0), noise(60, 1, 0.2)
    real, generated = (gx.Samples(s.images.double(), value_range=s.value_range) for s in (real, generated))
    library = FrechetInceptionDistance(feature=model, normalize=True).set_dtype(torch.float64)
    with torch.no_grad():
        library.update(real.images, real=True)
        library.update(generated.images, real=False)
    figures = FID(model).measure(real=real, generated=generated)
    assert figures["fid"] == pytest.approx(float(library.compute()), rel=1e-6)
    assert set(figures) == set(FID.higher_is_better)


def test_gaussians_of_known_distance():
    """On 40,000 draws it is the closed form |μ|² + Σ (σ_i − τ_i)², within four standard errors."""
    scales = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    x, y = features(40_000, 0, 3), features(40_000, 1, 3) * scales + 0.3
    value, error = frechet_distance(x, y)
    assert value == pytest.approx(3 * 0.3**2 + float((scales - 1).square().sum()), abs=4 * error)
    assert error < 0.05


@pytest.mark.parametrize(("n", "m", "shift", "scale"), [(60, 80, 0.5, 1.7), (80, 60, 0.5, 1.0), (60, 60, 0.0, 1.0)])
def test_the_error_is_the_delete_one_jackknife_s_nearly(n, m, shift, scale):
    x, y = features(n, 0), features(m, 1, shift=shift, scale=scale)
    assert frechet_distance(x, y)[1] == pytest.approx(literal_jackknife(x, y), rel=0.02)


def test_the_error_is_the_spread_of_repeated_draws_and_conservative_at_the_floor():
    def ratio(shift):
        pairs = [frechet_distance(features(100, 2 * s), features(100, 2 * s + 1, shift=shift)) for s in range(300)]
        values, errors = torch.tensor(pairs).T
        return float(errors.square().mean().sqrt() / values.std())

    assert ratio(shift=0.5) == pytest.approx(1, abs=0.2)
    assert ratio(shift=0.0) == pytest.approx(2**0.5, abs=0.3)


def test_directions_without_variance_do_no_harm():
    """A row that sums to zero (layer norm) has one; ten images repeated have width − 9 of them."""
    x, y = features(300, 0, 16), features(10, 1, 16).repeat(30, 1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    value, error = frechet_distance(x, y)
    assert value == pytest.approx(literal(x, y), rel=1e-6)
    assert (value, error) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert 0 < error < value / 10
    assert frechet_distance(x.float().double(), y.float().double()) == pytest.approx((value, error), rel=1e-5)


# -- bias -------------------------------------------------------------------------------------------------------


def test_fid_falls_with_the_number_of_images_of_equal_distributions_and_kid_does_not():
    def mean(distance, n):
        values = torch.tensor([distance(features(n, 2 * s, 8), features(n, 2 * s + 1, 8)).value for s in range(60)])
        return float(values.mean()), float(values.std() / 60**0.5)

    values = [mean(fid.frechet_distance, n) for n in (20, 60, 180)]
    for (more, error), (less, other) in itertools.pairwise(values):
        assert more / less == pytest.approx(3, rel=0.25)  # as 1/n
        assert more - less > 10 * (error + other)
    for n in (20, 60, 180):
        value, error = mean(kid.kernel_distance, n)
        assert abs(value) < 4 * error


# -- gathering --------------------------------------------------------------------------------------------------


def test_number_of_updates_order_and_merging_make_no_difference():
    real, generated = noise(50, 0), noise(40, 1, 0.2)
    whole = FID(Pixels()).measure(real=real, generated=generated)
    metric, other = FID(Pixels()), FID(Pixels())
    for start in range(0, 30, 10):
        metric.update(real=real[start : start + 10], generated=generated[start : start + 10])
    other.update(real=real[30:], generated=generated[30:])
    metric.merge(other)
    assert metric.compute() == pytest.approx(whole, rel=1e-6)
    assert FID(Pixels()).measure(real=real[::-1], generated=generated[::-1]) == pytest.approx(whole, rel=1e-6)
    metric.reset()
    metric.update(real=real, generated=generated)
    assert metric.compute() == whole


def test_the_metric_s_batches_make_no_difference_where_the_extractor_s_stay():
    """Bit for bit: the extractor sees ten images at a time, whether they come in one update or in several."""
    real, generated, runtime = noise(50, 0), noise(40, 1, 0.2), gx.Runtime(batch_size=10, quiet=True)
    whole = FID(Pixels()).measure(real=real, generated=generated, runtime=runtime)
    metric = FID(Pixels())
    metric.runtime = runtime
    for start in (0, 20, 40):
        metric.update(real=real[start : start + 20], generated=generated[start : start + 20])
    assert metric.compute() == whole


# -- an extractor that is built ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fid", "kid", "inception-score"])
def test_an_extractor_may_be_a_spec(name):
    spec = gx.Spec("discriminator/classifier", {"size": 8, "feature_size": 4})
    metric = gx.create(f"metric/{name}", extractor=spec)
    samples = gx.Samples(torch.rand(40, 1, 8, 8), value_range=(-1.0, 1.0))
    roles = {"real": samples[:20], "generated": samples[20:]}
    figures = metric.measure(**{role: roles[role] for role in metric.needs})
    built = gx.create(f"metric/{name}", extractor=metric.extractor)
    assert built.measure(**{role: roles[role] for role in metric.needs}) == figures


NESTED = """
genxai: 1
name: nested
steps:
  digits: {use: dataset/digits, with: {size: 8}}
  fid:
    use: metric/fid
    with: {extractor: {use: %s}}
    call: {real: "$digits[:40]", generated: "$digits[40:80]"}
"""


def plan(tmp_path, extractor):
    (tmp_path / "nested.yaml").write_text(NESTED % extractor)
    return pipeline.plan(pipeline.read(tmp_path / "nested.yaml"))


def test_a_pipeline_nests_an_extractor(tmp_path):
    planned = plan(tmp_path, "discriminator/classifier, with: {size: 8, width: 8, feature_size: 4}")
    run = pipeline.run(planned, out=tmp_path / "out", cache=tmp_path / "cache", runtime=gx.Runtime(quiet=True))
    assert run.result("fid")["fid"] > 0


def test_a_nested_extractor_is_checked_before_anything_runs(tmp_path):
    with pytest.raises(BadParameter, match=r"nested.yaml:8.*steps\.fid\.with\.extractor\.with\.sise.*did you mean"):
        plan(tmp_path, "discriminator/classifier, with: {sise: 8}")
    with pytest.raises(GenxaiError, match=r"weights.*none\.pth") as refused:
        plan(tmp_path, "discriminator/inception, with: {weights: none.pth}")
    assert len(str(refused.value).splitlines()) == 1


def test_a_literal_is_no_extractor(tmp_path):
    (tmp_path / "nested.yaml").write_text((NESTED % "x").replace("{use: x}", "inception"))
    with pytest.raises(BadParameter, match=r"steps\.fid\.with\.extractor: 'inception' does not fit"):
        pipeline.plan(pipeline.read(tmp_path / "nested.yaml"))


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(6, 20), (20, 6), (2, 2)])
def test_no_more_images_than_features_are_refused(n, m):
    with pytest.raises(InputError, match=f"{n} real and {m} generated.* of 6 features; give at least 7 .*metric/kid"):
        FID(Pixels()).measure(real=noise(n, 0), generated=noise(m, 1))
    assert FID(Pixels()).measure(real=noise(7, 0), generated=noise(7, 1))["fid"] > 0


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="at least 2 real and 2 generated images, and has seen 0 and 0"):
        FID(Pixels()).compute()


def test_a_model_without_features_is_refused():
    with pytest.raises(MissingCapability, match="metric/fid needs the capability HasFeatures, which Linear does not"):
        gx.create("metric/fid", extractor=nn.Linear(2, 2))
    with pytest.raises(MissingCapability, match="metric/fid needs the capability HasFeatures"):
        gx.create("metric/fid", extractor=gx.Spec("generator/dcgan", {"size": 16}))


def test_another_metric_or_features_of_another_width_do_not_merge():
    with pytest.raises(InputError, match="metric/fid: cannot merge with a KID"):
        FID(Pixels()).merge(gx.create("metric/kid", extractor=Pixels()))
    one, other = FID(Pixels()), FID(Pixels(width=3))
    for metric in (one, other):
        metric.update(real=noise(5, 0), generated=noise(5, 1))
    with pytest.raises(InputError, match=r"features of other width: \[3, 6\]"):
        one.merge(other)
