"""The conformance kit: hold a plugin's component to its contract with one class, run by pytest.

    from genxai_core.testing import ExplainerTests

    class TestOcclude(ExplainerTests):
        component = "explainer/occlude"

Needs pytest; `genxai_core` itself never imports this package. It checks the version of the plugin API that
`genxai_core.component.API` names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "ComponentTests": "contract",
    "DatasetTests": "datasets",
    "DiscriminatorTests": "discriminators",
    "ExplainerTests": "explainers",
    "ExplanationTests": "explanations",
    "GeneratorTests": "generators",
    "MetricTests": "metrics",
    "SegmenterTests": "segmenters",
    "TrainerTests": "trainers",
    "IsolatedRegistry": "fixtures",
    "isolated": "fixtures",
    "isolated_registry": "fixtures",
    "with_plugin": "fixtures",
    "ConstantDiscriminator": "models",
    "LinearDiscriminator": "models",
    "LinearGenerator": "models",
    "PatchDiscriminator": "models",
    "QuadraticDiscriminator": "models",
    "planted_images": "models",
    "PatchDataset": "data",
    "expect": "expectations",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from .contract import ComponentTests as ComponentTests
    from .data import PatchDataset as PatchDataset
    from .datasets import DatasetTests as DatasetTests
    from .discriminators import DiscriminatorTests as DiscriminatorTests
    from .expectations import expect as expect
    from .explainers import ExplainerTests as ExplainerTests
    from .explanations import ExplanationTests as ExplanationTests
    from .fixtures import IsolatedRegistry as IsolatedRegistry
    from .fixtures import isolated as isolated
    from .fixtures import isolated_registry as isolated_registry
    from .fixtures import with_plugin as with_plugin
    from .generators import GeneratorTests as GeneratorTests
    from .metrics import MetricTests as MetricTests
    from .models import ConstantDiscriminator as ConstantDiscriminator
    from .models import LinearDiscriminator as LinearDiscriminator
    from .models import LinearGenerator as LinearGenerator
    from .models import PatchDiscriminator as PatchDiscriminator
    from .models import QuadraticDiscriminator as QuadraticDiscriminator
    from .models import planted_images as planted_images
    from .segmenters import SegmenterTests as SegmenterTests
    from .trainers import TrainerTests as TrainerTests


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
