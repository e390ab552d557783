"""What metrics share that explain anew: under noise, with other parameters, by another method."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer, Spec
from genxai_core.errors import InputError

from .explanations import Batch, ExplanationMetric

_ALIKE = 0.05
"""Relative distance up to which maps count as those of the same explainer: bfloat16 and batches move them by less."""


class Anew(ExplanationMetric):
    """Base: holds an explainer.

    One that draws random numbers explains one image at a time, always from the runtime's seed, so that its noise is
    the same each time and depends on no batch; that takes longer.

    Parameters
    ----------
    explainer
        The explainer, or the Spec of one.
    """

    def __init__(self, explainer: Spec | Explainer) -> None:
        super().__init__()
        built = explainer.build() if isinstance(explainer, Spec) else explainer
        if not isinstance(built, Explainer) or built.accepts != "images" or not issubclass(built.returns, Attribution):
            raise ValueError(f"explainer: a {type(built).__name__} does not make maps of images")
        self.explainer = built

    def _maps(self, batch: Batch, model: Discriminator, images: Tensor) -> Tensor:
        """Explain s versions of the images ``[s, n, C, H, W]``: float64 maps ``[s, n, C or 1, H, W]``."""
        flat, targets = images.flatten(0, 1), batch.targets.repeat(len(images))
        runtime = batch.runtime.with_(device=str(batch.images.device), quiet=True)
        at_once = 1 if self.explainer.stochastic else max(1, len(flat))
        found = [
            self.explainer.explain(
                model, flat[i : i + at_once], target=targets[i : i + at_once].tolist(), runtime=runtime
            ).maps
            for i in range(0, len(flat), at_once)
        ]
        maps = torch.cat(found).to(batch.images.device, torch.float64)
        maps = maps[:, None] if maps.ndim == 3 else maps
        return maps.reshape(*images.shape[:2], *maps.shape[1:])

    def _original(self, batch: Batch, model: Discriminator) -> Tensor:
        """Explain the images as they are, ``[n, C or 1, H, W]``, and refuse an explanation of another explainer.

        Raises
        ------
        InputError
            If the maps given are not those that the explainer makes of this model.
        """
        maps = self._maps(batch, model, batch.images[None])[0]
        given, made = batch.plane, maps.sum(1)
        distance, size = float((given - made).norm()), float(torch.maximum(given.norm(), made.norm()))
        if not self.explainer.stochastic and distance > _ALIKE * size:
            raise InputError(
                f"{self.by}: the explanation is not what {type(self.explainer).__name__} makes of this model (its maps "
                f"differ by {100 * distance / size:.0f} %); give the explainer, and the parameters, that made it"
            )
        return maps
