"""What the report adds below a scoreboard: what each task asks, and a table of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genxai_core.report import Section

from .contest import short
from .scoreboard import OPPONENTS, Scoreboard
from .tables import number
from .task import FRAME

NOTE = (
    "These are models that were made so that the right answer is known. A method that fails here is not to be believed "
    "elsewhere; one that does well here may still fail on another model."
)


def sections(result: Any) -> Iterator[Section]:
    """Yield a section per task, if the result is a scoreboard.

    Parameters
    ----------
    result
        Any step's result.
    """
    if not isinstance(result, Scoreboard):
        return
    verdicts = {(v["task"], v["contestant"], v["against"]): v["verdict"] for v in result.verdicts()}
    last = list(result.tasks)[-1:]
    for task in result.tasks:
        yield Section(
            task,
            "\n\n".join([_about(result, task), *_absent(result, task)]),
            table=[_row(result, task, name, verdicts) for name in result.contestants(task, frame=True)],
            note=NOTE if [task] == last else "",
        )


def _about(board: Scoreboard, task: str) -> str:
    about = board.tasks[task]
    said = []
    for name, measure in about["measures"].items():
        better = "higher" if measure["higher_is_better"] else "lower"
        said.append(f"{name}: {measure['says']} ({better} is better, perfect {number(measure['perfect'])})")
    text = about["says"]
    ranks = "The first one ranks; ± is half its 95 % interval." if len(said) > 1 else "± is half its 95 % interval."
    return f"{text[0].upper()}{text[1:]}. The heuristic: {about['heuristic']}. {'; '.join(said)}. {ranks}"


def _absent(board: Scoreboard, task: str) -> Iterator[str]:
    for name, given in board.filled.get(task, {}).items():
        yield f"{name}: filled in by the task: {given}"
    for name, reason in board.failures.get(task, {}).items():
        yield f"{name} failed: {reason}"
    for name, reason in board.left_out.get(task, {}).items():
        yield f"{name} does not fit: it {reason}"


def _row(board: Scoreboard, task: str, name: str, verdicts: dict[tuple[str, str, str], str]) -> dict[str, object]:
    first, *others = board.tasks[task]["measures"]
    found = board.interval(task, name)
    shown = board.called(task, name) if name in FRAME else short(name)
    row: dict[str, object] = {"rank": board.ranks(task).get(name, ""), "contestant": shown}
    row |= {first: number(found.mean), "±": f"{found.half:.3f}"}
    row |= {other: number(board.interval(task, name, other).mean) for other in others}
    for word, verdict in {"better than": "better", "worse than": "worse"}.items():
        whom = [board.called(task, o) for o in OPPONENTS if verdicts.get((task, name, o)) == verdict]
        row[word] = ", ".join(whom) or ("" if name in FRAME else "–")
    return row
