"""The board as text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .contest import short
from .scoreboard import Scoreboard
from .task import FRAME


def lines(board: Scoreboard) -> Iterator[str]:
    """Yield the lines of a table for every task, and what it comes to for every contestant."""
    for task in board.tasks:
        yield from _task(board, task)
        yield ""
    yield from _verdicts(board)


def _task(board: Scoreboard, task: str) -> Iterator[str]:
    about = board.tasks[task]
    first, *others = about["measures"]
    yield f"{task}: {about['says']}"
    for name, measure in about["measures"].items():
        better = "higher" if measure["higher_is_better"] else "lower"
        yield f"  {name}: {measure['says']}; {better} is better, perfect {number(measure['perfect'])}"
    ranks = board.ranks(task)
    rows = [["", "", first, "±", *others, "verdict"]]
    for name in board.contestants(task, frame=True):
        found = board.interval(task, name)
        rows.append(
            [
                str(ranks.get(name, "·")),
                board.called(task, name) if name in FRAME else short(name),
                number(found.mean),
                f"{found.half:.3f}",
                *(number(board.interval(task, name, other).mean) for other in others),
                board.says(task, name),
            ]
        )
    yield from (f"  {line}" for line in aligned(rows, right={0, *range(2, 4 + len(others))}))
    for name, given in board.filled.get(task, {}).items():
        yield f"  – filled in by the task: {short(name)}: {given}"
    for name, reason in board.failures.get(task, {}).items():
        yield f"  ✗ {short(name)} failed: {reason}"
    reasons: dict[str, list[str]] = {}
    for name, reason in board.left_out.get(task, {}).items():
        reasons.setdefault(reason, []).append(short(name))
    for reason, names in reasons.items():
        yield f"  – does not fit: {', '.join(names)}: {reason}"


def _verdicts(board: Scoreboard) -> Iterator[str]:
    """One line for every contestant: where it is better than all that do not know the truth, and where it is not."""
    found: dict[str, dict[str, list[str]]] = {}
    for task in board.tasks:
        for name in board.contestants(task):
            found.setdefault(name, {}).setdefault(board.standing(task, name), []).append(task)
    for task, failed in board.failures.items():
        for name in failed:
            found.setdefault(name, {}).setdefault("failed", []).append(task)
    words = {
        "better": "better than heuristic, random and constant on",
        "same": "cannot be told on",
        "worse": "worse than one of them on",
        "failed": "failed on",
    }
    for name, by_verdict in found.items():
        said = [f"{words[verdict]} {', '.join(by_verdict[verdict])}" for verdict in words if verdict in by_verdict]
        yield f"{name}: {'; '.join(said)}"


def aligned(rows: Sequence[Sequence[str]], right: set[int]) -> Iterator[str]:
    """Yield rows with their columns under each other, those in ``right`` flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [text.rjust(w) if i in right else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths))]
        yield "  ".join(cells).rstrip()


def number(value: float | None) -> str:
    """Write a score with three decimals, or with two digits where that would be zero or long."""
    if value is None:
        return ""
    text = f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"
    if float(text) == 0:
        text = "0" if abs(value) < 1e-9 else f"{value:.1e}"
    return text.replace("-", "−")
