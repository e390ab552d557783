"""The generative classifier, its trainer, its explainer and what that returns keep the contracts of their kinds."""

from __future__ import annotations

import torch

from genxai_core import Spec, create
from genxai_core.guard import guard
from genxai_core.testing import DiscriminatorTests, ExplainerTests, ExplanationTests, PatchDataset, TrainerTests

SMALL = {"size": 16, "native": 4, "levels": 0, "transforms": 1, "hidden": 4, "bins": 2}


def classifier(classes=3):
    """A classifier of flows, each with other weights, which know nothing."""
    with guard():
        torch.manual_seed(0)
        densities = [create("generator/flow", **SMALL) for _ in range(classes)]
        names = tuple("abcdef"[:classes])
        return create("discriminator/generative-classifier", densities=densities, class_names=names).eval()


class TestGenerativeClassifier(DiscriminatorTests):
    component = "discriminator/generative-classifier"

    def parameters(self):
        return {"densities": [create("generator/flow", **SMALL) for _ in range(3)], "priors": [2.0, 1.0, 1.0]}


class TestGenerativeClassifierOfVAEs(DiscriminatorTests):
    component = "discriminator/generative-classifier"

    def parameters(self):
        vae = {"size": 8, "channels": 3, "latents": 3, "width": 4, "samples": 2, "value_range": (0.0, 1.0)}
        return {"densities": [create("generator/vae", **vae) for _ in range(2)], "class_names": ("a", "b")}


class TestGenerativeClassifierTrainer(TrainerTests):
    component = "trainer/generative-classifier"
    params = {
        "density": Spec(
            "trainer/vae",
            {"model": Spec("generator/vae", {"latents": 3, "width": 4, "samples": 2}), "steps": 6, "batch": 4},
        )
    }


class TestGenerativeClassifierTrainerOfFlowsWithoutHoldout(TrainerTests):
    component = "trainer/generative-classifier"
    params = {
        "density": Spec(
            "trainer/flow",
            {
                "model": Spec("generator/flow", {"native": 0, "levels": 0, "transforms": 1, "hidden": 4, "bins": 2}),
                "steps": 6,
                "batch": 4,
            },
        ),
        "priors": "equal",
        "holdout": 0.0,
    }


class TestGenerativeEvidence(ExplainerTests):
    component = "explainer/generative-classifier"
    target_index = 1

    def model(self):
        return classifier()

    def inputs(self):
        return PatchDataset(5)[:].images


class TestClassEvidence(ExplanationTests):
    component = "explanation/class-evidence"

    def example(self):
        explainer = create("explainer/generative-classifier")
        model = classifier()
        model.floor.fill_(-3e4)
        return explainer.explain(model, PatchDataset(4)[:], target=[0, 2, 1, 1])
