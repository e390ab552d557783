"""`genxai bench`: the contest on the command line. What is heavy is imported when the command runs."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genxai_core import registry
from genxai_core.cli import Json, Plugins, put, put_json, say
from genxai_core.errors import RegistryError

if TYPE_CHECKING:
    from .scoreboard import Scoreboard
    from .task import Task

NAMES = "Explainers and trainers, parameters after a colon: cam:method=layercam, trainer/vae. Default: all that fit."


def add(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("bench")(bench)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help=NAMES, metavar="NAME")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", metavar="TASK", help="Only this task.")] = None,
    seeds: Annotated[int, typer.Option(help="Instances of each task; a verdict needs 5.")] = 5,
    list_: Annotated[bool, typer.Option("--list", help="List the tasks and what fits, and run nothing.")] = False,
    plugin: Plugins = None,
    out: Annotated[Path | None, typer.Option(help="Save the scoreboard in this folder.", metavar="DIR")] = None,
    as_json: Json = False,
) -> None:
    """Hold explainers against models whose right explanation is known."""
    import torch

    from . import contest, entering
    from .tables import lines

    torch.set_flush_denormal(True)  # as genxai run does; denormals are slow
    for path in plugin or []:
        registry.default().host.load_file(path)
    tasks = entering.chosen(task or [])
    if list_:
        _list(tasks, as_json)
        return
    specs = [entering.parse(name) for name in names or []]
    not_run: dict[str, str] = {}
    if not names:
        specs, not_run = entering.installed(tasks)
    able = entering.fitting(specs, tasks)
    if not task or not names:
        tasks = able
    say(f"{_count(specs, 'contestant')}, {_count(tasks, 'task')}, {_count(range(seeds), 'seed')}")
    board = contest.run(specs, tasks, range(seeds))
    if out is not None:
        board.save(out)
    if as_json:
        put_json({**as_plain(board), "not_run": not_run, "out": None if out is None else str(out)})
    else:
        for line in lines(board):
            put(line)
        for name, reason in not_run.items():
            put(f"{name}: not run: {reason}")
        if out is not None:
            put(f"scoreboard: {out}")
    scored = set(board.contestant)
    if any(contest.label(spec) not in scored for spec in specs if names):
        raise typer.Exit(1)


def _count(things: Sized, word: str) -> str:
    return f"{len(things)} {word}" + ("" if len(things) == 1 else "s")


def as_plain(board: Scoreboard) -> dict[str, Any]:
    """Return what a board says as plain values."""
    return {
        "tasks": {name: dict(about) for name, about in board.tasks.items()},
        "table": board.table(),
        "means": board.means(),
        "verdicts": board.verdicts(),
        "failures": board.failures,
        "left_out": board.left_out,
        "seconds": board.seconds,
        "filled": board.filled,
    }


def _list(tasks: list[Task], as_json: bool) -> None:
    """Print the tasks with what is planted in them, how they are judged, and what of the installed fits."""
    from . import contest

    targets: dict[str, Any] = {}
    for component, _ in registry.default().provided():
        if component.kind in ("explainer", "trainer"):
            try:
                targets[component.full_name] = registry.resolve(component.full_name)
            except RegistryError as error:
                say(f"warning: {error}")
    rows = [
        {
            "task": each.name,
            "says": each.says,
            "subject": each.subject,
            "explains": each.explains,
            "returns": each.returns,
            "measures": {measure.name: measure.says for measure in each.measures},
            "heuristic": each.heuristic_name,
            "fits": [name for name, target in targets.items() if not contest.misfit(each, target)],
        }
        for each in tasks
    ]
    if as_json:
        put_json(rows)
        return
    for each, row in zip(tasks, rows):
        kind = each.explains if each.explains in contest.KINDS else f"model with the capability {each.explains}"
        what = f"trainers of a {kind}" if each.subject == "trainer" else f"{each.returns} of a {kind}"
        put(f"{each.name}: {each.says}")
        put(f"  judges {what} by {', '.join(row['measures'])}")
        shows = "  (whether the model has it shows once it is trained)" if each.subject == "trainer" else ""
        put(f"  fits: {', '.join(row['fits']) or 'nothing that is installed'}{shows}\n")
