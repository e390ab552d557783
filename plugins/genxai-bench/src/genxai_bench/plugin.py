"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from genxai_core import Component, hookimpl

if TYPE_CHECKING:
    import typer

    from genxai_core.report import Section


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "explainer",
            "bench",
            "genxai_bench.bench:Bench",
            "holds explainers against models whose right explanation is known",
        ),
        Component(
            "explanation",
            "scoreboard",
            "genxai_bench.scoreboard:Scoreboard",
            "scores of contestants on tasks whose right answer is known, with intervals and verdicts",
        ),
    ]


@hookimpl
def genxai_commands(app: typer.Typer) -> None:
    """Add ``genxai bench``."""
    from .commands import add

    add(app)


@hookimpl
def genxai_report_sections(result: Any) -> Iterable[Section]:
    """Return what each task asks and its table, for a scoreboard."""
    from .report_section import sections

    return list(sections(result))
