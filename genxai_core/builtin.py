"""What the core itself registers, through the same hook as every plugin."""

from __future__ import annotations

from collections.abc import Iterable

from .component import Component
from .hookspecs import hookimpl


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return the core's result types."""
    return [
        Component(
            "explanation",
            "attribution",
            "genxai_core.explanation:Attribution",
            "signed maps over the input, one per image",
        ),
    ]
