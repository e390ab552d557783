"""How long ``genxai list`` takes, as the whole process that a person waits for.

    python benchmarks/list_time.py            # measure, keep list_time.json, write docs/results/cli.md
    python benchmarks/list_time.py --write    # only write the page again from the kept figures
    python benchmarks/list_time.py --check    # measure and exit with 1 if user time is over the limit

The programs take turns, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "list_time.json"
PAGE = HERE.parent / "docs" / "results" / "cli.md"
LIMIT = 0.3
"""Seconds of user time that ``genxai list`` may take."""

PROGRAMS = {
    "python -c pass": ["-c", "pass"],
    "genxai list": ["-m", "genxai_core", "list"],
    "genxai --help": ["-m", "genxai_core", "--help"],
    'python -c "import torch"': ["-c", "import torch"],
}


def once(arguments: list[str]) -> tuple[float, float]:
    """Return the user time and the wall time of one process, in seconds."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=quiet())
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed with {process.returncode}")
    return usage.ru_utime, wall


def quiet() -> dict[str, str]:
    """Return an environment in which no variable of ours or of Python's changes what is measured, but for the path."""
    return {k: v for k, v in os.environ.items() if k == "PYTHONPATH" or not k.startswith(("GENXAI_", "PYTHON"))}


def measure(runs: int) -> dict[str, object]:
    """Run every program once without counting it, to fill the caches, then ``runs`` times in turn."""
    load = [round(os.getloadavg()[0], 1)]
    for arguments in PROGRAMS.values():
        once(arguments)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(runs):
        for name, arguments in PROGRAMS.items():
            took[name].append(once(arguments))
    figures = {
        name: {"user": [round(u, 4) for u, _ in pairs], "wall": [round(w, 4) for _, w in pairs]}
        for name, pairs in took.items()
    }
    load.append(round(os.getloadavg()[0], 1))
    return {"limit": LIMIT, "runs": runs, "machine": {**machine(), "load": load}, "seconds": figures}


def machine() -> dict[str, object]:
    """What the figures depend on."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    plugins = json.loads(subprocess.check_output([sys.executable, "-m", "genxai_core", "list", "--json"], env=quiet()))
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "typer", "pydantic", "pluggy")},
        "components": len(plugins),
        "plugins": len({row["distribution"] for row in plugins if row["status"] == "installed"}),
    }


def page(kept: dict) -> str:
    """Write the page from the kept figures."""
    rows = []
    for name, seconds in kept["seconds"].items():
        user, wall = sorted(seconds["user"]), statistics.median(seconds["wall"])
        rows.append(f"| `{name}` | {statistics.median(user):.3f} | {user[0]:.3f} to {user[-1]:.3f} | {wall:.3f} |")
    facts, listed = kept["machine"], statistics.median(kept["seconds"]["genxai list"]["user"])
    verdict = "within" if listed <= kept["limit"] else "over"
    return "\n".join(
        [
            "# What the command line costs",
            "",
            f"`genxai list` takes {listed:.2f} s of user time, {verdict} the limit of {kept['limit']} s: it finds "
            f"every plugin and imports neither torch nor what the plugins wrap.",
            "",
            "| program | user time, median (s) | smallest to largest (s) | wall time, median (s) |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Whole processes, {kept['runs']} runs of each, taking turns, files in the system's cache, standard output "
            f"thrown away. {facts['cpu']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}, torch "
            f"{facts['torch']}, typer {facts['typer']}, pydantic {facts['pydantic']}, pluggy {facts['pluggy']}; "
            f"{facts['components']} components from {facts['plugins']} installed distributions. Load average before "
            f"and after: {facts['load'][0]} and {facts['load'][1]}; above the number of cores it stretches wall time, "
            f"and user time less.",
            "",
            "`python benchmarks/list_time.py` measures again and writes this page; the figures are kept in "
            "`benchmarks/results/list_time.json`. `tests/test_budgets.py` holds what is imported.",
            "",
        ]
    )


def main() -> None:
    """Measure or write, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=21, help="runs of each program (at least 15)")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if genxai list is over the limit; keep nothing"
    )
    asked = parser.parse_args()
    if asked.runs < 15:
        parser.error("--runs must be at least 15: a median of fewer says little")
    kept = json.loads(FIGURES.read_text()) if asked.write else measure(asked.runs)
    listed = statistics.median(kept["seconds"]["genxai list"]["user"])
    print(f"genxai list: {listed:.3f} s of user time (limit {LIMIT} s)")
    if not asked.check:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(kept))
    sys.exit(asked.check and listed > LIMIT)


if __name__ == "__main__":
    main()
