"""The HTML report of a run, and the sections that plugins add to it.

`Section` and `Picture` are here for plugins and import neither torch nor matplotlib; the rest is loaded when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .section import Picture, Section

if TYPE_CHECKING:
    from .build import write_report
    from .figures import figures_of
    from .summary import summary_of

__all__ = ["Picture", "Section", "figures_of", "summary_of", "write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from .build import write_report

        return write_report
    if name == "figures_of":
        from .figures import figures_of

        return figures_of
    if name == "summary_of":
        from .summary import summary_of

        return summary_of
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
