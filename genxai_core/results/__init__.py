"""The result types beside `Attribution`: units, edits, counterfactuals, inversions, directions, scores. No torch."""

from __future__ import annotations

from .counterfactual import Counterfactual
from .direction import Direction
from .image_scores import ImageScores
from .inversion import Inversion
from .unit_edits import UnitEdits
from .unit_scores import UnitScores

__all__ = ["Counterfactual", "Direction", "ImageScores", "Inversion", "UnitEdits", "UnitScores"]
