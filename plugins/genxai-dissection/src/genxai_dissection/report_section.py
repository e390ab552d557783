"""What the report adds below a dissection: a chart of layers and concepts, and a grid of images per concept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genxai_core.report import Picture, Section
from genxai_core.results.unit_scores import UnitScore

from .dissection import Dissection

MOST = 24
"""Of more concepts, those with the best units are drawn."""

RANKED = 10
"""Units in a concept's table."""

CUT = 0.05
"""The paper calls a unit with at least this IoU a detector of the concept."""


def sections(result: Any) -> Iterator[Section]:
    """Yield the sections, if the result is a dissection."""
    if not isinstance(result, Dissection):
        return
    notes = result.notes
    yield Section(
        "Which layer has units for what",
        f"IoU of each unit's active region with each concept, over {notes.get('samples')} images; thresholds from "
        f"{notes.get('threshold samples')} others ({notes.get('threshold')}, {notes.get('of')}).",
        figures=[
            Picture(
                result.layer_figure(CUT),
                "Layers against concepts: how many units of the layer are best for the concept.",
                f"How many units of a layer are best for a concept, with an IoU of at least {CUT}.",
            )
        ],
        table=[_row(result, concept) for concept in result.concepts],
        note="That a unit is active where a concept is does not say that it draws it: switch it off and see.",
    )
    first = {concept: result.ranking(concept)[0].score for concept in result.concepts}
    for concept in sorted(first, key=lambda c: -first[c])[:MOST]:
        ranked = _ranked(result, concept)
        if not ranked:
            continue
        figure = result.concept_figure(concept)
        alt = f"For each of the best units of {concept}, the images that excite it most, its region outlined."
        caption = "A row per unit: the images that excite it most, the strongest first; outlined, where it is active."
        yield Section(
            concept,
            "" if figure is None else f"The units that go better with {concept} than with any other concept:",
            figures=[] if figure is None else [Picture(figure, alt, caption)],
            table=ranked,
            note=f"The table has the units with the highest IoU with {concept}, also those that have a better concept.",
        )


def _row(result: Dissection, concept: str) -> dict[str, object]:
    best = result.ranking(concept)[0]
    own = [s for s in result.best() if s.concept == concept and s.score >= CUT]
    row: dict[str, object] = {"concept": concept, f"units, IoU ≥ {CUT}": len(own)}
    row |= {"best unit": f"{best.layer}:{best.unit}", "IoU": best.score, **_ends(result, best)}
    if result.concept_area is not None and result.pixels:
        row["share of all pixels"] = float(result.concept_area[result.concepts.index(concept)]) / result.pixels
    return row


def _ranked(result: Dissection, concept: str) -> list[dict[str, object]]:
    """Return the first units by their IoU with a concept: the page runs no scripts, so no table is sorted there."""
    of = {(s.layer, s.unit): s.concept for s in result.best()}
    return [
        {"layer": s.layer, "unit": s.unit, "IoU": s.score, **_ends(result, s), "best concept": of[s.layer, s.unit]}
        for s in result.ranking(concept)[:RANKED]
        if s.score > 0
    ]


def _ends(result: Dissection, score: UnitScore) -> dict[str, object]:
    """Return the ends of a score's interval, if there is one."""
    if result.intervals is None:
        return {}
    low, high = result.intervals[score.layer][score.unit, result.concepts.index(score.concept)].tolist()
    return {"low": low, "high": high}
