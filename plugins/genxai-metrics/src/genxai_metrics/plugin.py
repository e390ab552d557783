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
            "kid",
            "genxai_metrics.kid:KID",
            "kernel distance of real and generated images on a model's features, unbiased, with its error",
        ),
        Component(
            "dataset",
            "one-per-class",
            "genxai_metrics.one_per_class:OnePerClass",
            "one image of each class, repeated: what a collapsed generator gives, to test metrics on",
        ),
    ]
