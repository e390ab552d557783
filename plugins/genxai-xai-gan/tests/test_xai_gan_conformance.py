"""Every trainer and explainer of this distribution keeps the contract of its kind."""

from __future__ import annotations

from typing import Any

import pytest

from genxai_core import Spec
from genxai_core.testing import ExplainerTests, TrainerTests


@pytest.fixture(autouse=True)
def _tiny():
    """Components are found here as they are installed, not in a registry of this folder's own."""


TINY = {
    "generator": Spec("generator/tiny-linear"),
    "discriminator": Spec("discriminator/tiny-patch"),
    "steps": 6,
    "batch": 8,
}

CLASSES = {
    "generator": Spec("generator/dcgan", {"num_classes": 2, "latents": 4, "width": 4}),
    "discriminator": Spec("discriminator/dcgan", {"width": 4}),
}

TRAINERS: dict[str, tuple[str, dict[str, Any]]] = {
    "GAN": ("gan", {}),
    "GANWithLeastSquares": ("gan", {"loss": "least-squares", "r1": 0.1, "label_smoothing": 0.1}),
    "WassersteinGAN": ("gan", {"loss": "wasserstein-gp"}),
    "XAIGAN": ("xai-gan", {}),
    "XAIGANWithExplainer": ("xai-gan", {"explainer": Spec("explainer/input-x-gradient"), "start": 0.0, "every": 2}),
    "XAIGANWithPlacebo": ("xai-gan", {"start": 0.0, "control": "shuffled"}),
    "ConditionalGAN": ("gan", {**CLASSES, "loss": "wasserstein-gp", "r1": 0.1, "ema": 0.9}),
    "ConditionalXAIGAN": ("xai-gan", {**CLASSES, "explainer": Spec("explainer/input-x-gradient"), "start": 0.0}),
    "XAIGANAsReference": ("xai-gan", {"start": 0.0, "mode": "reference"}),
}

for title, (name, params) in TRAINERS.items():
    traits = {"component": f"trainer/{name}", "params": {**TINY, **params}}
    globals()[f"Test{title}"] = type(f"Test{title}", (TrainerTests,), traits)


class TestDensityRatio(ExplainerTests):
    component = "explainer/density-ratio"


class TestDensityRatioOfSmoothedLabels(ExplainerTests):
    component = "explainer/density-ratio"
    params = {"loss": "minimax", "label_smoothing": 0.1}
    expected_failures = dict.fromkeys(
        ("test_its_numbers_are_finite", "test_bfloat16_gives_finite_numbers"),
        "a logit above that of the label 0.9 means an infinite ratio, and the score says so",
    )
