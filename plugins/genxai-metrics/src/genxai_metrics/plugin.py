"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from genxai_core import Component, hookimpl


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "discriminator",
            "inception",
            "genxai_metrics.inception:Inception",
            "Inception-v3 with weights from a file, as an extractor of features and classes; downloads nothing",
        ),
        Component(
            "metric",
            "agreement",
            "genxai_metrics.agreement:Agreement",
            "rank correlation and common top pixels of maps with those of another explainer",
        ),
        Component(
            "metric",
            "bits-per-dimension",
            "genxai_metrics.bits_per_dimension:BitsPerDimension",
            "how many bits a model's density needs for each number of a real image",
        ),
        Component(
            "metric",
            "completeness",
            "genxai_metrics.completeness:Completeness",
            "whether a map sums up to the distance of the logit from that of the baseline",
        ),
        Component(
            "metric",
            "fid",
            "genxai_metrics.fid:FID",
            "Fréchet distance of real and generated images on a model's features, with its error; biased upwards",
        ),
        Component(
            "metric",
            "inception-score",
            "genxai_metrics.inception_score:InceptionScore",
            "how surely a classifier tells generated images, and how evenly they spread over its classes",
        ),
        Component(
            "metric",
            "infidelity",
            "genxai_metrics.infidelity:Infidelity",
            "whether a map predicts what perturbing the image does to the logit",
        ),
        Component(
            "metric",
            "insertion-deletion",
            "genxai_metrics.insertion_deletion:InsertionDeletion",
            "areas under the logit while pixels are inserted, or deleted, in the order of a map",
        ),
        Component(
            "metric",
            "kid",
            "genxai_metrics.kid:KID",
            "kernel distance of real and generated images on a model's features, unbiased, with its error",
        ),
        Component(
            "metric",
            "localisation",
            "genxai_metrics.localisation:Localisation",
            "pointing game, energy and IoU of maps against masks",
        ),
        Component(
            "metric",
            "max-sensitivity",
            "genxai_metrics.max_sensitivity:MaxSensitivity",
            "how far a map moves when the image hardly does",
        ),
        Component(
            "metric",
            "mode-coverage",
            "genxai_metrics.mode_coverage:ModeCoverage",
            "which classes are generated and how often, and how varied each is, as a classifier sees it",
        ),
        Component(
            "metric",
            "precision-recall",
            "genxai_metrics.precision_recall:PrecisionRecall",
            "fidelity and diversity apart, by nearest neighbours: precision and recall, density and coverage",
        ),
        Component(
            "metric",
            "randomisation",
            "genxai_metrics.randomisation:Randomisation",
            "whether a map stays the same when the model has forgotten what it learned",
        ),
        Component(
            "metric",
            "sparseness",
            "genxai_metrics.sparseness:Sparseness",
            "on how few pixels a map concentrates: the Gini index of its magnitudes",
        ),
        Component(
            "dataset",
            "one-per-class",
            "genxai_metrics.one_per_class:OnePerClass",
            "one image of each class, repeated: what a collapsed generator gives, to test metrics on",
        ),
    ]
