"""Writes docs/results/bench.md and its pictures from the figures that benchmarks/bench.py keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from genxai_bench import tasks as bench_tasks
from genxai_bench.contest import short
from genxai_bench.scoreboard import Scoreboard
from genxai_bench.tables import number
from genxai_bench.task import FRAME
from genxai_bench.tasks import TASKS

from genxai_core.plots import png

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "results" / "bench.md"

GRAD_CAM = "explainer/cam:method=gradcam"
EARLIER = "explainer/cam:method={},layer=features.3"
MARKS = {"better": "●", "same": "○", "worse": "▼", "failed": "✗", "": ""}

READ = """
## How to read it

Every task has a model that was *made*: what its output depends on, and how much, was decided before any explainer saw
it, so there is a right answer, and a score says how near an explanation comes. Four contestants frame every task. The
**oracle** knows the answer and must score nearly perfectly; if it did not, the score would be wrong. The **random** one
answers at random. The **heuristic** is, where the answer is a map, what looks like an explanation and never saw the
model: mostly the **edge filter**, the magnitude of the image's Sobel gradient
([Adebayo et al. 2018](https://arxiv.org/abs/1810.03307)). Elsewhere it is what a person would try first, which may look
at the model. The **constant** one says the same of everything.

- Each figure is a mean over {seeds} instances, each with a model of its own, and ± is half its 95 % interval (Student's
  t). Where the answer is a map, an instance has 12 to 16 images.
- A verdict comes from Student's paired t test over the instances, since all contestants met the same ones, at 5 %,
  corrected after Holm for the number of contestants compared on the task. ● is who is better than **each** of
  heuristic, random and constant: where an edge filter is worse than nothing, a map of nothing is better than it. ▼ is
  who is worse than one of them. ○ means that neither can be told over {seeds} instances, not that there is no
  difference. One of less than 1/10,000 of the way from random to perfect is none.
- **ms** is the time for an instance.
- Means that differ by less than 1/10,000 of the way from random to perfect share a rank.
- A map is judged as it is returned, with its sign, at the image's size. Maps of a small layer brought to that size are
  blurred, which costs them energy; that is what a reader of such a map sees, too.
- CAMs are read at the layer that `layer: auto` finds, the last one with positions. `gradcam@features.3` and the like
  are read one convolution earlier in the nets of the shortcut tasks; where a net has no such layer they do not apply.
- Other parameters are the defaults. `gradcam` to `ablationcam` are the methods of `explainer/cam`; `smoothgrad`,
  `smoothgrad-sq` and `vargrad` are `explainer/noise-tunnel` over `explainer/saliency`; the others are explainers of
  their name.
"""

WHY = {
    "shortcut-patch": (
        ("gradcam", "layercam", "gradcam++", "guided-backprop", "deconvolution"),
        "Why Grad-CAM fails where a patch decides: it averages the gradient over positions, so a head that reads one "
        "place looks like a head that reads all. HiResCAM, which does not average, finds the patch. Guided "
        "backpropagation and deconvolution drop what is negative on the way, and draw edges; LayerCAM and Grad-CAM++ "
        "do so at the last layer, at which they are read by default. {earlier}The "
        "[reference](../reference/bench/shortcut.md) tells it in full.",
    ),
}
"""By task: whose failure there is explained, and how. Said only if none of them is better than what knows nothing."""

LIMITS = """
## What this cannot tell

- **A constructed model is not your model.** These are small nets that do one thing, on scenes of 16 and 32 pixels. A
  method that fails here cannot be believed elsewhere without a reason; one that does well here may fail on your model.
- Only what is planted is asked. A task about *where* says nothing of whether a map is stable, or useful to a person.
- A method is judged as an answer to the task's question. CAMs are asked for the place of small patches, at the layer
  that `layer: auto` finds; a layer that suits the model better can be chosen. The gradient is asked for a contribution
  and its sign, which it does not claim to be. Where patches lie on a grid of 4 pixels, methods that hide cells of that
  grid (SHAP and LIME with their defaults at 32 pixels) have an easy time.
- Eight instances tell large differences. Small ones stay untold; give more `--seeds` where they matter.
"""


def write(kept: dict[str, Any]) -> None:
    """Write the page and its pictures."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(kept))
    board = board_of(kept)
    for name, tasks in pictures(board).items():
        (DOCS / "images" / name).write_bytes(png(only(board, tasks).plot(), dpi=120))


def board_of(kept: dict[str, Any]) -> Scoreboard:
    """Return the kept figures as a board."""
    ordered = {task: kept["cells"][task] for task in TASKS if task in kept["cells"]}
    rows = [
        (task, name, measure, seed, value)
        for task, cells in ordered.items()
        for name, cell in cells.items()
        for measure, values in cell.get("scores", {}).items()
        for seed, value in enumerate(values)
    ]
    task, contestant, measure, seed, value = zip(*rows)

    def told(key: str) -> dict[str, dict[str, Any]]:
        found = {t: {n: c[key] for n, c in cells.items() if key in c} for t, cells in ordered.items()}
        return {t: by for t, by in found.items() if by}

    return Scoreboard(
        task,
        contestant,
        measure,
        seed,
        torch.tensor(value, dtype=torch.float64),
        filled=told("filled"),
        tasks={name: kept["tasks"][name] for name in ordered},
        failures=told("failed"),
        left_out=told("left_out"),
        seconds=told("seconds"),
    )


def only(board: Scoreboard, tasks: list[str]) -> Scoreboard:
    """Return the part of a board that is of some tasks, with the names that the page uses."""
    rows = [i for i, task in enumerate(board.task) if task in tasks]

    def at(column: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(column[i] for i in rows)

    return Scoreboard(
        at(board.task),
        tuple(map(alias, at(board.contestant))),
        at(board.measure),
        at(board.seed),
        board.value[rows],
        tasks={task: board.tasks[task] for task in tasks},
        failures={t: {alias(n): r for n, r in found.items()} for t, found in board.failures.items() if t in tasks},
    )


# -- the page -----------------------------------------------------------------------------------------------------


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    board = board_of(kept)
    contested = [task for task in board.tasks if board.contestants(task) or board.failures.get(task)]
    lines = [
        "# Which explanations are right? Planted truth, measured",
        "",
        *_findings(board, maps(board)),
        *_matrix(board, maps(board)),
        *READ.format(seeds=kept["seeds"]).splitlines(),
        "",
        "## Task by task",
        "",
    ]
    shown = pictures(board)
    for task in contested:
        lines += [f"### {task}", "", *_table(board, task)]
        for name, tasks in shown.items():
            if task == tasks[-1]:
                alt = f"Means and intervals of all contestants on {', '.join(tasks)}"
                lines += [f"![{alt}](../images/{name})", ""]
    lines += [*_waiting(board, [task for task in board.tasks if task not in contested]), *_made(kept)]
    return "\n".join([*lines, *LIMITS.strip("\n").splitlines(), ""])


def maps(board: Scoreboard) -> list[str]:
    """Return the tasks whose answer is a map, and which somebody answered."""
    return [name for name in board.tasks if bench_tasks.task(name).returns == "attribution" and board.contestants(name)]


def pictures(board: Scoreboard) -> dict[str, list[str]]:
    """Return which tasks stand in which picture."""
    found = maps(board)
    return {f"bench-{i + 1}.png": found[at : at + 2] for i, at in enumerate(range(0, len(found), 2))}


def verdicts(board: Scoreboard, tasks: list[str]) -> dict[str, dict[str, str]]:
    """Return the standing by contestant and task, ``failed`` where there are no scores."""
    found: dict[str, dict[str, str]] = {}
    for task in tasks:
        for name in board.contestants(task):
            found.setdefault(name, {})[task] = board.standing(task, name)
        for name in board.failures.get(task, {}):
            found.setdefault(name, {})[task] = "failed"

    def order(name: str) -> tuple[float, float, str]:
        ranks = [board.ranks(task)[name] for task in tasks if name in board.ranks(task)]
        wins = sum(v == "better" for v in found[name].values())
        return -wins, sum(ranks) / len(ranks) if ranks else 99.0, name

    return {name: found[name] for name in sorted(found, key=order)}


def _findings(board: Scoreboard, tasks: list[str]) -> Iterator[str]:
    """What came out, first."""
    found = verdicts(board, tasks)
    good = [name for name, by in found.items() if all(by.get(task) == "better" for task in tasks)]
    never = [
        name for name, by in found.items() if not {"better", ""} & set(by.values()) and set(by.values()) != {"failed"}
    ]
    yield (
        f"{len(found)} ways to explain a discriminator, held against {len(tasks)} models whose right explanation is "
        f"known, over {len(set(board.seed))} instances of each, beside heuristics that never saw the model, such as an "
        f"edge filter."
    )
    yield ""
    yield (
        f"- **Better than heuristic, random and constant on all {len(tasks)}: {len(good)} of {len(found)}.** "
        f"{_named(good)}."
    )
    best = []
    for task in tasks:
        first = [name for name, rank in board.ranks(task).items() if rank == 1]
        who = f"{len(first)} share it" if len(first) > 3 else _named(first)
        best.append(f"{task} {_two(board.interval(task, first[0]).mean)} ({who})")
    yield f"- **The best of each task, where 1 is right**: {', '.join(best)}."
    lost = [task for task in tasks if found[GRAD_CAM].get(task) in ("same", "worse")]
    if lost:
        at = ", ".join(f"{task} ({_two(board.interval(task, GRAD_CAM).mean)})" for task in lost)
        yield f"- **Grad-CAM, at the last layer, is no better than what knows nothing on** {at}."
    for task in tasks:
        entered = board.contestants(task)
        lost = [name for name in entered if found[name][task] == "worse"]
        same = [name for name in entered if found[name][task] == "same"]
        if lost or same:
            said = [f"Worse: {_named(lost)}."] * bool(lost) + [f"Not told: {_named(same)}."] * bool(same)
            count = f"{len(lost + same)} of {len(entered)}"
            yield f"- **No better than what knows nothing on {task}: {count}.** {' '.join(said)}"
    if never:
        yield f"- **Better than what knows nothing nowhere: {len(never)}.** {_named(never)}."
    signs = []
    for task in tasks:
        if "sign" in board.tasks[task]["measures"]:
            placed = [name for name in board.contestants(task) if found[name][task] == "better"]
            blind = [name for name in placed if board.interval(task, name, "sign").low <= 0.5]
            signs += [f"on {task} {len(blind)} of {len(placed)} ({_named(blind)})"] * bool(blind)
    yield f"- **Better in place, no better than a coin in sign**: {'; '.join(signs)}."
    yield ""
    for task, (names, why) in WHY.items():
        fails = {alias(name) for name, by in found.items() if by.get(task) in ("same", "worse")}
        if fails >= set(names):
            yield from (why.format(earlier=_earlier(board)), "")


def _earlier(board: Scoreboard) -> str:
    """Say what LayerCAM finds a convolution earlier, where that was measured and is found."""
    name, said = EARLIER.format("layercam"), []
    for task in ("shortcut-patch", "shortcut-colour"):
        if name in board.contestants(task) and board.standing(task, name) == "better":
            said.append(f"{_two(board.interval(task, name).mean)} on {task}")
    return f"One convolution earlier, LayerCAM scores {' and '.join(said)}. " if said else ""


def alias(name: str) -> str:
    """Return what the page calls a contestant: CAMs and noise tunnels by their methods, with a layer that is named."""
    method, layer = re.search(r"method=([\w+-]+)", name), re.search(r"layer=([\w.]+)", name)
    return method[1] + (f"@{layer[1]}" if layer else "") if method else short(name)


def _named(names: list[str]) -> str:
    return ", ".join(f"`{alias(name)}`" for name in names) or "none"


def _matrix(board: Scoreboard, tasks: list[str]) -> Iterator[str]:
    yield (
        "● better than each of heuristic, random and constant, ▼ worse than one of them, ○ neither can be told, ✗ does "
        "not apply (the reasons stand below). The number is the mean of the measure that ranks each task; 1 is "
        "perfect. Those that are better on most tasks come first, then those of the best mean rank."
    )
    yield ""
    yield "| contestant | " + " | ".join(task.replace("-", "-<br>") for task in tasks) + " |"
    yield "|---" * (1 + len(tasks)) + "|"
    for name, by in verdicts(board, tasks).items():
        cells = [
            f"{MARKS[by.get(t, '')]} {_two(board.interval(t, name).mean) if by.get(t, 'failed') != 'failed' else ''}"
            for t in tasks
        ]
        yield f"| `{alias(name)}` | " + " | ".join(cell.strip() for cell in cells) + " |"
    for role in ("oracle", "heuristic", "random", "constant"):
        cells = [_two(board.interval(t, role).mean) for t in tasks]
        yield f"| *{role}* | " + " | ".join(cells) + " |"


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _table(board: Scoreboard, task: str) -> Iterator[str]:
    about = board.tasks[task]
    first, *others = about["measures"]
    said = [f"**{name}**: {_direction(measure)}" for name, measure in about["measures"].items()]
    yield f"{about['says'][0].upper()}{about['says'][1:]}. {'; '.join(said)}."
    yield ""
    yield f"| | contestant | {first} | ± | {' | '.join([*others, 'verdict', 'ms'])} |"
    yield "|---" * (6 + len(others)) + "|"
    standing = {n: by[task] for n, by in verdicts(board, [task]).items()}
    ranks = board.ranks(task)
    for name in board.contestants(task, frame=True):
        found = board.interval(task, name)
        shown = f"*{board.called(task, name)}*" if name in FRAME else f"`{alias(name)}`"
        more = [number(board.interval(task, name, other).mean) for other in others]
        seconds = board.seconds.get(task, {}).get(name)
        time = "" if seconds is None else f"{1000 * seconds:.0f}"
        cells = [str(ranks.get(name, "")), shown, number(found.mean), f"{found.half:.3f}", *more]
        said = "better" if standing.get(name) == "better" else board.says(task, name)
        yield "| " + " | ".join([*cells, f"{MARKS[standing.get(name, '')]} {said}".strip(), time]) + " |"
    yield ""
    filled = {alias(name): given for name, given in board.filled.get(task, {}).items()}
    yield from (f"- Filled in by the task: `{name}`: {given}." for name, given in filled.items())
    reasons: dict[str, list[str]] = {}
    for name, reason in board.failures.get(task, {}).items():
        reasons.setdefault(reason.partition(": ")[2].partition(": ")[2], []).append(name)
    yield from (f"- Does not apply: {_named(names)}. {reason}." for reason, names in reasons.items())
    if reasons or filled:
        yield ""


def _direction(measure: dict[str, Any]) -> str:
    return f"{measure['says']} ({'higher' if measure['higher_is_better'] else 'lower'} is better)"


def _waiting(board: Scoreboard, tasks: list[str]) -> Iterator[str]:
    """The tasks for which nothing is installed yet, with what frames them."""
    if not tasks:
        return
    yield "## Tasks that wait for contestants"
    yield ""
    yield (
        "No explainer or trainer that we have yet answers these. What frames them is measured all the same, so that a "
        "new one gets its verdict at once."
    )
    yield ""
    yield "| task | measure | oracle | random | heuristic | constant |"
    yield "|---|---|---|---|---|---|"
    for task in tasks:
        cells = [number(board.interval(task, role).mean) for role in FRAME]
        cells[2] += f" ({board.tasks[task]['heuristic']})"
        yield f"| {task} | {board.first(task)} | " + " | ".join(cells) + " |"
    yield ""


def _made(kept: dict[str, Any]) -> Iterator[str]:
    facts = kept["machine"]
    yield "## How it was made"
    yield ""
    yield (
        f"`python benchmarks/bench.py` runs everything and writes this page; what it keeps is "
        f"`benchmarks/results/bench.json`, with the score of every contestant on every instance. Seeds 0 to "
        f"{kept['seeds'] - 1}; one thread each, float32; {facts['date']}. torch {facts['torch']}, captum "
        f"{facts['captum']}, genxai-core {facts['genxai-core']}, genxai-bench {facts['genxai-bench']}, "
        f"genxai-attribution {facts['genxai-attribution']}, Python {facts['python']}; {facts['cpu']}, {facts['cores']} "
        f"cores, which other work shared (load average {facts['load'][0]} to {facts['load'][1]}): the times tell the "
        f"order of magnitude. `genxai bench --seeds {kept['seeds']}` runs what is installed with its defaults, beside "
        f"[explainers of your own](../how-to/test-an-explainer.md). What is planted in each task is told in the "
        f"[reference](../reference/bench.md)."
    )
    yield ""
