"""What the command line prints while steps run: an observer, like any plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .hookspecs import hookimpl


class Steps:
    """Prints a line per step.

    Parameters
    ----------
    total
        How many steps there are.
    say
        Prints a line.
    """

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.total, self.say, self.number = total, say, 0

    def _line(self, step: str, use: str, text: str) -> None:
        width = len(str(self.total))
        self.say(f"[{self.number:{width}}/{self.total}] {step} ({use}) {text}")

    @hookimpl
    def genxai_before_step(self, step: str, use: str, cached: bool) -> None:
        """Say that a step begins, or was done already."""
        self.number += 1
        self._line(step, use, "was done already" if cached else "…")

    @hookimpl
    def genxai_after_step(self, step: str, use: str, result: Any, seconds: float) -> None:
        """Say how long it took, and the figures of a metric."""
        figures = ""
        if isinstance(result, dict):
            figures = ": " + ", ".join(f"{k} {v:.4g}" for k, v in result.items() if isinstance(v, float))
        self._line(step, use, f"took {seconds:.1f} s{figures}")

    @hookimpl
    def genxai_step_failed(self, step: str, use: str, error: BaseException) -> None:
        """Say that it failed; the error itself follows as the program's last line."""
        self._line(step, use, "failed")
