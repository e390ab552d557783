"""Every family with a density keeps the contract of its kind, and so does its trainer."""

from __future__ import annotations

import torch

from genxai_core import Spec, create
from genxai_core.testing import ExplainerTests, GeneratorTests, PatchDataset, TrainerTests


class TestVAE(GeneratorTests):
    component = "generator/vae"
    params = {"size": 16, "latents": 5, "width": 4, "samples": 3}


class TestVAEOfBernoulliColours(GeneratorTests):
    component = "generator/vae"
    params = {
        "size": 8,
        "channels": 3,
        "latents": 4,
        "width": 4,
        "likelihood": "bernoulli",
        "samples": 3,
        "value_range": (0.0, 1.0),
    }


class TestVAEOfLearntPrior(GeneratorTests):
    component = "generator/vae"
    params = {"size": 8, "latents": 4, "width": 4, "samples": 3, "transforms": 2}


class TestVAETrainer(TrainerTests):
    component = "trainer/vae"
    params = {
        "model": Spec("generator/vae", {"latents": 4, "width": 4, "samples": 2}),
        "steps": 6,
        "batch": 8,
        "beta": 2.0,
    }


class TestVAETrainerOfLearntPrior(TrainerTests):
    component = "trainer/vae"
    params = {
        "model": Spec("generator/vae", {"latents": 4, "width": 4, "samples": 2, "transforms": 1}),
        "steps": 6,
        "batch": 8,
    }


class TestFlow(GeneratorTests):
    component = "generator/flow"
    params = {"size": 8, "native": 4, "transforms": 2, "hidden": 8, "bins": 4}


class TestAutoregressiveFlowOfContinuousColours(GeneratorTests):
    component = "generator/flow"
    params = {
        "size": 4,
        "channels": 3,
        "native": 0,
        "levels": 0,
        "transforms": 2,
        "hidden": 8,
        "coupling": False,
        "value_range": (0.0, 1.0),
    }


class TestFlowTrainer(TrainerTests):
    component = "trainer/flow"
    params = {
        "model": Spec("generator/flow", {"native": 0, "levels": 0, "transforms": 1, "hidden": 4, "bins": 2}),
        "steps": 6,
        "batch": 4,
    }


class TestOutlierScore(ExplainerTests):
    component = "explainer/outlier-score"

    def model(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return create("generator/vae", size=16, latents=4, width=4, samples=2).eval()


class TestOutlierScoreByTypicality(TestOutlierScore):
    params = {"score": "typicality", "reference": PatchDataset(6)[:]}
