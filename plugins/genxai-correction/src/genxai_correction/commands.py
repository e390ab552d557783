"""`genxai label`: what is heavy is imported when the command runs."""

from __future__ import annotations

import typer


def add(app: typer.Typer) -> None:
    """Add the command to the program."""
