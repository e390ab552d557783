"""A classifier that is made of densities: of each class one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genxai_core import Discriminator, models
from genxai_core.errors import InputError

BY = "discriminator/generative-classifier"


class GenerativeClassifier(Discriminator):
    """Images ``[N, C, H, W]`` to logits ``[N, K]``: ``log p(x|y) + log p(y)``, in nats.

    The largest logit is Bayes' decision ``argmax_y p(x|y) p(y)``, and a softmax makes posteriors of them. Unlike those
    of a classifier that is trained to tell classes apart, the logits mean something each by itself: `log_prob` is
    ``log p(x) = log Σ_y p(x, y)``, which is low where an image is of no class at all.

    Posteriors are as sure as the densities are wrong: errors of many pixels add up to many nats.

    Images are clipped to ``value_range`` first, since class densities need not be told beyond it. Densities are
    evaluated in float32 whatever the precision, since classes may differ by less than logits of hundreds of nats are
    rounded by.

    Parameters
    ----------
    densities
        K ≥ 2 models with ``log_prob(images)``, of one space: the same value range, and where they state them the same
        image shape, native shape, levels and likelihood (a Bernoulli VAE's log p is a log probability, no density).
    priors
        p(y), K numbers above 0, which are divided by their sum; equal ones unless given.
    class_names
        What the logits mean; default: their numbers.

    Raises
    ------
    MissingCapability
        If one has no density.
    ValueError
        If there are fewer than two, they are of different spaces, or priors or names are not one for each.
    """

    log_priors: Tensor
    floor: Tensor

    def __init__(
        self,
        densities: Sequence[nn.Module],
        priors: Sequence[float] = (),
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        count = len(densities)
        if count < 2:
            raise ValueError(f"{count} densities; a classifier needs one for each of at least 2 classes")
        for name, given in (("priors", priors), ("class_names", class_names)):
            if given and len(given) != count:
                raise ValueError(f"{len(given)} {name} for {count} densities; give one for each, or none")
        if any(not (p > 0 and math.isfinite(p)) for p in priors):
            raise ValueError(f"priors {list(priors)} must be above 0")
        for density in densities:
            models.require(density, models.HasDensity, by=BY)
        for name in ("value_range", "image_shape", "native_shape", "levels", "likelihood"):
            stated = [getattr(density, name, None) for density in densities]
            if any(value != stated[0] for value in stated):
                raise ValueError(f"the densities are of different spaces, which do not compare: {name} {stated}")
            if stated[0] is not None:
                setattr(self, name, stated[0])
        self.densities = nn.ModuleList(densities)
        self._brings = all(hasattr(density, "to_native") and hasattr(density, "density") for density in densities)
        self.class_names = tuple(class_names) or tuple(str(i) for i in range(count))
        shares = torch.tensor(list(priors) or [1.0] * count, dtype=torch.float64)
        self.register_buffer("log_priors", (shares / shares.sum()).log().to(torch.get_default_dtype()))
        self.register_buffer("floor", torch.tensor(-math.inf))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``log p(x|y) + log p(y)`` ``[N, K]``, in nats.

        Raises
        ------
        InputError
            If a density is not one number for each image.
        """
        return self._joint(images.clamp(*self.value_range), "log_prob")

    def _joint(self, values: Tensor, method: str) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            found = [getattr(density, method)(values) for density in self.densities]
        for name, value in zip(self.class_names, found):
            if value.shape != (len(values),):
                raise InputError(
                    f"{BY}: {method} of class {name!r} is {list(value.shape)} for {len(values)} images; it is a "
                    f"number for each"
                )
        return torch.stack(found, 1) + self.log_priors

    def log_prob(self, images: Tensor) -> Tensor:
        """Return ``log p(x)`` ``[N]``, in nats, in the space of the densities."""
        return torch.logsumexp(self(images), 1)

    def to_native(self, images: Tensor) -> Tensor:
        """Return v, what the densities are of: what they make of images, else the images."""
        images = images.clamp(*self.value_range)
        v: Tensor = self.densities[0].to_native(images) if self._brings else images  # type: ignore[operator]
        return v

    def density(self, v: Tensor) -> Tensor:
        """Return ``log p(v)`` ``[N]``, in nats."""
        return torch.logsumexp(self._joint(v, "density" if self._brings else "log_prob"), 1)

    def supports(self, log_prob: Tensor) -> Tensor:
        """Return whether ``log p(x)`` ``[N]`` reaches ``floor``; where that was never set (−∞), all do."""
        return log_prob >= self.floor
