"""The explainers of this distribution keep their contract, with every maker."""

from __future__ import annotations

import torch

from genxai_core import create
from genxai_core.guard import guard
from genxai_core.testing import ExplainerTests


class TestLeastChange(ExplainerTests):
    component = "explainer/counterfactual"
    params = {"steps": 10}


class TestLeastChangeOfManyClasses(ExplainerTests):
    component = "explainer/counterfactual"
    target_index = 2

    def parameters(self):
        return {"realism": create("discriminator/tiny-linear"), "realism_weight": 0.01, "steps": 10}

    def model(self):
        return create("discriminator/tiny-linear", num_classes=3).eval()


class TestTranslated(ExplainerTests):
    component = "explainer/counterfactual"

    def parameters(self):
        with guard():  # which restores the global generators
            torch.manual_seed(0)
            generator = create("generator/stargan", size=16, num_classes=2, width=8, blocks=1)
        return {"maker": "ganmex", "generator": generator, "witness": create("discriminator/tiny-linear")}


class TestNearestOfTheData(ExplainerTests):
    component = "explainer/counterfactual"

    def parameters(self):
        return {"maker": "mdts", "data": create("dataset/tiny-patches", n=12)[:]}


class TestClassMean(ExplainerTests):
    component = "explainer/counterfactual"

    def parameters(self):
        return {"maker": "class-mean", "data": create("dataset/tiny-patches", n=12)}


class TestLatent(ExplainerTests):
    component = "explainer/counterfactual"

    def parameters(self):
        return {"maker": "vae", "generator": create("generator/tiny-linear"), "steps": 10}
