"""explainer/bench keeps the contract of explainers."""

from __future__ import annotations

from genxai_core import Spec
from genxai_core.testing import ExplainerTests


class TestBench(ExplainerTests):
    component = "explainer/bench"
    params = {"contestants": (Spec("explainer/saliency"),), "tasks": ("diffusion-saliency",), "seeds": 2}
