"""Every model and trainer of this distribution keeps the contract of its kind."""

from __future__ import annotations

from genxai_core.testing import DiscriminatorTests, GeneratorTests


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
