"""What the report adds below a dissection: a chart of layers and concepts, and a grid of images per concept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genxai_core.report import Picture, Section

from .dissection import Dissection

MOST = 24
"""Of more concepts, those with the best units are drawn."""

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
        figure = result.concept_figure(concept)
        if figure is not None:
            alt = f"For each of the best units of {concept}, the images that excite it most, its region outlined."
            caption = (
                "A row per unit: the images that excite it most, the strongest first; outlined, where it is active."
            )
            yield Section(concept, figures=[Picture(figure, alt, caption)])


def _row(result: Dissection, concept: str) -> dict[str, object]:
    best = result.ranking(concept)[0]
    own = [s for s in result.best() if s.concept == concept and s.score >= CUT]
    row: dict[str, object] = {"concept": concept, f"units, IoU ≥ {CUT}": len(own)}
    row |= {"best unit": f"{best.layer}:{best.unit}", "IoU": best.score}
    if result.intervals is not None:
        low, high = result.intervals[best.layer][best.unit, result.concepts.index(concept)].tolist()
        row |= {"low": low, "high": high}
    if result.concept_area is not None and result.pixels:
        row["share of all pixels"] = float(result.concept_area[result.concepts.index(concept)]) / result.pixels
    return row
