"""What the core itself registers, through the same hook as every plugin."""

from __future__ import annotations

from collections.abc import Iterable

from .component import Component
from .hookspecs import hookimpl


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return the core's result types, and the generator that edits another one's units."""
    results = "genxai_core.results"
    return [
        Component(
            "generator",
            "edited",
            "genxai_core.edited:edited",
            "another generator with units switched off, scaled or set, as unit edits say",
        ),
        Component(
            "explanation",
            "attribution",
            "genxai_core.explanation:Attribution",
            "signed maps over the input, one per image",
        ),
        Component(
            "explanation",
            "counterfactual",
            f"{results}:Counterfactual",
            "images changed until the model sees another class, and by how much",
        ),
        Component(
            "explanation",
            "direction",
            f"{results}:Direction",
            "named directions in a latent space",
        ),
        Component(
            "explanation",
            "image-scores",
            f"{results}:ImageScores",
            "a number per image, shown from the lowest to the highest",
        ),
        Component(
            "explanation",
            "inversion",
            f"{results}:Inversion",
            "latents that reproduce given images, with their errors",
        ),
        Component(
            "explanation",
            "unit-edits",
            f"{results}:UnitEdits",
            "units of a generator to switch off, scale or set, where and when",
        ),
        Component(
            "explanation",
            "unit-scores",
            f"{results}:UnitScores",
            "a score for every unit of a layer and every concept",
        ),
    ]
