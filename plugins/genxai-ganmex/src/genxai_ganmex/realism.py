"""How realistic images are, in the measure that a given model has."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from genxai_core import Discriminator, models
from genxai_core.adapt.modules import rescale
from genxai_core.errors import InputError


class Realism:
    """log p(x) of a model with a density, or the log odds of being real of a discriminator with a single logit.

    The log odds estimate log p(x)/q(x), the ratio of the densities of real images and of those that the discriminator
    was trained to tell from them.

    Raises
    ------
    ValueError
        If a model is neither.
    """

    def __init__(self, model: Any) -> None:
        self.density = isinstance(model, models.HasDensity)
        if not self.density and not (isinstance(model, Discriminator) and len(model.class_names) == 1):
            raise ValueError(
                f"realism: a {type(model).__name__} is neither a model with log_prob(images), such as a flow, nor a "
                f"discriminator of real and fake"
            )
        self.model = model
        self.unit = "log p(x), in nats" if self.density else "log odds of being real, in nats"

    def __call__(self, images: Tensor, value_range: tuple[float, float]) -> Tensor:
        """Return ``[N]``, larger for more realistic, differentiably, of images in a value range.

        Raises
        ------
        InputError
            If the model returns another shape, or NaN.
        """
        low, high = getattr(self.model, "value_range", value_range)
        given = rescale(images, value_range, (float(low), float(high)))
        found: Tensor = self.model.log_prob(given) if self.density else self.model(given)[:, 0]
        if found.shape != (len(images),) or bool(found.detach().isnan().any()):
            raise InputError(f"realism: {type(self.model).__name__} returns {list(found.shape)}, or NaN, not [N]")
        return found
