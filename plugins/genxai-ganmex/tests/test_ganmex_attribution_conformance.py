"""explainer/ganmex-attribution and its result keep their contracts, with methods of several kinds."""

from __future__ import annotations

import pytest
import torch
from genxai_ganmex.contrast import OneVsOne

from genxai_core import Spec, registry
from genxai_core.errors import NotInstalled
from genxai_core.testing import ExplainerTests, ExplanationTests

try:
    registry.resolve("explainer/integrated-gradients")
except NotInstalled:
    pytest.skip("the attributions are not installed", allow_module_level=True)

BOTH = "one-vs-one: what speaks for the other logit speaks against this one, so its patch is in the map, too"


class TestGanmexAttribution(ExplainerTests):
    component = "explainer/ganmex-attribution"
    params = {"baseline": Spec("explainer/counterfactual", {"steps": 10}), "steps": 4, "max_steps": 8}
    expected_failures = {"test_the_map_is_of_its_target_at_its_place": BOTH}


class TestGanmexAttributionByDeepLift(ExplainerTests):
    component = "explainer/ganmex-attribution"
    params = {"method": Spec("explainer/deeplift")}
    expected_failures = {"test_the_map_is_of_its_target_at_its_place": BOTH}


class TestGanmexAttributionByOcclusion(ExplainerTests):
    component = "explainer/ganmex-attribution"
    params = {"method": Spec("explainer/occlusion"), "baseline": "zero"}
    expected_failures = {"test_the_map_is_of_its_target_at_its_place": BOTH}


class TestOneVsOne(ExplanationTests):
    component = "explanation/one-vs-one"

    def example(self):
        images = torch.linspace(-1, 1, 3 * 64).view(3, 1, 8, 8)
        return OneVsOne(
            maps=images / 7,
            target=1,
            logits=torch.tensor([1.0, -2.0, 0.5]),
            baseline=-images,
            delta=torch.tensor([0.0, 0.1, 0.0]),
            images=images,
            against=torch.tensor([0, 2, 0]),
            steps=torch.tensor([16, 64, 16]),
            complete=torch.tensor([True, False, True]),
            failures=("", "no flip", ""),
        )
