"""The autoencoder of a local diffusers folder: the library's own decoding and encoding, scaled as its pipelines do."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from genxai_core import create, units
from genxai_core.errors import BadParameter, InputError, NotInstalled, StorageError
from genxai_core.guard import guard
from genxai_core.models import CanSample, HasDensity, HasEncoder, HasLatents

diffusers = pytest.importorskip("diffusers")
NAME = "generator/diffusers-vae"


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def folder(vae_folder, tmp_path):
    """A copy of the autoencoder's folder, to spoil."""
    return shutil.copytree(vae_folder, tmp_path / "vae-copy")


def edited(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(folder, size=16, error=StorageError):
    with pytest.raises(error) as told:
        create(NAME, folder=folder, size=size)
    assert "\n" not in str(told.value)
    return str(told.value)


# -- what it computes -------------------------------------------------------------------------------------------------


def test_images_and_latents_are_the_librarys(vae_folder):
    """As Stable Diffusion 3 and Flux do: decode(z / s + μ), and (encode(x) − μ) · s."""
    vae = diffusers.AutoencoderKL.from_pretrained(vae_folder)
    model = create(NAME, folder=vae_folder, size=24)
    assert (model.image_shape, model.latent_shape) == ((3, 24, 24), (2, 6, 6))
    assert (vae.config.scaling_factor, vae.config.shift_factor) == (0.5, 0.1)
    latents, images = model.sample_latents(3, seed=0), noise(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(model(latents), vae.decode(latents / 0.5 + 0.1).sample.clamp(-1, 1))
        assert torch.equal(model.encode(images), (vae.encode(images).latent_dist.mean - 0.1) * 0.5)
    assert all(isinstance(model, capability) for capability in (CanSample, HasLatents, HasEncoder))
    assert not isinstance(model, HasDensity)


def test_latents_may_have_a_mean_and_a_deviation_per_channel(folder):
    """As the pipeline of Stable Diffusion XL does: decode(z · σ / s + μ)."""
    edited(folder / "config.json", latents_mean=[0.2, -0.3], latents_std=[1.5, 0.5], shift_factor=None)
    vae = diffusers.AutoencoderKL.from_pretrained(folder)
    model = create(NAME, folder=folder, size=16)
    latents, images = model.sample_latents(2, seed=1), noise(2, 3, 16, 16)
    mean, std = torch.tensor([0.2, -0.3]).view(1, 2, 1, 1), torch.tensor([1.5, 0.5]).view(1, 2, 1, 1)
    with torch.no_grad():
        assert torch.allclose(model(latents), vae.decode(latents * std / 0.5 + mean).sample.clamp(-1, 1), atol=1e-5)
        raw = vae.encode(images).latent_dist.mean
        assert torch.allclose(model.encode(images), (raw - mean) * 0.5 / std, atol=1e-6)


def test_a_tiny_autoencoder_is_read_too(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            scaling_factor=2.0,
        ).eval()
    tiny.save_pretrained(tmp_path)
    model = create(NAME, folder=tmp_path, size=16)
    assert model.latent_shape == (4, 8, 8)
    latents, images = model.sample_latents(2, seed=0), noise(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(latents), tiny.decode(latents / 2.0).sample.clamp(-1, 1))
        assert torch.equal(model.encode(images), tiny.encode(images).latents * 2.0)


def test_samples_are_of_standard_normal_latents(vae_folder):
    model = create(NAME, folder=vae_folder, size=16)
    samples = model.sample(3, seed=4, start=2)
    assert torch.equal(samples.latents, model.sample_latents(5, seed=4)[2:])
    assert model.sample_latents(200, seed=0).std() == pytest.approx(1, abs=0.02)
    with pytest.raises(InputError, match="unconditional"):
        model.sample(1, seed=0, labels=torch.zeros(1, dtype=torch.long))


def test_gradients_reach_latents_and_images(vae_folder):
    model = create(NAME, folder=vae_folder, size=16).double()
    latents, images = 0.1 * model.sample_latents(1, seed=0).double(), noise(1, 3, 16, 16).double()
    for function, at in ((model.forward, latents), (model.encode, images)):
        at.requires_grad_()
        direction = torch.linspace(-1, 1, at.numel(), dtype=torch.float64).view_as(at)
        (gradient,) = torch.autograd.grad(function(at).sum(), at)
        with torch.no_grad():
            difference = (function(at + 1e-6 * direction).sum() - function(at - 1e-6 * direction).sum()) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-4)


def test_units_are_recorded_and_edited_by_the_librarys_names(vae_folder):
    model = create(NAME, folder=vae_folder, size=16)
    latents = model.sample_latents(2, seed=0)
    layer = "module.decoder.up_blocks.0"
    with torch.no_grad():
        with units.record(model, [layer]) as recorded:
            plain = model(latents)
        assert recorded[layer].shape == (2, 16, 8, 8)
        handle = model.module.decoder.up_blocks[0].register_forward_hook(
            lambda _, inputs, output: output * (torch.arange(16) != 3).view(1, 16, 1, 1)
        )
        expected = model(latents)
        handle.remove()
        with units.edit(model, layer, [3], factor=0.0):
            found = model(latents)
        assert torch.allclose(found, expected, atol=1e-5)
    assert float((plain - expected).abs().max()) > 0.01


def test_a_guard_leaves_it_as_it_was(vae_folder):
    """The library's own configuration refuses to be put back, and would be left empty."""
    model = create(NAME, folder=vae_folder, size=16)
    latents = model.sample_latents(1, seed=0)
    with torch.no_grad():
        before, config = model(latents), dict(model.module.config)
        with guard(model):
            model(latents)
        assert dict(model.module.config) == config
        assert torch.equal(model(latents), before)
    assert model.module.config.latent_channels == 2
    assert not hasattr(model.module.config, "strange")


# -- what is refused --------------------------------------------------------------------------------------------------


def test_wrong_shapes_are_refused(vae_folder):
    model = create(NAME, folder=vae_folder, size=16)
    with pytest.raises(InputError, match=r"takes latents \['N', 2, 4, 4\], not \[1, 2, 8, 8\]"):
        model(torch.zeros(1, 2, 8, 8))
    with pytest.raises(InputError, match=r"takes images \['N', 3, 16, 16\], not \[1, 1, 16, 16\]"):
        model.encode(torch.zeros(1, 1, 16, 16))
    assert "size 18 must be a multiple of 4" in refusal(vae_folder, 18, BadParameter)


def test_other_folders_are_refused(folder, tmp_path, ddpm_folder):
    assert "finds no such folder" in refusal(tmp_path / "none")
    assert "holds UNet2DModel; generator/diffusers-vae reads AutoencoderKL or AutoencoderTiny" in refusal(
        ddpm_folder / "unet"
    )
    shutil.move(folder, tmp_path / "pipeline" / "vae")
    assert "a pipeline; give generator/diffusers-vae its autoencoder, the folder" in refusal(tmp_path / "pipeline")
    edited(tmp_path / "pipeline" / "vae" / "config.json", _class_name="VQModel")
    assert "holds VQModel" in refusal(tmp_path / "pipeline" / "vae")


def test_weights_must_be_safe_and_fit(folder):
    file = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({key: value for key, value in weights.items() if key != "quant_conv.bias"}, file)
    assert "quant_conv.bias" in refusal(folder)
    save_file({**weights, "strange": torch.zeros(1)}, file)
    assert "the file has besides strange" in refusal(folder)
    save_file({**weights, "quant_conv.bias": torch.zeros(7)}, file)
    assert "cannot load it" in refusal(folder)
    file.unlink()
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    assert "only pickled weights (diffusion_pytorch_model.bin)" in refusal(folder)


@pytest.mark.parametrize("said", [{"scaling_factor": "x"}, {"scaling_factor": None}, {"latents_std": "x"}], ids=str)
def test_a_damaged_scaling_is_told_in_one_line(folder, said):
    edited(folder / "config.json", **said)
    assert "config.json: generator/diffusers-vae cannot use what it says: " in refusal(folder)


def test_one_that_makes_other_channels_than_it_takes_is_refused(folder):
    with torch.random.fork_rng():
        diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, in_channels=1).save_pretrained(folder)
    assert "takes images of 1 channels and makes 3" in refusal(folder)


def test_a_missing_library_is_told_in_one_line(vae_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "-m pip install 'diffusers>=0.38'" in refusal(vae_folder, error=NotInstalled)
