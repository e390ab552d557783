"""What the core itself provides, and the example of a third party's plugin, keep the contract of their kind."""

from __future__ import annotations

from pathlib import Path

import torch

from genxai_core import registry
from genxai_core.results import UnitEdits
from genxai_core.testing import ExplainerTests, GeneratorTests

ROOT = Path(__file__).resolve().parent.parent


class TestEdited(GeneratorTests):
    """A quadrant is left out, another one is set in its upper left corner."""

    component = "generator/edited"

    def edits(self):
        corner = torch.zeros(2, 4, 4, dtype=torch.bool)
        corner[0], corner[1, :1, 2:3] = True, True
        return UnitEdits(
            layers=("layers", "layers"),
            units=torch.tensor([0, 1]),
            factors=torch.zeros(2),
            values=torch.tensor([0.0, 2.0]),
            locations=corner,
        )

    def parameters(self):
        return {"base": registry.create("generator/tiny-linear").eval(), "edits": self.edits()}


class TestEditedUnderACondition(GeneratorTests):
    """Only the images whose lower right quadrant is bright are edited."""

    component = "generator/edited"

    def parameters(self):
        return {
            "base": registry.create("generator/tiny-linear").eval(),
            "edits": UnitEdits.ablate({"layers": [3]}, condition={"target": 0, "above": 0.5}),
            "judge": registry.create("discriminator/tiny-patch").eval(),
        }


class TestOcclude(ExplainerTests):
    component = "explainer/occlude"
    plugin = ROOT / "examples" / "occlude.py"
