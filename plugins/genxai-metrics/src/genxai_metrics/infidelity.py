"""Infidelity: whether a map predicts what perturbing the image does to the logit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, draws
from genxai_core.errors import InputError

from .baselines import Baseline, baseline_of
from .explanations import Batch, ExplanationMetric, with_errors


class Infidelity(ExplanationMetric):
    """Expected squared error of a map as a predictor of what perturbations do to the logit. Lower is better.

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019. For random perturbations I of the
    image x, with the drop Δ = f(x) − f(x − I) and the drop p that the map predicts,

        infidelity = E (p − Δ)²  in squared logits, from 0;
        infidelity_scaled = min_{β ≥ 0} E (βp − Δ)² / E Δ²  in [0, 1], and 0 where no perturbation moves the logit.

    The second forgives the scale of the map, which many methods leave open, but not its sign: where f = Σx and b = 0,
    φ = x has 0 in both; −x has a scaled one of 1, as a map of zeros has, and an infidelity of 4 E Δ².

    ``squares`` replaces a square of the image by a baseline b, I = (x − b) inside. The squares' places are uniform,
    such that every pixel is as often inside. ``noise`` adds Gaussian noise to every pixel.

    Known weaknesses: it looks at perturbations of one size, and a map can only be right about those; perturbed images
    are unlike any that the model has seen; the expectation is estimated from ``samples`` draws per image, which are
    those of the seed and of the image. No map is perfect where pixels interact.

    Parameters
    ----------
    perturbation
        ``squares`` or ``noise``.
    maps
        What the maps ``[N, H, W]`` or ``[N, C, H, W]`` are. ``contributions``, in logits, of which those of the pixels
        inside are summed, p = Σ_inside φ: what integrated gradients, DeepLIFT or Shapley values give. ``gradients``,
        in logits per pixel value, p = Σ I·φ: what saliency gives; images with several channels need
        ``[N, C, H, W]``. ``noise`` moves pixels by any amount, and therefore needs gradients.
    baseline
        What a square becomes: ``zero``, ``low``, ``mid``, ``mean``, ``blur``, as in metric/insertion-deletion.
    window
        Side of the square in pixels.
    stdev
        Of the noise, as a share of the value range.
    samples
        Perturbations per image.

    Raises
    ------
    ValueError
        If a number is not positive, or noise is asked for with contributions.
    """

    needs = frozenset({"model", "explanation"})
    higher_is_better = with_errors(infidelity=False, infidelity_scaled=False)
    by = "metric/infidelity"

    def __init__(
        self,
        perturbation: Literal["squares", "noise"] = "squares",
        maps: Literal["contributions", "gradients"] = "contributions",
        baseline: Baseline = "zero",
        window: int = 4,
        stdev: float = 0.1,
        samples: int = 64,
    ) -> None:
        if window < 1 or samples < 1 or not stdev > 0:
            raise ValueError(f"window {window} and samples {samples} must be at least 1, stdev {stdev} above 0")
        if perturbation == "noise" and maps != "gradients":
            raise ValueError("noise says nothing of contributions; use perturbation: squares, or maps: gradients")
        super().__init__()
        self.perturbation, self.maps, self.baseline = perturbation, maps, baseline
        self.window, self.stdev, self.samples = window, stdev, samples

    def update(self, *, model: Discriminator, explanation: Attribution) -> None:  # type: ignore[override]
        """Take in more explanations of a model.

        Raises
        ------
        InputError
            If the explanation is empty, not finite, does not fit the model, or gives one gradient for several channels.
        TargetError
            If the model has no such logit as was explained.
        """
        self._take(explanation, model)

    def _judge(self, batch: Batch) -> Tensor:
        if self.maps == "gradients" and batch.maps.shape[1] != batch.images.shape[1]:
            raise InputError(
                f"{self.by}: gradients of {batch.images.shape[1]} channels need maps [N, C, H, W], not one value per "
                f"pixel; or say maps: contributions"
            )
        reference = baseline_of(batch.images, self.baseline, batch.model.value_range)  # type: ignore[union-attr]
        logit = batch.logit(batch.images[None])
        corners = self._corners(batch) if self.perturbation == "squares" else None
        predicted, drops = [], []
        for chunk in batch.repeats(self.samples):
            if corners is None:
                changed = self._noisy(batch, chunk)
            else:
                inside = self._inside(corners[:, chunk.start : chunk.stop].transpose(0, 1), batch.images)
                changed = torch.where(inside, reference, batch.images)
            if self.maps == "gradients":
                contributions = (batch.images - changed).double() * batch.maps
            else:
                contributions = inside * batch.maps
            predicted.append(contributions.flatten(2).sum(2))
            drops.append(logit - batch.logit(changed))
        return infidelity(torch.cat(predicted), torch.cat(drops))

    def _noisy(self, batch: Batch, chunk: range) -> Tensor:
        """Return ``[s, n, C, H, W]``: the images under those draws of the noise."""
        low, high = batch.model.value_range  # type: ignore[union-attr]
        drawn = [
            draws.normal(batch.runtime.seed, batch.addresses, batch.images.shape[1:], f"infidelity-noise-{k}")
            for k in chunk
        ]
        return batch.images + self.stdev * (high - low) * torch.stack(drawn).to(batch.images)

    def _corners(self, batch: Batch) -> Tensor:
        """Draw upper left corners ``[n, samples, 2]``; they may lie outside, so that borders are not spared."""
        sides = list(batch.images.shape[2:])
        rows = []
        for address in batch.addresses:
            drawn = draws.generator(batch.runtime.seed, address, "infidelity-squares")
            rows.append(torch.from_numpy(drawn.integers(1 - self.window, sides, size=(self.samples, 2))))
        return torch.stack(rows).to(batch.images.device)

    def _inside(self, corners: Tensor, images: Tensor) -> Tensor:
        """Return bool ``[s, n, 1, H, W]``: the squares with these corners ``[s, n, 2]``."""
        rows, columns = (_between(corners[..., axis], self.window, size) for axis, size in enumerate(images.shape[2:]))
        return (rows[..., None] & columns[..., None, :])[:, :, None]


def _between(start: Tensor, length: int, size: int) -> Tensor:
    """Return ``[…, size]``: which places lie in ``[start, start + length)``."""
    at = torch.arange(size, device=start.device)
    return (at >= start[..., None]) & (at < start[..., None] + length)


def infidelity(predicted: Tensor, drops: Tensor) -> Tensor:
    """Return ``[n, 2]``, infidelity and infidelity_scaled, of predicted and real drops ``[s, n]``."""
    square, both, power = (x.mean(0) for x in (predicted.square(), predicted * drops, drops.square()))
    explained = torch.where(square > 0, both.clamp_min(0).square() / square.where(square > 0, 1), 0.0)
    scaled = torch.where(power > 0, 1 - explained / power.where(power > 0, 1), 0.0)
    return torch.stack([(predicted - drops).square().mean(0), scaled.clamp(0, 1)], 1)
