"""The tasks, by name. Each is imported when it is first asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from genxai_core.errors import InputError

from ..task import Task

TASKS: Mapping[str, str] = {
    "shortcut-patch": "shortcut:Patch",
    "shortcut-two-patches": "shortcut:TwoPatches",
    "shortcut-colour": "shortcut:Colour",
    "trained-shortcut": "trained:TrainedShortcut",
    "planted-units": "units:PlantedUnits",
    "planted-artifacts": "artifacts:PlantedArtifacts",
    "planted-direction": "direction:PlantedDirection",
    "planted-direction-correlated": "direction:CorrelatedDirection",
    "planted-direction-spurious": "direction:SpuriousDirection",
    "planted-code": "code:PlantedCode",
    "counterfactual-linear": "counterfactual:LinearCounterfactual",
    "counterfactual-quadratic": "counterfactual:QuadraticCounterfactual",
    "counterfactual-attribution": "counterfactual_attribution:CounterfactualAttribution",
    "noise-prediction": "diffusion:NoisePrediction",
    "diffusion-saliency": "diffusion_saliency:DiffusionSaliency",
    "log-density": "density:LogDensity",
    "posterior": "posterior:Posterior",
    "density-ratio": "density_ratio:DensityRatio",
}
"""Name -> module and class in this package."""


def task(name: str, **parameters: Any) -> Task:
    """Make a task by name, with its parameters for size and difficulty.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the tasks are: {', '.join(TASKS)}"
        raise InputError(f"no task is named {name!r}; {hint}")
    module, _, attribute = TASKS[name].partition(":")
    made: Task = getattr(importlib.import_module(f".{module}", __name__), attribute)(**parameters)
    return made
