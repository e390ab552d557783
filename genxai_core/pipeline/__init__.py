"""Pipelines: steps named in YAML, checked before anything runs, cached by content, resumable."""

from __future__ import annotations

from .plan import Plan, plan
from .run import Run, run
from .schema import Pipeline, read

__all__ = ["Pipeline", "Plan", "Run", "plan", "read", "run"]
