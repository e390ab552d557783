"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from genxai_core import Component, hookimpl

if TYPE_CHECKING:
    from genxai_core.report import Section


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "explainer",
            "gan-dissection",
            "genxai_dissection.association:GanDissection",
            "IoU of each unit's active region with each concept's segmentation, with exact counts and intervals",
        ),
        Component(
            "explainer",
            "unit-effects",
            "genxai_dissection.effects:UnitEffects",
            "average causal effect of each unit, alone, on each concept, with intervals",
        ),
        Component(
            "explainer",
            "unit-intervention",
            "genxai_dissection.intervention:UnitIntervention",
            "ablates and inserts a set of units: its causal effect, ablation curves, the optimised alpha, "
            "edits to apply",
        ),
        Component(
            "trainer",
            "segmenter",
            "genxai_dissection.segmenter_training:SegmenterTrainer",
            "fits a segmenter to images with masks, and measures it on held-out ones",
        ),
        Component(
            "segmenter",
            "fixed",
            "genxai_dissection.fixed:Fixed",
            "masks that the user has: the same for every image, or each image its own",
        ),
        Component(
            "segmenter",
            "morphology",
            "genxai_dissection.morphology:Morphology",
            "stroke, holes, background, endpoints and junctions of digits, by morphology",
        ),
        Component(
            "segmenter",
            "scenes",
            "genxai_dissection.scenes:Scenes",
            "shapes and backgrounds of scenes: exact where rendered, by a shipped U-Net where generated",
        ),
        Component(
            "segmenter",
            "transformers",
            "genxai_dissection.transformers:Transformers",
            "a semantic-segmentation model of the transformers library, from a local folder",
        ),
        Component(
            "segmenter",
            "unet",
            "genxai_dissection.unet:UNet",
            "a small U-Net that gives every concept a mask of its own, at any image size",
        ),
        Component(
            "explanation",
            "dissection",
            "genxai_dissection.dissection:Dissection",
            "unit scores with the counts behind them, and the images that excite each unit most, its region outlined",
        ),
        Component(
            "explanation",
            "unit-intervention",
            "genxai_dissection.intervened:Intervention",
            "edits of a set of units, with their effects on concepts, ablation curves, and pictures before and after",
        ),
    ]


@hookimpl
def genxai_report_sections(result: Any) -> Iterable[Section]:
    """Return charts and images of a dissection, tables of an intervention."""
    from . import intervention_section, report_section

    return [*report_section.sections(result), *intervention_section.sections(result)]
