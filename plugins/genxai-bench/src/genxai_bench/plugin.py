"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from genxai_core import Component, hookimpl


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "explanation",
            "scoreboard",
            "genxai_bench.scoreboard:Scoreboard",
            "scores of contestants on tasks whose right answer is known, with intervals and verdicts",
        ),
    ]
