"""The correction of units and its result keep their contracts."""

import dataclasses

import torch
from genxai_correction.correction import Correction

import genxai_core as gx
from genxai_core import Samples, UnitEdits
from genxai_core.testing import ExplainerTests, ExplanationTests


def judged_samples() -> Samples:
    """Return samples of ``generator/tiny-linear`` of which those are broken that show the judge's patch most."""
    model = gx.create("generator/tiny-linear")
    latents = model.sample_latents(24, seed=0)
    with torch.no_grad():
        images = model(latents)
    return Samples(
        images, latents, (latents[:, 2] > 0.3).long(), value_range=(-1.0, 1.0), class_names=("normal", "artifact")
    )


class TestCorrectUnits(ExplainerTests):
    component = "explainer/correct-units"

    def parameters(self):
        judge = gx.create("discriminator/tiny-patch")
        judge.class_names = ("artifact",)
        how = {"counts": (1, 2), "bound": 0.5, "above": 0.75, "quantile": 0.9}
        return {"classifier": judge, "layers": ("layers",), **how}

    def inputs(self):
        return judged_samples()

    def test_there_is_something_to_correct(self):
        result = self.explain(self.model(), self.inputs())
        assert result.chosen is not None
        assert 2 in result.units.tolist()


class TestCorrectUnitsOfOneLayer(TestCorrectUnits):
    def parameters(self):
        return {**super().parameters(), "strategy": "one-layer", "conditional": True, "causal": False}


class TestCorrection(ExplanationTests):
    component = "explanation/correction"
    inherited = ExplanationTests.inherited | {field.name for field in dataclasses.fields(UnitEdits)}

    def example(self):
        return example()


def example(**changed) -> Correction:
    """Return a correction with every field filled in."""
    pictures = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    given = {
        "layers": ("one", "one", "two"),
        "units": torch.tensor([2, 0, 1]),
        "factors": torch.tensor([0.1, 0.2, 0.3]),
        "values": torch.zeros(3),
        "locations": torch.ones(3, 4, 4).bool(),
        "condition": {"target": 1, "above": 0.5},
        "notes": {"samples": "20"},
        "defects": torch.tensor([0.5, 0.4, 0.3]).double(),
        "strategy": "sequential",
        "tried": (("one",), ("one", "two")),
        "numbers": torch.tensor([2, 3]),
        "strengths": torch.tensor([0.3, 0.3]).double(),
        "rates": torch.tensor([0.2, 0.1]).double(),
        "rate_intervals": torch.tensor([[0.1, 0.4], [0.05, 0.3]]).double(),
        "falls": torch.tensor([0.2, 0.3]).double(),
        "fall_intervals": torch.tensor([[-0.1, 0.5], [0.1, 0.5]]).double(),
        "probabilities": torch.tensor([0.25, 0.15]).double(),
        "collaterals": torch.tensor([0.002, 0.004]).double(),
        "collateral_intervals": torch.tensor([[0.001, 0.003], [0.003, 0.005]]).double(),
        "unedited": 0.4,
        "unedited_interval": torch.tensor([0.2, 0.6]).double(),
        "bound": 0.01,
        "chosen": 1,
        "broken": pictures,
        "corrected": -pictures,
        "fine": pictures[:1],
        "kept": pictures[:1],
        "selected_by": "0" * 64,
    }
    return Correction(**{**given, **changed})
