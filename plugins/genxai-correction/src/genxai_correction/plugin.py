"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from genxai_core import Component, hookimpl

if TYPE_CHECKING:
    import typer

    from genxai_core.report import Section


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "dataset",
            "artifact-labels",
            "genxai_correction.labels:ArtifactLabels",
            "generated images labelled normal or artifact, by a CSV file or by their realism, and real ones beside",
        ),
        Component(
            "explainer",
            "artifact-units",
            "genxai_correction.scoring:ArtifactUnits",
            "defective score of each unit, its IoU with the masks of broken images, and what ablating it does to them",
        ),
        Component(
            "explainer",
            "correct-units",
            "genxai_correction.correcting:CorrectUnits",
            "switches artifact units off, in one layer or layer by layer, as strongly as held-out images allow",
        ),
        Component(
            "explainer",
            "correction-proof",
            "genxai_correction.proving:CorrectionProof",
            "a correction before an independent judge: artifacts, quality, diversity, collateral, beside two controls",
        ),
        Component(
            "explainer",
            "realism",
            "genxai_correction.realism:Realism",
            "how near generated images are to real ones, by nearest neighbours in a feature space",
        ),
        Component(
            "trainer",
            "artifact-classifier",
            "genxai_correction.classifier:ArtifactClassifierTrainer",
            "fits a judge of broken images to few labels of unequal classes, and says how far to trust it",
        ),
        Component(
            "explanation",
            "artifact-units",
            "genxai_correction.artifact_units:ArtifactUnitScores",
            "defective scores with causal effects, activation rates and the masks they come from",
        ),
        Component(
            "explanation",
            "correction",
            "genxai_correction.correction:Correction",
            "edits of artifact units, with the held-out figures by which they were chosen",
        ),
        Component(
            "explanation",
            "correction-proof",
            "genxai_correction.proof:Proof",
            "what a correction changed, before and after, beside its controls, with intervals and pairs of images",
        ),
    ]


@hookimpl
def genxai_report_sections(result: Any) -> Iterable[Section]:
    """Return tables, charts and pairs of images of scores, corrections and proofs."""
    from . import report_section

    return report_section.sections(result)


@hookimpl
def genxai_commands(app: typer.Typer) -> None:
    """Add ``genxai label``."""
    from . import commands

    commands.add(app)
