"""explainer/gan-dissection and its result keep their contracts."""

from __future__ import annotations

from pathlib import Path

import quadrants
from genxai_dissection.association import GanDissection

from genxai_core import Runtime, Spec
from genxai_core.testing import ExplainerTests, ExplanationTests


class TestGanDissection(ExplainerTests):
    component = "explainer/gan-dissection"
    plugin = Path(quadrants.__file__)
    params = {
        "segmenter": Spec("segmenter/quadrants"),
        "samples": 12,
        "threshold_samples": 10,
        "quantile": 0.9,
        "examples": 2,
    }


class TestDissection(ExplanationTests):
    component = "explanation/dissection"

    def example(self):
        method = GanDissection(quadrants.Quadrants(), samples=22, threshold_samples=10, quantile=0.9, examples=3)
        return method.explain(quadrants.painter(), runtime=Runtime(device="cpu", quiet=True))


class TestGanDissectionByMorphology(ExplainerTests):
    component = "explainer/gan-dissection"
    params = {
        "segmenter": Spec("segmenter/morphology"),
        "samples": 12,
        "threshold_samples": 10,
        "quantile": 0.9,
        "examples": 2,
    }
