"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from genxai_core import Component, hookimpl


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "explainer",
            "density-ratio",
            "genxai_xai_gan.density_ratio:DensityRatio",
            "log density ratio of real to generated images that a trained discriminator holds",
        ),
        Component(
            "trainer",
            "gan",
            "genxai_xai_gan.gan:GANTrainer",
            "adversarial training of a generator and a discriminator: eleven losses, gradient penalties",
        ),
        Component(
            "trainer",
            "xai-gan",
            "genxai_xai_gan.xai_gan:XAIGANTrainer",
            "adversarial training guided by what the discriminator looks at",
        ),
    ]
