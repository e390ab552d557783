"""genxai: explain generative models, and explain with them.

``import genxai_core as gx`` imports neither torch nor any plugin; names below are loaded when first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "adapt": "",
    "adversarial": "",
    "draws": "",
    "guard": "",
    "models": "",
    "pipeline": "",
    "saliency": "",
    "saving": "",
    "storage": "",
    "training": "",
    "units": "",
    "Component": "component",
    "Spec": "component",
    "Attribution": "explanation",
    "Explanation": "explanation",
    "hookimpl": "hookspecs",
    "Attributes": "interfaces",
    "Dataset": "interfaces",
    "Explainer": "interfaces",
    "Metric": "interfaces",
    "Segmenter": "interfaces",
    "Trainer": "interfaces",
    "Discriminator": "models",
    "Generator": "models",
    "create": "registry",
    "resolve": "registry",
    "Runtime": "runtime",
    "Counterfactual": "results",
    "Direction": "results",
    "ImageScores": "results",
    "Inversion": "results",
    "UnitEdits": "results",
    "UnitScores": "results",
    "Samples": "samples",
    "load_model": "saving",
    "load_result": "saving",
    "save_model": "saving",
    "save_result": "saving",
    "Trained": "trained",
    "GenxaiError": "errors",
    "GenxaiWarning": "errors",
}

__all__ = sorted([*_PUBLIC, "__version__"])

if TYPE_CHECKING:
    from . import adapt as adapt
    from . import adversarial as adversarial
    from . import draws as draws
    from . import guard as guard
    from . import models as models
    from . import pipeline as pipeline
    from . import saliency as saliency
    from . import saving as saving
    from . import storage as storage
    from . import training as training
    from . import units as units
    from .component import Component as Component
    from .component import Spec as Spec
    from .errors import GenxaiError as GenxaiError
    from .errors import GenxaiWarning as GenxaiWarning
    from .explanation import Attribution as Attribution
    from .explanation import Explanation as Explanation
    from .hookspecs import hookimpl as hookimpl
    from .interfaces import Attributes as Attributes
    from .interfaces import Dataset as Dataset
    from .interfaces import Explainer as Explainer
    from .interfaces import Metric as Metric
    from .interfaces import Segmenter as Segmenter
    from .interfaces import Trainer as Trainer
    from .models import Discriminator as Discriminator
    from .models import Generator as Generator
    from .registry import create as create
    from .registry import resolve as resolve
    from .results import Counterfactual as Counterfactual
    from .results import Direction as Direction
    from .results import ImageScores as ImageScores
    from .results import Inversion as Inversion
    from .results import UnitEdits as UnitEdits
    from .results import UnitScores as UnitScores
    from .runtime import Runtime as Runtime
    from .samples import Samples as Samples
    from .saving import load_model as load_model
    from .saving import load_result as load_result
    from .saving import save_model as save_model
    from .saving import save_result as save_result
    from .trained import Trained as Trained


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genxai_core' has no attribute {name!r}")
    module = _PUBLIC[name]
    value = (
        getattr(importlib.import_module(f".{module}", __name__), name)
        if module
        else importlib.import_module(f".{name}", __name__)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
