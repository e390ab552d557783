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
            "input-x-gradient",
            "genxai_attribution.gradients:InputXGradient",
            "gradient of the logit times the pixel",
        ),
        Component(
            "explainer",
            "guided-backprop",
            "genxai_attribution.rectified:GuidedBackprop",
            "gradient that rectifiers pass back only where positive; ReLU, LeakyReLU, PReLU",
        ),
        Component(
            "explainer",
            "deconvolution",
            "genxai_attribution.rectified:Deconvolution",
            "logit sent back through rectifiers that ignore the forward pass",
        ),
        Component(
            "explainer",
            "deeplift",
            "genxai_attribution.deeplift:DeepLift",
            "differences from a baseline passed back by the rescale rule; refused where they do not sum up",
        ),
        Component(
            "explainer",
            "deeplift-shap",
            "genxai_attribution.deeplift:DeepLiftShap",
            "mean of DeepLIFT over several references, with the completeness error",
        ),
        Component(
            "explainer",
            "gradient-shap",
            "genxai_attribution.noise:GradientShap",
            "expected gradients between references and the image",
        ),
        Component(
            "explainer",
            "lime",
            "genxai_attribution.surrogates:Lime",
            "ridge regression of the logit on the cells of a grid",
        ),
        Component(
            "explainer",
            "kernel-shap",
            "genxai_attribution.surrogates:KernelShap",
            "Shapley values of the cells of a grid by weighted least squares; exact on small grids",
        ),
        Component(
            "explainer",
            "shapley-sampling",
            "genxai_attribution.perturbations:ShapleySampling",
            "Shapley values of the cells of a grid by random orders",
        ),
        Component(
            "explainer",
            "occlusion",
            "genxai_attribution.perturbations:Occlusion",
            "drop of the logit when a window is hidden",
        ),
        Component(
            "explainer",
            "noise-tunnel",
            "genxai_attribution.noise:NoiseTunnel",
            "SmoothGrad, its square or VarGrad over any explainer by name",
        ),
        Component(
            "explainer",
            "fullgrad",
            "genxai_attribution.full:FullGrad",
            "pixels and biases times their gradients, in place; together they are the logit",
        ),
        Component(
            "explainer",
            "cam",
            "genxai_attribution.cam:Cam",
            "class activation maps of a layer by ten methods, gradcam to ablationcam, signed and unnormalised",
        ),
    ]
