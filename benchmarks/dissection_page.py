"""The page on the speed of dissection, from the kept figures."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "dissection-speed.md"

HEAD = """# How fast dissection is

Thresholds (top 0.005) and IoU of units from the same stored activations, on one thread: ours, the authors' public
code ([gandissect](https://github.com/CSAILVision/gandissect), its own functions, imported from a checkout), and
plain torch that upsamples everything. Seconds of the processor, medians; concepts overlap.

| what | activations | authors (s) | plain torch (s) | ours (s) | faster than the authors | than plain | goal |
|---|---|---|---|---|---|---|---|"""

CHECKED = """Ours and plain torch find exact thresholds of the *upsampled* values; the authors' are estimates from the
layer's own cells, which are a sixteenth as many. Before anything is measured, ours is checked: every count
equals that of upsampling everything, bit for bit, the thresholds are those of plain torch within 2e-5 (of
two values that are equal but for rounding, ours lies just above both), and the authors' tally at our
thresholds has our counts, but for at most eight pixels of a unit and concept that lie within rounding of the
threshold. The authors' form of overlapping concepts is planes of labels; they get as few as possible."""

PARTS = """## Where the time goes, and the floor

| what | activations | ours: thresholds (s) | ours: counts (s) | authors: thresholds (s) | authors: counts (s) | cells above | reading once (s) | ours / reading |
|---|---|---|---|---|---|---|---|---|"""  # noqa: E501

WHERE = """A pixel exceeds a level only where one of its four neighbouring cells does. So the counts cost one
comparison per cell; then, for the quads of cells that touch one above the threshold, their four outermost
pixels, of which one is the largest; then, where that is above, all pixels of the quad, and a look-up of the
concepts, eight in a byte, for those that are active. In white noise the cells above lie apart, and each
brings four quads along; smooth ones share them. The thresholds cost the same on a level guessed a little
lower from 8,192 pixels of each unit, for many units at once and in whatever order they lie in memory, and a
partial sort of what exceeds it; if that is too few, a lower guess is taken, and then all pixels, so the
thresholds are exact in any case. The floor is reading the activations once (the column before the last)."""

SCALE = """## Cost of more samples

Counting in batches of 64, 16² → 64²:

| samples | units | concepts | activations | seconds | per sample and unit (µs) |
|---|---|---|---|---|---|"""

MEMORY = """To this comes the generator's and the segmenter's own work. Memory is that of one batch and of the counts
(20 blocks × units × concepts × 8 bytes), whatever the number of samples."""

AGAIN = """`python benchmarks/dissection.py --reference PATH` measures again and writes this page; the figures are kept
in `benchmarks/results/dissection.json`. That the counts are those of all pixels is held by
`tests/test_units_sparse.py`."""


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    rows, parts = [], []
    for case in kept["cases"]:
        sides = f"{case['cells']}² → {case['pixels']}²"
        what = f"{case['samples']:,} × {case['units']} units, {sides}, {case['concepts']} concepts"
        medians = {
            name: [statistics.median(column) for column in zip(*turns)] for name, turns in case["seconds"].items()
        }
        mine, theirs, plain = (medians[name] for name in ("ours", "authors", "plain"))
        found = sorted(t[2] / m[2] for t, m in zip(case["seconds"]["authors"], case["seconds"]["ours"]))
        rows.append(
            f"| {what} | {case['kind']} | {_s(theirs[2])} | {_s(plain[2])} | {_s(mine[2])} | "
            f"**{statistics.median(found):.1f} ×** | {plain[2] / mine[2]:.1f} × | {case['goal']:.0f} × |"
        )
        parts.append(
            f"| {what} | {case['kind']} | {_s(mine[0])} | {_s(mine[1])} | {_s(theirs[0])} | {_s(theirs[1])} | "
            f"{100 * case['share']:.1f} % | {_s(case['read'])} | {mine[2] / case['read']:.0f} × |"
        )
    facts = kept["machine"]
    turns = {case["samples"]: len(case["seconds"]["ours"]) for case in kept["cases"]}
    said = ", ".join(f"{n} at {samples:,} samples" for samples, n in turns.items())
    scaled = [
        f"| {r['samples']:,} | {r['units']} | {r['concepts']} | {r['kind']} | {_s(r['cpu'])} | {_each(r):.2f} |"
        for r in kept["scaling"]
    ]
    machine = (
        f"Turns of each side: {said}; a ratio is that of neighbouring runs. {facts['cpu']}, {facts['cores']} cores, "
        f"one thread, {facts['system']}, Python {facts['python']}, torch {facts['torch']}. The machine did other work "
        f"beside: load average {facts['load'][0]} before and {facts['load'][1]} after, which is why the processor's "
        f"time is given; the ratios of the clock's are in the kept figures."
    )
    return "\n".join(
        [
            HEAD,
            *rows,
            "",
            CHECKED,
            "",
            _verdict(kept["cases"]),
            "",
            PARTS,
            *parts,
            "",
            WHERE,
            "",
            SCALE,
            *scaled,
            "",
            *_extrapolated(kept["scaling"]),
            "",
            MEMORY,
            "",
            machine,
            "",
            AGAIN,
            "",
        ]
    )


def _verdict(cases: list[dict[str, Any]]) -> str:
    """Say which goals are met."""
    missed = []
    for case in cases:
        ratio = statistics.median(t[2] / m[2] for t, m in zip(case["seconds"]["authors"], case["seconds"]["ours"]))
        if ratio < case["goal"]:
            missed.append(f"{case['samples']:,} × {case['units']} units of {case['kind']} ({ratio:.1f} ×)")
    if not missed:
        return "All goals are met."
    return f"Goals that are **not** met: {'; '.join(missed)}."


def _s(seconds: float) -> str:
    """Write seconds with two digits that mean something."""
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.1f}" if seconds >= 0.995 else f"{seconds:.2g}"


def _each(row: dict[str, Any]) -> float:
    return float(1e6 * row["cpu"] / row["samples"] / row["units"])


def _extrapolated(rows: list[dict[str, Any]]) -> list[str]:
    """Say how linear it is, and what 10⁵ samples of 1,000 units would take."""
    said = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        few, many = (row for row in rows if row["kind"] == kind)
        minutes = _each(many) * 1e-6 * 1e5 * 1000 / 60
        said.append(
            f"- {kind}: ten times the samples take {many['cpu'] / few['cpu']:.1f} times as long; 100,000 samples × "
            f"1,000 units × {many['concepts']} concepts would take {minutes:.0f} minutes on one thread."
        )
    return said
