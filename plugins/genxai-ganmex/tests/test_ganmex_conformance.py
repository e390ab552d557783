"""Every model and trainer of this distribution keeps the contract of its kind."""

from __future__ import annotations

from genxai_core import Spec
from genxai_core.testing import DiscriminatorTests, GeneratorTests, TrainerTests


class TestStarGAN(GeneratorTests):
    component = "generator/stargan"
    params = {"size": 16, "num_classes": 3, "width": 8, "blocks": 1}


class TestStarGANOfColours(GeneratorTests):
    component = "generator/stargan"
    params = {"size": 10, "channels": 3, "num_classes": 2, "width": 8, "class_names": ("circle", "square")}


class TestStarGANDiscriminator(DiscriminatorTests):
    component = "discriminator/stargan"
    params = {"size": 16, "width": 8}


class TestStarGANDiscriminatorWithClasses(DiscriminatorTests):
    component = "discriminator/stargan"
    params = {"size": 10, "channels": 3, "num_classes": 3, "width": 8}


TINY = {
    "generator": Spec("generator/stargan", {"width": 8, "blocks": 0}),
    "discriminator": Spec("discriminator/stargan", {"width": 8}),
    "steps": 6,
    "batch": 8,
}
LINEAR = Spec("discriminator/tiny-linear", {"num_classes": 2})


class TestStarGANTrainer(TrainerTests):
    component = "trainer/stargan"
    params = TINY


class TestStarGANTrainerOfThePaper(TrainerTests):
    component = "trainer/stargan"
    params = {**TINY, "preset": "paper", "critic_steps": 2}


class TestGANMEX(TrainerTests):
    component = "trainer/ganmex"
    params = {**TINY, "classifier": LINEAR}


class TestGANMEXOfTheLecture(TrainerTests):
    component = "trainer/ganmex"
    params = {**TINY, "classifier": Spec("discriminator/tiny-patch"), "preset": "lecture"}


class TestGANMEXOfThePaper(TrainerTests):
    component = "trainer/ganmex"
    params = {**TINY, "classifier": LINEAR, "preset": "paper", "holdout": 0.0}
