"""Every explainer that we have on every task that fits, over eight seeds: the figures of docs/results/bench.md.

    python benchmarks/bench.py                      # run what is not kept yet, then write the page
    python benchmarks/bench.py --task shortcut-patch --again   # run one task anew
    python benchmarks/bench.py --write              # only write the page and its pictures from the kept figures

Figures are kept in results/bench.json as each contestant has finished a task, so an interrupted run goes on where it
was, and several processes may share the work by --task.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genxai_bench.task import FRAME

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "bench.json"
SEEDS = 8

CAMS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigengradcam", "eigencam", "finer-cam")
CAMS += ("scorecam", "ablationcam")
EARLIER = ("layercam", "hirescam", "gradcam")
"""CAMs that are read at features.3 too, one convolution before the last one of the nets that have such a layer."""

TUNNELS = ("smoothgrad", "smoothgrad-sq", "vargrad")


def contestants() -> list[Any]:
    """Return every explainer that is installed with its default parameters, all CAMs, and noise tunnels."""
    from genxai_bench import entering

    from genxai_core import Spec

    found = entering.installed(entering.chosen([]))
    specs = [spec for spec in found.specs if spec.use not in ("explainer/cam", "explainer/noise-tunnel")]
    specs += [Spec("explainer/cam", {"method": method}) for method in CAMS]
    specs += [Spec("explainer/cam", {"method": method, "layer": "features.3"}) for method in EARLIER]
    saliency = Spec("explainer/saliency")
    return [*specs, *(Spec("explainer/noise-tunnel", {"explainer": saliency, "method": m}) for m in TUNNELS)]


def run(tasks: list[str], again: bool) -> None:
    """Run what is not kept yet, cheap contestants first, and keep each as soon as it is done."""
    import torch
    from genxai_bench import contest
    from genxai_bench.tasks import task

    from genxai_core import Runtime

    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    specs = {contest.label(spec): spec for spec in contestants()}
    slow = ("lime", "shapley", "shap", "occlusion", "scorecam")
    order = sorted(specs, key=lambda name: any(word in name for word in slow))
    if again:
        keep(lambda kept: [kept["cells"].pop(name, None) for name in tasks])
    for name in tasks:
        made = task(name)
        made.problem = functools.cache(made.problem)  # type: ignore[method-assign]  # the same for all contestants
        for entered in ("", *order):
            cells = kept_figures()["cells"].get(name, {})
            if (entered or FRAME[0]) in cells:
                continue
            reason = contest.misfit(made, contest.resolved(specs[entered]), made.problem(0)) if entered else ""
            if reason:
                keep(functools.partial(_enter, task=name, found={entered: {"left_out": reason}}))
                continue
            board = contest.run([specs[entered]] if entered else [], [made], range(SEEDS), Runtime(quiet=True))
            found = cells_of(board, name, entered)
            keep(functools.partial(_enter, task=name, found=found, about=board.tasks[name]))
            print(f"{datetime.now(UTC):%H:%M:%S}  {name}  {entered or 'the frame'}", flush=True)


def cells_of(board: Any, task: str, entered: str) -> dict[str, Any]:
    """Return what a board says of a contestant, or of the four that frame the task."""
    if entered in board.failures.get(task, {}):
        return {entered: {"failed": board.failures[task][entered]}}
    found = {}
    for name in [entered] if entered else FRAME:
        scores = {
            measure: [float(f"{value:.8g}") for value in board.scores(task, name, measure).values()]
            for measure in board.tasks[task]["measures"]
        }
        found[name] = {"scores": scores}
        if entered:
            found[name]["seconds"] = round(board.seconds[task][name], 4)
            found[name] |= {"filled": board.filled[task][name]} if name in board.filled.get(task, {}) else {}
    return found


def _enter(kept: dict[str, Any], task: str, found: dict[str, Any], about: Any = None) -> None:
    kept["tasks"][task] = about or kept["tasks"][task]
    kept["cells"].setdefault(task, {}).update(found)
    loads = [*kept["machine"].get("load", []), round(os.getloadavg()[0], 1)]
    kept["machine"] = {**machine(), "load": [min(loads), max(loads)]}


# -- what is kept -------------------------------------------------------------------------------------------------


def kept_figures() -> dict[str, Any]:
    """Return what is kept so far."""
    if FIGURES.is_file():
        found: dict[str, Any] = json.loads(FIGURES.read_text())
        return found
    return {"seeds": SEEDS, "tasks": {}, "cells": {}, "machine": {}}


def keep(change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is kept while no other process does."""
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    with (Path(tempfile.gettempdir()) / "genxai-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = kept_figures()
        change(kept)
        written = FIGURES.with_suffix(".part")
        written.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        written.replace(FIGURES)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        **{name: version(name) for name in ("torch", "captum", "genxai-core", "genxai-bench", "genxai-attribution")},
    }


def main() -> None:
    """Run or write, as asked."""
    from genxai_bench.tasks import TASKS

    sys.path.insert(0, str(HERE))
    import bench_page

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only this task; may be repeated")
    parser.add_argument("--again", action="store_true", help="forget what is kept of these tasks")
    parser.add_argument("--write", action="store_true", help="only write the page and its pictures")
    asked = parser.parse_args()
    if not asked.write:
        run(asked.task or list(TASKS), asked.again)
    bench_page.write(kept_figures())


if __name__ == "__main__":
    main()
