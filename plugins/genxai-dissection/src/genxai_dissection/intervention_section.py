"""What the report adds below an intervention: its effect on each concept, and the pairs of units, in tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genxai_core.report import Section

from .intervened import Intervention

MOST = 20
"""Pairs in the table: those with the largest excess."""


def sections(result: Any) -> Iterator[Section]:
    """Yield the sections, if the result is of an intervention."""
    if not isinstance(result, Intervention):
        return
    notes = result.notes
    units = ", ".join(str(unit) for unit in result.chosen.tolist())
    yield Section(
        "What the units cause",
        f"Units {units} of {result.layer}, ablated and inserted at the same places ({notes.get('locations')}) of the "
        f"same samples ({notes.get('samples')}). Shares of pixels that show each concept; the effect is inserted less "
        f"ablated, with its 95 % interval; relative: divided by the unedited share.",
        table=result.effect_table(),
        note="An effect is what this model does with these units off, or at k. An insertion in all cells may make "
        "images that no latent makes.",
    )
    if result.pairs is None or result.drops is None or result.excess is None or result.excess_intervals is None:
        return
    rows = []
    for (u, v), drops, excess, ends in zip(
        result.pairs[:MOST].tolist(),
        result.drops[:MOST].tolist(),
        result.excess[:MOST].tolist(),
        result.excess_intervals[:MOST].tolist(),
    ):
        alone = {"first": u, "second": v, "drop, first off": drops[0], "drop, second off": drops[1]}
        rows.append({**alone, "drop, both off": drops[2], "excess": excess, "low": ends[0], "high": ends[1]})
    yield Section(
        "Units that stand in for each other",
        f"How much the share of {result.concept} drops with one unit off, and with both; the excess is what both "
        f"together remove beyond the sum. The {len(rows)} pairs with the largest excess, of {len(result.pairs)}.",
        table=rows,
    )
