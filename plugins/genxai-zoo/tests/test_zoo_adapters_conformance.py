"""Every adapter of another library keeps the contract of its kind."""

from __future__ import annotations

import pytest

from genxai_core.testing import DiscriminatorTests, GeneratorTests

pytest.importorskip("torchvision")


class TestTorchvisionResNet(DiscriminatorTests):
    component = "discriminator/torchvision"
    params = {"architecture": "resnet18", "num_classes": 3, "size": 32, "class_names": ("a", "b", "c")}


class TestTorchvisionShuffleNetOfGray(DiscriminatorTests):
    component = "discriminator/torchvision"
    params = {
        "architecture": "shufflenet_v2_x0_5",
        "num_classes": 2,
        "size": 64,
        "channels": 1,
        "value_range": (0.0, 1.0),
    }


class TestTransformersViT(DiscriminatorTests):
    component = "discriminator/transformers"

    @pytest.fixture(autouse=True)
    def _folder(self, vit_folder):
        self.folder = vit_folder

    def parameters(self):
        return {"folder": self.folder}


class TestDiffusersVAE(GeneratorTests):
    component = "generator/diffusers-vae"

    @pytest.fixture(autouse=True)
    def _folder(self, vae_folder):
        self.folder = vae_folder

    def parameters(self):
        return {"folder": self.folder, "size": 16}


class TestDiffusersByDDPM(GeneratorTests):
    component = "generator/diffusers"
    sampler = None

    @pytest.fixture(autouse=True)
    def _folder(self, ddpm_folder):
        self.folder = ddpm_folder

    def parameters(self):
        return {"folder": self.folder, "steps": 4, "sampler": self.sampler}


class TestDiffusersByDDIM(TestDiffusersByDDPM):
    sampler = "ddim"
