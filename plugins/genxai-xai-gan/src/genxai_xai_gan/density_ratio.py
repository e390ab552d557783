"""What an adversarially trained discriminator knows of the densities."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from genxai_core import Explainer, ImageScores
from genxai_core.adversarial import LOSSES, LossName, check_smoothing, log_ratio
from genxai_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from genxai_core import Discriminator


class DensityRatio(Explainer):
    """Log density ratios ``log p_real(x)/p_generated(x)`` ``[N]`` of images ``[N, C, H, W]``, in nats.

    At its optimum a discriminator holds this ratio, in the form that its loss gives it (Goodfellow et al., 2014,
    prop. 1; Nowozin et al., "f-GAN", 2016; Uehara et al., "Generative Adversarial Nets from a Density Ratio Estimation
    Perspective", 2016; Sugiyama, Suzuki, Kanamori, "Density Ratio Estimation in Machine Learning", 2012). Above zero
    an image is likelier among the real ones: of a generated image it is its realism, and a real image with a high score
    is one that the generator misses. How far the discriminator is from its optimum no score tells. Spectral norm bounds
    its slope and so draws the scores together; over generated images the mean of ``exp(score)`` is 1 at the optimum.

    Parameters
    ----------
    loss
        The loss that the discriminator was trained with. Total variation, hinge and Wasserstein do not determine the
        ratio and are refused.
    label_smoothing
        That of its training.

    Raises
    ------
    ValueError
        If the loss does not determine the ratio, or has no labels to smooth.
    InputError
        If the discriminator has several logits.
    """

    explains: ClassVar[str] = "discriminator"
    returns: ClassVar[type[ImageScores]] = ImageScores

    def __init__(self, loss: LossName = "non-saturating", label_smoothing: float = 0.0) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss {loss!r} is not one of {', '.join(LOSSES)}")
        if LOSSES[loss].ratio is None:
            able = ", ".join(name for name, row in LOSSES.items() if row.ratio is not None)
            raise ValueError(f"the optimum of the loss {loss!r} does not determine the density ratio; that of: {able}")
        check_smoothing(loss, label_smoothing)
        self.loss, self.label_smoothing = loss, label_smoothing

    def _explain(self, model: Discriminator, images: Tensor, target: int | None) -> ImageScores:
        logits = model(images).float()
        if logits.shape[1] != 1:
            raise InputError(
                f"explainer/density-ratio needs a discriminator of real and generated with a single logit; "
                f"this one has {logits.shape[1]}"
            )
        scores = log_ratio(self.loss, logits[:, 0], self.label_smoothing)
        return ImageScores(scores, images, model.value_range, {"unit": "log p(real)/p(generated), in nats"})
