"""explainer/density-ratio against closed forms, its calibration, what it refuses; and the scores it returns."""

import pytest
import torch
from genxai_xai_gan.density_ratio import DensityRatio
from torch import nn
from torch.distributions import Normal

from genxai_core import Discriminator, Spec, create
from genxai_core.adversarial import LOSSES
from genxai_core.errors import BadParameter, InputError

P, Q = Normal(0.5, 0.8), Normal(-0.3, 1.0)
X = torch.linspace(-6, 6, 601, dtype=torch.float64)
WEIGHT = X[1] - X[0]


class OnePixel(Discriminator):
    """Judges images of one pixel."""

    value_range = (-8.0, 8.0)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
        )

    def forward(self, images):
        return self.net(images)


def trained(loss, smoothing=0.0):
    """A discriminator of P and Q at the optimum of a loss."""
    D = OnePixel().double()
    optimizer = torch.optim.LBFGS(D.parameters(), max_iter=150, history_size=30, line_search_fn="strong_wolfe")
    p, q = P.log_prob(X).exp() * WEIGHT, Q.log_prob(X).exp() * WEIGHT

    def closure():
        optimizer.zero_grad()
        v, row = D(X.view(-1, 1, 1, 1))[:, 0], LOSSES[loss]
        on_real = (1 - smoothing) * row.on_real(v) + smoothing * row.on_fake(v)
        value = (p * on_real + q * row.on_fake(v)).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return D


@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [
        *((name, 0.0) for name, row in LOSSES.items() if row.ratio is not None),
        ("non-saturating", 0.1),
        ("least-squares", 0.1),
    ],
)
def test_scores_are_calibrated_to_the_closed_form(loss, smoothing):
    D = trained(loss, smoothing)
    result = create("explainer/density-ratio", loss=loss, label_smoothing=smoothing).explain(D, X.view(-1, 1, 1, 1))
    truth = P.log_prob(X) - Q.log_prob(X)
    seen = (X - 0.1).abs() < 2
    scores = result.scores.double()
    assert (scores - truth)[seen].abs().max() < 0.05
    slope = ((scores * truth)[seen].mean() - scores[seen].mean() * truth[seen].mean()) / truth[seen].var(correction=0)
    assert slope.item() == pytest.approx(1, abs=0.01)
    assert (Q.log_prob(X) + scores).exp().sum().item() * WEIGHT == pytest.approx(1, abs=5e-3)  # E_q[r] = 1
    assert result.scores.shape == (601,)


def test_the_score_of_the_default_loss_is_the_logit_of_any_trained_discriminator(train, samples):
    D = train().discriminator
    result = create("explainer/density-ratio").explain(D, samples)
    with torch.no_grad():
        torch.testing.assert_close(result.scores, D(samples.images)[:, 0])
    assert result.provenance["inputs"] == 50
    assert torch.equal(result.images, samples.images)


@pytest.mark.parametrize("loss", ["total-variation", "hinge", "wasserstein-gp"])
def test_losses_that_do_not_determine_the_ratio_are_refused_by_name(loss):
    with pytest.raises(BadParameter, match=f"'{loss}' does not determine the density ratio; that of: non-saturating"):
        create("explainer/density-ratio", loss=loss)


@pytest.mark.parametrize("params", [{"loss": "logistic"}, {"loss": "kl", "label_smoothing": 0.1}])
def test_other_bad_parameters_are_refused(params):
    with pytest.raises(BadParameter):
        create("explainer/density-ratio", **params)


def test_a_discriminator_of_several_logits_is_refused(samples):
    D = Spec("discriminator/tiny", {"logits": 2}).build(size=16, channels=1)
    with pytest.raises(InputError, match="single logit; this one has 2"):
        DensityRatio().explain(D, samples, target=0)
