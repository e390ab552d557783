"""Trains a variational autoencoder by its ELBO."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genxai_core import Spec, draws

from .likelihood import Draw, LikelihoodTrainer
from .vae import VAE, divergence

_DEFAULT = Spec("generator/vae")


class VAETrainer(LikelihoodTrainer):
    """Fits a VAE to images ``[N, C, H, W]`` by Adam on ``−E_q[log p(x|z)] + beta · KL(q(z|x) ‖ p(z))``.

    With beta 1 that is the negative ELBO, with one latent drawn per image. Another one trades likelihood for latents
    that are closer to the prior, and more independent (Higgins et al., "beta-VAE", ICLR 2017). Images that are held out
    have their mean log p(x) in ``info["held_out_log_prob"]``, in nats.

    Parameters
    ----------
    model
        A ``generator/vae``; size, channels and value range are the data's.
    steps
        Number of training steps.
    batch
        Images per step, over all processes together.
    lr
        Adam's learning rate at the start; it falls linearly to zero.
    beta
        Weight of the divergence from the prior, at least 0.
    holdout
        Share of the images that is kept out of training, to measure on; 0 keeps none.

    Raises
    ------
    ValueError
        If a number is out of its bounds.
    """

    name = "vae"
    family = VAE

    def __init__(
        self,
        model: Spec = _DEFAULT,
        steps: int = 1500,
        batch: int = 64,
        lr: float = 4e-3,
        beta: float = 1.0,
        holdout: float = 0.1,
    ) -> None:
        super().__init__(model, steps, batch, lr, holdout)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta {beta} must be at least 0, and finite")
        self.beta = beta

    def _said(self) -> list[float]:
        return [self.beta]

    def _losses(self, model: VAE, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        mean, log_variance = model.posterior(images)
        noise = draw(draws.normal, model.latent_shape, "posterior")
        codes = mean + torch.exp(log_variance / 2) * noise
        likelihood = model.log_likelihood_of(images, codes).mean()
        if model.transforms:
            kl = -model.log_ratio(codes, noise, log_variance).mean()
        else:
            kl = divergence(mean, log_variance).mean()
        return {"loss": self.beta * kl - likelihood, "elbo": likelihood - kl, "kl": kl}
