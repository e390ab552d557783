"""Bring your own model: any ``nn.Module`` as a generator or discriminator, any torchmetrics metric as a metric.

An adapter keeps what it wraps as the submodule ``module``, so that ``.to()``, ``.eval()`` and the guard reach it. Where
an explainer takes the name of a layer, it is the name within the adapter: the module's ``conv4`` is ``module.conv4``.
"""

from .discriminators import AdaptedDiscriminator, discriminator
from .generators import AdaptedGenerator, generator
from .metrics import AdaptedMetric, metric

__all__ = [
    "AdaptedDiscriminator",
    "AdaptedGenerator",
    "AdaptedMetric",
    "discriminator",
    "generator",
    "metric",
]
