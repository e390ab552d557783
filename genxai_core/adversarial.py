"""Adversarial losses and penalties, as a table: a trainer picks one by name and knows nothing else of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

Elementwise = Callable[[Tensor], Tensor]
Critic = Callable[[Tensor], Tensor]
LossName = Literal[
    "non-saturating",
    "minimax",
    "least-squares",
    "hinge",
    "wasserstein-gp",
    "kl",
    "reverse-kl",
    "pearson",
    "squared-hellinger",
    "total-variation",
    "jensen-shannon",
]


@dataclass(frozen=True)
class AdversarialLoss:
    """What each player minimises, logit by logit. A logit above zero means real, whatever the loss.

    Parameters
    ----------
    on_real, on_fake
        The discriminator's terms, of its logits on real and on generated images. It minimises the sum of their means.
    on_generated
        The generator's, of the logits on generated images. It minimises the mean.
    ratio
        ``logit -> log p_real/p_gen`` at the discriminator's optimum; None where the optimum does not determine it.
    labelled
        Whether σ(logit) is fitted to the labels 1 and 0, which can then be smoothed.
    penalty
        ``(discriminator, real, generated, mix) -> scalar``, to be weighted and added for the discriminator.
    """

    on_real: Elementwise
    on_fake: Elementwise
    on_generated: Elementwise
    ratio: Elementwise | None = None
    labelled: bool = False
    penalty: Callable[[Critic, Tensor, Tensor, Tensor], Tensor] | None = None

    def discriminator(self, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the discriminator's loss, a scalar, of logits on real and on generated images.

        Parameters
        ----------
        smoothing
            One-sided label smoothing s (Salimans et al., "Improved Techniques for Training GANs", 2016): real images
            have the label 1 − s, so they cost ``(1 − s)·on_real + s·on_fake``. For squares that is
            ``½(D − (1 − s))²`` and a constant.
        """
        on_real = self.on_real(real)
        if smoothing:
            on_real = (1 - smoothing) * on_real + smoothing * self.on_fake(real)
        return on_real.mean() + self.on_fake(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return the generator's loss, a scalar, of logits on generated images."""
        return self.on_generated(fake).mean()


def _divergence(output: Elementwise, conjugate: Elementwise, ratio: Elementwise | None) -> AdversarialLoss:
    """f-GAN: of the output T(v) and f*(T(v)), both as functions of the logit v."""
    return AdversarialLoss(lambda v: -output(v), conjugate, lambda v: -conjugate(v), ratio)


def _same(logits: Tensor) -> Tensor:
    return logits


def gradient_penalty(discriminator: Critic, real: Tensor, generated: Tensor, mix: Tensor) -> Tensor:
    """Return ``mean (|∇D(x̂)|₂ − 1)²`` at ``x̂ = εx + (1 − ε)G(z)``.

    Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, eq. 3.

    Parameters
    ----------
    discriminator
        Images to logits ``[N, 1]``; an image's logit depends on that image only, for the penalty is one per image.
    real, generated
        ``[N, C, H, W]``.
    mix
        ``[N, 1, 1, 1]``, the ε in [0, 1] of each pair.
    """
    points = torch.lerp(generated, real, mix).detach().requires_grad_()
    slopes = _slopes(discriminator(points), points)
    length: Tensor = torch.linalg.vector_norm(slopes.flatten(1), dim=1)
    return (length - 1).square().mean()


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """Return ``½ mean |∇D(x)|₂²`` at real images, which must have required gradients before the logits were made.

    Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", ICML 2018, eq. 9 without γ.
    """
    return _slopes(logits, real).flatten(1).square().sum(1).mean() / 2


def _slopes(logits: Tensor, images: Tensor) -> Tensor:
    slopes: Tensor = torch.autograd.grad(logits.sum(), images, create_graph=True)[0]
    return slopes


LOSSES: Mapping[LossName, AdversarialLoss] = {
    "non-saturating": AdversarialLoss(
        lambda v: softplus(-v), lambda v: softplus(v), lambda v: softplus(-v), _same, labelled=True
    ),
    "minimax": AdversarialLoss(
        lambda v: softplus(-v), lambda v: softplus(v), lambda v: -softplus(v), _same, labelled=True
    ),
    "least-squares": AdversarialLoss(
        lambda v: torch.sigmoid(-v).square() / 2,
        lambda v: torch.sigmoid(v).square() / 2,
        lambda v: torch.sigmoid(-v).square() / 2,
        _same,
        labelled=True,
    ),
    "hinge": AdversarialLoss(lambda v: torch.relu(1 - v), lambda v: torch.relu(1 + v), lambda v: -v),
    "wasserstein-gp": AdversarialLoss(lambda v: -v, _same, lambda v: -v, penalty=gradient_penalty),
    "kl": _divergence(lambda v: 1 + v, torch.exp, _same),
    "reverse-kl": _divergence(lambda v: -torch.exp(-v), lambda v: v - 1, _same),
    "pearson": _divergence(_same, lambda v: v.square() / 4 + v, lambda v: torch.log1p((v / 2).clamp(min=-1))),
    "squared-hellinger": _divergence(lambda v: -torch.expm1(-v), torch.expm1, lambda v: 2 * v),
    "total-variation": _divergence(lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2, None),
    "jensen-shannon": _divergence(lambda v: math.log(2) - softplus(-v), lambda v: softplus(v) - math.log(2), _same),
}
"""Losses by name, of the logit v; D = σ(v); p is the density of real, q that of generated images; r = p/q.

====================  =============================  ===================  =======================  ==================
name                  discriminator, real            generated            generator                optimum
====================  =============================  ===================  =======================  ==================
``non-saturating``    −log D                         −log(1 − D)          −log D                   v = log r
``minimax``           −log D                         −log(1 − D)          log(1 − D)               v = log r
``least-squares``     ½(D − 1)²                      ½D²                  ½(D − 1)²                v = log r
``hinge``             max(0, 1 − v)                  max(0, 1 + v)        −v                       v = sign(p − q)
``wasserstein-gp``    −v                             v                    −v                       no function of r
``kl``                −(1 + v)                       exp v                −exp v                   v = log r
``reverse-kl``        exp(−v)                        v − 1                1 − v                    v = log r
``pearson``           −v                             v²/4 + v             −v²/4 − v                v = 2(r − 1)
``squared-hellinger`` exp(−v) − 1                    exp v − 1            1 − exp v                v = ½ log r
``total-variation``   −½ tanh v                      ½ tanh v             −½ tanh v                v → ±∞, sign(p − q)
``jensen-shannon``    −log 2D                        −log 2(1 − D)        log 2(1 − D)             v = log r
====================  =============================  ===================  =======================  ==================

The first two are Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014 (eq. 1, and the end of section 3 for
the non-saturating generator); then Mao et al., "Least Squares GANs", ICCV 2017, with labels 1 and 0 for a sigmoid
output (theirs is linear); Lim and Ye, "Geometric GAN", 2017, as in Miyato et al., 2018; Gulrajani et al., 2017.

The last six are f-divergences in their variational form, ``D_f(p‖q) = sup_T E_p[T] − E_q[f*(T)] = E_q[f(r)]``, with the
outputs T(v) and conjugates f* of Nowozin, Cseke, Tomioka, "f-GAN", NeurIPS 2016, table 2 and its supplement. The
discriminator's loss at the optimum is −D_f. For ``kl``, T = 1 + v (theirs is v), so that here too v = 0 means r = 1.
f is u log u, −log u, (u − 1)², (√u − 1)², ½|u − 1|, and u log u − (u + 1) log((u + 1)/2), which is twice the
Jensen–Shannon divergence of the usual definition.
"""


def log_ratio(name: LossName, logits: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return log p_real/p_gen, in nats, that these logits would mean at the discriminator's optimum.

    With labels smoothed by s the optimum is ``D = (1 − s)p/(p + q)``, hence ``r = D/(1 − s − D)``. Where no ratio has
    such an optimum it is ±∞: a Pearson logit of −2 or less, and D of 1 − s or more.

    Raises
    ------
    ValueError
        If the loss does not determine the ratio, or does not smooth labels.
    """
    loss = LOSSES[name]
    if loss.ratio is None:
        raise ValueError(f"the optimum of the loss {name!r} does not determine the density ratio")
    check_smoothing(name, smoothing)
    if smoothing:
        return -torch.log(((1 - smoothing) * torch.exp(-logits) - smoothing).clamp(min=0))
    return loss.ratio(logits)


def check_smoothing(name: LossName, smoothing: float) -> None:
    """Refuse what is no smoothing of the labels of this loss.

    Raises
    ------
    ValueError
        If it is outside [0, 0.5), or the loss has no labels.
    """
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"label_smoothing is {smoothing}; it must be at least 0 and below 0.5")
    if smoothing and not LOSSES[name].labelled:
        labelled = ", ".join(other for other, loss in LOSSES.items() if loss.labelled)
        raise ValueError(f"the loss {name!r} has no labels to smooth; these have: {labelled}")
