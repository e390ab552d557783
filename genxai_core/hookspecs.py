"""The hooks that a plugin may implement. They observe: nothing that they return can alter a result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from .component import Component
    from .report.section import Section

PROJECT = "genxai"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def genxai_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Return the components that this plugin provides. Must not import torch."""


@hookspec
def genxai_before_step(step: str, use: str, cached: bool) -> None:
    """Observe a pipeline step that is about to run, or whose result was found in the cache (``cached``)."""


@hookspec
def genxai_after_step(step: str, use: str, result: Any, seconds: float) -> None:
    """Observe a step that ran to its end, with its result and the seconds that it took."""


@hookspec
def genxai_step_failed(step: str, use: str, error: BaseException) -> None:
    """Observe a step that raised. The error propagates whatever this hook does."""


@hookspec
def genxai_report_sections(result: Any) -> Iterable[Section]:  # type: ignore[empty-body]
    """Return sections that the HTML report shows under a step, given that step's result."""


@hookspec
def genxai_commands(app: typer.Typer) -> None:
    """Add subcommands of this plugin's own to ``genxai``: ``app.command()(…)``. Heavy imports inside the command.

    Called once, when the program starts. The app is this plugin's alone: its commands and groups become the program's,
    a callback of it does not. A command whose name genxai or an earlier plugin has is left out, with a warning.
    """
