"""explainer/artifact-units and its result keep their contracts."""

from __future__ import annotations

import torch
from genxai_correction.artifact_units import ArtifactUnitScores

import genxai_core as gx
from genxai_core import Samples
from genxai_core.testing import ExplainerTests, ExplanationTests

NAMES = ("normal", "artifact")


def small():
    torch.manual_seed(0)
    return gx.create("generator/dcgan", size=16, channels=1, latents=6, width=8).eval()


def broken_samples() -> Samples:
    """Nine samples of it, of which each third is labelled as broken, with masks."""
    model = small()
    latents = model.sample_latents(9, 0)
    with torch.no_grad():
        images = model(latents)
    return Samples(
        images,
        latents,
        (torch.arange(9) % 3 == 0).long(),
        torch.rand(9, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.3,
        value_range=(-1.0, 1.0),
        class_names=NAMES,
        concepts=("artifact",),
    )


class Small(ExplainerTests):
    def model(self):
        return small()

    def inputs(self):
        return broken_samples()


class TestArtifactUnits(Small):
    component = "explainer/artifact-units"

    def parameters(self):
        torch.manual_seed(1)
        judge = gx.create("discriminator/classifier", size=16, channels=1, num_classes=2, class_names=NAMES)
        return {"classifier": judge, "masks": "given", "quantile": 0.9, "causal_units": 2, "examples": 2}


class TestArtifactUnitsWithoutAClassifier(Small):
    component = "explainer/artifact-units"
    params = {"causal": False, "quantile": 0.9}


class TestArtifactUnitsByActivation(Small):
    component = "explainer/artifact-units"
    params = {"method": "low-activation", "quantile": 0.9}


class TestArtifactUnitScores(ExplanationTests):
    component = "explanation/artifact-units"

    def example(self):
        units = {"one": 3, "two": 2}
        return ArtifactUnitScores(
            {layer: torch.rand(n, 1).double() for layer, n in units.items()},
            thresholds={layer: torch.rand(n) for layer, n in units.items()},
            concepts=("artifact",),
            intervals={layer: torch.rand(n, 1, 2).double() for layer, n in units.items()},
            measure="defective score",
            notes={"samples": 9},
            effects={"one": torch.tensor([-0.2, 0.0, 0.0]).double(), "two": torch.tensor([-0.1, 0.1]).double()},
            effect_intervals={layer: torch.randn(n, 2).double() - 0.5 for layer, n in units.items()},
            checked={"one": torch.tensor([True, True, False]), "two": torch.tensor([True, True])},
            rates={layer: torch.rand(n).double() for layer, n in units.items()},
            images=torch.rand(4, 3, 8, 8),
            masks=torch.rand(4, 1, 8, 8) < 0.3,
            value_range=(0.0, 1.0),
        )
