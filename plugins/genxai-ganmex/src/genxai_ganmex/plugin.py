"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from genxai_core import Component, hookimpl


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "generator",
            "stargan",
            "genxai_ganmex.stargan:StarGAN",
            "an image and a class to an image of that class, changed where its mask says; one pass for all classes",
        ),
        Component(
            "discriminator",
            "stargan",
            "genxai_ganmex.discriminator:StarGANDiscriminator",
            "real or fake, and of which class, by strided convolutions without normalisation",
        ),
        Component(
            "trainer",
            "stargan",
            "genxai_ganmex.star_training:StarGANTrainer",
            "fits a generator that moves labelled images to any other class, and a discriminator with two heads",
        ),
        Component(
            "trainer",
            "ganmex",
            "genxai_ganmex.ganmex:GANMEXTrainer",
            "fits a generator that moves images to any class of a frozen classifier, near to where they were",
        ),
        Component(
            "explainer",
            "counterfactual",
            "genxai_ganmex.counterfactual:Counterfactuals",
            "the nearest image of another class, made in one of five ways, and what is wrong with each",
        ),
        Component(
            "explainer",
            "ganmex-attribution",
            "genxai_ganmex.attribution:GanmexAttribution",
            "why one class and not the other: the difference of two logits, from a counterfactual to the image",
        ),
        Component(
            "metric",
            "baseline-quality",
            "genxai_ganmex.quality:BaselineQuality",
            "how near, how real and how much of the target class baselines are, each beside its range over real images",
        ),
        Component(
            "explanation",
            "one-vs-one",
            "genxai_ganmex.contrast:OneVsOne",
            "maps of one class against another, with the steps that they took and what is wrong with their baselines",
        ),
    ]
