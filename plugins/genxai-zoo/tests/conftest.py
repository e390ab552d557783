"""Tiny models of diffusers and transformers with random weights, in folders as these libraries write them."""

from __future__ import annotations

import pytest
import torch

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Nothing may need the network: whoever asks for a hub is refused at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    """A vision transformer of 32 px and three classes, and its preprocessing."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        initializer_range=0.3,
        id2label={0: "cat", 1: "dog", 2: "newt"},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}, **IMAGENET).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory):
    """An AutoencoderKL that shrinks images fourfold, with a scaling and a shift."""
    diffusers = pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=2,
            norm_num_groups=4,
            scaling_factor=0.5,
            shift_factor=0.1,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def unet():
    """Make a U-Net of 16 px; options are those of UNet2DModel."""
    diffusers = pytest.importorskip("diffusers")

    def make(**options):
        settings = {
            "sample_size": 16,
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return diffusers.UNet2DModel(**{**settings, **options}).eval()

    return make


@pytest.fixture(scope="session")
def ddpm_folder(tmp_path_factory, unet):
    """A DDPMPipeline of 16 px gray images."""
    diffusers = pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("ddpm")
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()).save_pretrained(folder)
    return folder
