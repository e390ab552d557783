"""Every model and trainer of this distribution keeps the contract of its kind."""

from __future__ import annotations

from genxai_core import Spec, create
from genxai_core.testing import DiscriminatorTests, GeneratorTests, TrainerTests


class TestDCGANGenerator(GeneratorTests):
    component = "generator/dcgan"
    params = {"size": 16, "latents": 5, "width": 4}


class TestDCGANGeneratorOfNearestNeighbours(GeneratorTests):
    component = "generator/dcgan"
    params = {"size": 8, "channels": 3, "latents": 5, "width": 4, "upsampling": "nearest"}


class TestDCGANDiscriminator(DiscriminatorTests):
    component = "discriminator/dcgan"
    params = {"size": 16, "width": 4}


class TestDCGANDiscriminatorOfColours(DiscriminatorTests):
    component = "discriminator/dcgan"
    params = {"size": 8, "channels": 3, "width": 4}


class TestConditionalDCGANGenerator(GeneratorTests):
    component = "generator/dcgan"
    params = {"size": 16, "latents": 5, "width": 4, "num_classes": 3, "class_names": ("a", "b", "c")}


class TestDCGANGeneratorOfOneClass(GeneratorTests):
    component = "generator/given"

    def parameters(self):
        return {"base": create("generator/dcgan", size=8, latents=5, width=4, num_classes=3).eval(), "labels": 1}


class TestDCGANDiscriminatorOfOneClass(DiscriminatorTests):
    component = "discriminator/given"

    def parameters(self):
        return {"base": create("discriminator/dcgan", size=16, width=4, num_classes=3).eval(), "labels": 2}


class TestClassifier(DiscriminatorTests):
    component = "discriminator/classifier"
    params = {"size": 16, "num_classes": 3, "width": 8, "feature_size": 6, "class_names": ("a", "b", "c")}


class TestClassifierOfColours(DiscriminatorTests):
    component = "discriminator/classifier"
    params = {"size": 11, "channels": 3, "num_classes": 2, "width": 8, "feature_size": 3}


class TestClassifierTrainer(TrainerTests):
    component = "trainer/classifier"
    params = {"model": Spec("discriminator/classifier", {"width": 8, "feature_size": 6}), "steps": 6, "batch": 8}


class TestClassifierTrainerWithoutHoldout(TrainerTests):
    component = "trainer/classifier"
    params = {"model": Spec("discriminator/tiny-linear"), "steps": 7, "batch": 5, "lr": 0.1, "holdout": 0.0}
