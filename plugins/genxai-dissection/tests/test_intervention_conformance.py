"""The explainers of causes keep the contract of explainers."""

from typing import Any

import planted_painter
import pytest

import genxai_core as gx
from genxai_core import registry
from genxai_core.testing import ExplainerTests

SMALL = {"samples": 6, "mean_samples": 12}


class Causes(ExplainerTests):
    """With a segmenter that is registered while a test runs, so that recipes can be saved."""

    given: dict[str, Any] = {}

    @pytest.fixture(autouse=True)
    def _with_its_segmenter(self, _registry_of_the_kit):
        with registry.default().host.observed_by(planted_painter):
            yield

    def parameters(self):
        return {"segmenter": gx.create("segmenter/quadrants"), **SMALL, **self.given}


class TestUnitEffects(Causes):
    component = "explainer/unit-effects"
    given = {"layers": ("layers",)}


class TestUnitEffectsInOneCell(Causes):
    component = "explainer/unit-effects"
    given = {"layers": ("layers",), "locations": "cell"}


class TestUnitIntervention(Causes):
    component = "explainer/unit-intervention"
    given = {"concept": "q1", "layer": "layers", "units": (1, 3), "pairs": True}


class TestUnitInterventionByAlpha(Causes):
    component = "explainer/unit-intervention"
    given = {
        **{"concept": "q1", "layer": "layers", "steps": 3, "batch": 4},
        **{"alpha_samples": 6, "count": 2, "draws": 2, "act": "insert"},
    }
