"""Every explainer of this distribution, in every method that it has, keeps the contract of explainers."""

from __future__ import annotations

from typing import Any

from genxai_core import Spec
from genxai_core.testing import ExplainerTests

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Saliency": ("saliency", {}),
    "InputXGradient": ("input-x-gradient", {}),
    "IntegratedGradients": ("integrated-gradients", {"steps": 8}),
    "IntegratedGradientsFromBlur": ("integrated-gradients", {"steps": 8, "baseline": "blur"}),
    "IntegratedGradientsFromNoise": ("integrated-gradients", {"steps": 8, "baseline": "noise"}),
    "GuidedBackprop": ("guided-backprop", {}),
    "Deconvolution": ("deconvolution", {}),
    "DeepLift": ("deeplift", {}),
    "DeepLiftShap": ("deeplift-shap", {}),
    "GradientShap": ("gradient-shap", {}),
    "GradientShapFromMid": ("gradient-shap", {"samples": 8, "stdev": 0.1, "baseline": "mid"}),
    "Lime": ("lime", {"grid": 4, "samples": 200}),
    "KernelShap": ("kernel-shap", {"grid": 4, "samples": 128}),
    "ShapleySampling": ("shapley-sampling", {"grid": 4, "orders": 4}),
    "Occlusion": ("occlusion", {}),
    "SmoothGrad": ("noise-tunnel", {"stdev": 0.02}),
    "SmoothDeepLift": ("noise-tunnel", {"explainer": Spec("explainer/deeplift"), "samples": 4, "stdev": 0.02}),
    "VarGrad": (
        "noise-tunnel",
        {"explainer": Spec("explainer/input-x-gradient"), "method": "vargrad", "samples": 4},
    ),
    "FullGrad": ("fullgrad", {}),
    "GradCAM": ("cam", {"method": "gradcam"}),
    "GradCAMPlusPlus": ("cam", {"method": "gradcam++"}),
    "HiResCAM": ("cam", {"method": "hirescam"}),
    "XGradCAM": ("cam", {"method": "xgradcam"}),
    "LayerCAM": ("cam", {"method": "layercam"}),
    "EigenGradCAM": ("cam", {"method": "eigengradcam"}),
    "EigenCAM": ("cam", {"method": "eigencam"}),
    "ScoreCAM": ("cam", {"method": "scorecam"}),
    "AblationCAM": ("cam", {"method": "ablationcam"}),
}

RECTIFIED = {"sign": "positive", "sign_reason": "it shows only what speaks for the target, by its definition"}
TRAITS: dict[str, dict[str, Any]] = {
    "GuidedBackprop": RECTIFIED,
    "GradCAMPlusPlus": RECTIFIED,
    "LayerCAM": RECTIFIED,
    "VarGrad": {"sign": "unsigned", "sign_reason": "a variance has none"},
    "EigenCAM": {
        "sign": "unsigned",
        "sign_reason": "it is a principal component of the activations and never sees the logit",
        "expected_failures": {
            "test_a_constant_model_gets_a_map_of_zero": "it never sees the logit",
            "test_the_map_is_of_its_target_at_its_place": "it never sees the logit",
        },
    },
    "ScoreCAM": {
        "sign": "unsigned",
        "sign_reason": "its channels are weighted by a softmax, which is positive",
        "expected_failures": {
            "test_a_constant_model_gets_a_map_of_zero": "the softmax weighs all channels alike where no score differs",
        },
    },
}
"""What is special about a method: traits of its conformance class."""

for title, (name, params) in CONFIGURATIONS.items():
    traits = {"component": f"explainer/{name}", "params": params, **TRAITS.get(title, {})}
    globals()[f"Test{title}"] = type(f"Test{title}", (ExplainerTests,), traits)
