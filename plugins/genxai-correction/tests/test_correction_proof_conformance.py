"""explainer/correction-proof and its result keep their contracts."""

from __future__ import annotations

from genxai_correction.proving import CorrectionProof

from genxai_core import Runtime, Spec, UnitEdits, create
from genxai_core.testing import ExplainerTests, ExplanationTests
from genxai_core.testing.data import PatchDataset
from genxai_core.testing.models import LinearDiscriminator, LinearGenerator


def judge():
    """Return a judge whose one logit is that of the artifact."""
    made = create("discriminator/tiny-patch", sign=-1.0)
    made.class_names = ("artifact",)
    return made


SMALL = {"samples": 30, "draws": 2, "pairs": 3}


class TestCorrectionProof(ExplainerTests):
    component = "explainer/correction-proof"

    def parameters(self):
        return {"edits": UnitEdits.ablate({"layers": [2]}), "judge": judge(), **SMALL}


class TestCorrectionProofWithAllItMeasures(ExplainerTests):
    component = "explainer/correction-proof"

    def parameters(self):
        return {
            "edits": UnitEdits.ablate({"layers": [2]}, condition={"target": 0, "above": 0.4}),
            "judge": judge(),
            "selected_by": Spec("discriminator/tiny-linear"),
            "condition_judge": Spec("discriminator/tiny-linear"),
            "real": PatchDataset(24)[:],
            "features": Spec("discriminator/tiny-linear"),
            "masks": Spec("explainer/cam"),
            **SMALL,
        }


class TestProof(ExplanationTests):
    component = "explanation/correction-proof"

    def example(self):
        method = CorrectionProof(
            UnitEdits.ablate({"layers": [2]}),
            judge(),
            real=PatchDataset(24),
            features=LinearDiscriminator(),
            masks=Spec("explainer/saliency"),
            samples=30,
            pairs=3,
        )
        return method.explain(LinearGenerator().eval(), runtime=Runtime(device="cpu", quiet=True))
