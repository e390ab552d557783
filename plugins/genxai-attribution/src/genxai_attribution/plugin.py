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
            "saliency",
            "genxai_attribution.gradients:Saliency",
            "signed gradient of the logit by the pixels",
        ),
        Component(
            "explainer",
            "integrated-gradients",
            "genxai_attribution.integrated:IntegratedGradients",
            "gradients summed along the way from a baseline, with the completeness error",
        ),
        Component(
            "explainer",
            "cam",
            "genxai_attribution.cam:Cam",
            "class activation maps of a layer (gradcam, layercam, eigencam), signed and unnormalised",
        ),
    ]
