"""What the tests of the report share."""

from __future__ import annotations

import sys
import types

import pytest
from report_runs import Kid, attribution, images, write_run

from genxai_core import registry
from genxai_core.component import Component
from genxai_core.hookspecs import hookimpl
from genxai_core.plugins import PluginHost
from genxai_core.samples import Samples
from genxai_core.trained import Trained


@pytest.fixture
def run(tmp_path):
    history = {"step": [0, 1, 2], "loss": [3.0, 2.0, 1.0]}
    results = {
        ("digits", "dataset/digits"): Samples(images(), value_range=(0.0, 1.0)),
        ("plain", "trainer/gan"): Trained({}, history, {"steps": 3}),
        ("guided", "trainer/xai-gan"): Trained({}, {**history, "mask": [0.1, 0.2, 0.3]}),
        ("fakes", "dataset/generated"): Samples(images(shift=0.3), value_range=(0.0, 1.0)),
        ("saliency", "explainer/saliency"): attribution(provenance={"explainer": {"use": "explainer/saliency"}}),
        ("cam", "explainer/cam"): attribution(1.0, notes={"layer": "features.3"}),
        ("kid_plain", "metric/kid"): {"kid": 0.123456, "n": 64},
        ("kid_guided", "metric/kid"): {"kid": 0.1, "coverage": 0.75},
        ("broken", "explainer/lime"): None,
        ("after", "metric/kid"): None,
    }
    entries = {
        "guided": {"with": {"explainer": {"use": "explainer/saliency", "with": {}}}, "call": {"data": "$digits"}},
        "plain": {"call": {"data": "$digits"}},
        "fakes": {"call": {"model": "$plain.generator"}, "status": "cached"},
        "cam": {"call": {"model": "$plain.discriminator", "inputs": "$fakes[:4]"}, "with": {"method": "gradcam"}},
        "broken": {"error": "the logit is constant"},
        "after": {"status": "not run", "call": {"explanation": "$broken"}},
    }
    return write_run(tmp_path / "run", results, entries=entries)


@pytest.fixture
def plugins():
    """Make a registry of given hook functions, and a metric, the process's one."""
    stack = []

    def install(**hooks):
        module = types.ModuleType("report_test_plugin")
        module.Kid = Kid
        module.genxai_components = hookimpl(
            lambda: [Component("metric", "kid", "report_test_plugin:Kid", "kernel inception distance, tested")]
        )
        module.__dict__.update({name: hookimpl(hook) for name, hook in hooks.items()})
        sys.modules["report_test_plugin"] = module
        context = registry.using(registry.Registry(PluginHost([registry.builtin, module], entry_points=[])))
        stack.append(context)
        context.__enter__()

    yield install
    while stack:
        stack.pop().__exit__(None, None, None)
    sys.modules.pop("report_test_plugin", None)
