"""The kit's own components conform to it, and so does the core's edited generator."""

from __future__ import annotations

import torch

import genxai_core
from genxai_core.results import UnitEdits
from genxai_core.testing import DatasetTests, DiscriminatorTests, GeneratorTests


class TestLinearGenerator(GeneratorTests):
    component = "generator/tiny-linear"


class TestLinearGeneratorInColour(GeneratorTests):
    component = "generator/tiny-linear"
    params = {"size": 32, "channels": 3}


class TestLinearDiscriminator(DiscriminatorTests):
    component = "discriminator/tiny-linear"
    params = {"num_classes": 3}


class TestQuadraticDiscriminator(DiscriminatorTests):
    component = "discriminator/tiny-quadratic"


class TestPatchDiscriminator(DiscriminatorTests):
    component = "discriminator/tiny-patch"
    params = {"channels": 3, "patch": [2, 4, 6], "sign": -1.0}


class TestConstantDiscriminator(DiscriminatorTests):
    component = "discriminator/tiny-constant"
    expected_failures = {"test_gradients_reach_the_images": "its logit does not depend on the image: that is its use"}


class TestPatchDataset(DatasetTests):
    component = "dataset/tiny-patches"


class TestEditedGenerator(GeneratorTests):
    component = "generator/edited"

    def parameters(self):
        edits = UnitEdits(layers=("layers",), units=torch.tensor([1]), factors=torch.zeros(1))
        return {"base": genxai_core.create("generator/tiny-linear"), "edits": edits}
