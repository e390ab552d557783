"""Every metric of explanations keeps the contract of metrics, and does not depend on batches to 1e-6."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genxai_core import Discriminator, Runtime, Spec
from genxai_core.testing import LinearDiscriminator, MetricTests, planted_images


class ExplanationMetricTests(MetricTests):
    """The kit's own right maps, pixel × gradient, against its noise."""

    rtol, atol = 1e-6, 1e-6

    @pytest.mark.parametrize("batch_size", [1, 5, 100])
    def test_it_does_not_depend_on_the_batch_size(self, batch_size: int) -> None:
        metric, inputs = self.build(), self.good()
        found: list[dict[str, Any]] = [
            metric.measure(**inputs, runtime=Runtime(device="cpu", quiet=True, batch_size=b)) for b in (64, batch_size)
        ]
        assert found[0] == pytest.approx(found[1], abs=1e-6, rel=1e-6)


class TestCompleteness(ExplanationMetricTests):
    component = "metric/completeness"
    params = {"baseline": "zero"}


class TestInfidelity(ExplanationMetricTests):
    component = "metric/infidelity"
    params = {"samples": 8}


class TestInfidelityOfGradientsUnderNoise(ExplanationMetricTests):
    component = "metric/infidelity"
    params = {"perturbation": "noise", "maps": "gradients", "samples": 8}

    def good(self) -> dict[str, Any]:
        inputs = super().good()
        inside = inputs["model"].inside
        return self._inputs(inputs["explanation"], inside.float().expand(32, 1, *inside.shape).clone())

    def bad(self) -> dict[str, Any]:
        good = self.good()
        return self._inputs(good["explanation"], -good["explanation"].maps)


class TestInsertionDeletion(ExplanationMetricTests):
    component = "metric/insertion-deletion"
    params = {"steps": 16}


class TestInsertionDeletionInProbabilities(ExplanationMetricTests):
    component = "metric/insertion-deletion"
    params = {"steps": 8, "baseline": "low", "output": "probability"}


class TestLocalisation(ExplanationMetricTests):
    component = "metric/localisation"


class TestSparseness(ExplanationMetricTests):
    component = "metric/sparseness"


class TestAgreement(ExplanationMetricTests):
    component = "metric/agreement"
    params = {"explainer": Spec("explainer/input-x-gradient")}


class Explained(ExplanationMetricTests):
    """Those that explain anew refuse the maps of another explainer: what differs is the model."""

    params = {"explainer": Spec("explainer/input-x-gradient")}

    def explained(self, model: Discriminator) -> dict[str, Any]:
        images = planted_images(32)
        return {"model": model, "explanation": Spec("explainer/input-x-gradient").build().explain(model, images)}

    def good(self) -> dict[str, Any]:
        return self.explained(LinearDiscriminator())


class TestMaxSensitivity(Explained):
    component = "metric/max-sensitivity"
    params = {"explainer": Spec("explainer/input-x-gradient"), "samples": 3}

    def bad(self) -> dict[str, Any]:
        return self.explained(Rough())


class TestRandomisation(Explained):
    component = "metric/randomisation"

    def bad(self) -> dict[str, Any]:
        return self.explained(Gain())


class TestIndependentRandomisation(TestRandomisation):
    params = {"explainer": Spec("explainer/input-x-gradient"), "mode": "independent", "absolute": True}


class Rough(LinearDiscriminator):
    """A quick wave over each pixel: its gradient turns round within the noise."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.sin(40 * images))


class Gain(Discriminator):
    """A sum with one gain, which is all that there is to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).sum(1, keepdim=True) * self.gain
