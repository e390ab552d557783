"""Diffusion models of local diffusers folders: the library's own predictions and samples on the same noise."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from genxai_core import UnitEdits, create, draws
from genxai_core.errors import BadParameter, InputError, NotInstalled, StorageError
from genxai_core.models import CanSample, Denoises, HasLatents

diffusers = pytest.importorskip("diffusers")
from diffusers.pipelines.ddim import pipeline_ddim  # noqa: E402
from diffusers.pipelines.ddpm import pipeline_ddpm  # noqa: E402

NAME = "generator/diffusers"


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def generators(seed, n):
    """The generators of the noise of each image's steps."""
    return [torch.Generator().manual_seed(int(draws.generator(seed, i, "steps").integers(2**63))) for i in range(n)]


def edited(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(folder, error=StorageError, **params):
    with pytest.raises(error) as told:
        create(NAME, folder=folder, **params)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.fixture
def pipeline(ddpm_folder, tmp_path):
    """A copy of the pipeline's folder, to change."""
    return shutil.copytree(ddpm_folder, tmp_path / "pipeline")


# -- what it predicts -------------------------------------------------------------------------------------------------


def test_predictions_are_the_librarys(ddpm_folder):
    model = create(NAME, folder=ddpm_folder)
    unet = diffusers.UNet2DModel.from_pretrained(ddpm_folder / "unet")
    x, t = noise(3, 1, 16, 16), torch.tensor([0, 500, 999])
    with torch.no_grad():
        assert torch.equal(model.predict(x, t), unet(x, t).sample)
    assert all(isinstance(model, capability) for capability in (Denoises, CanSample))
    assert not isinstance(model, HasLatents)
    assert (model.prediction_type, model.image_shape) == ("epsilon", (1, 16, 16))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(model.alphas_cumprod.double(), torch.cumprod(1 - betas, 0), atol=1e-5)


def test_gradients_reach_the_noised_images(ddpm_folder):
    model = create(NAME, folder=ddpm_folder).double()
    x, t = noise(1, 1, 16, 16).double().requires_grad_(), torch.tensor([100])
    direction = noise(1, 1, 16, 16).double().flip(3)
    (gradient,) = torch.autograd.grad(model.predict(x, t).sum(), x)
    with torch.no_grad():
        up, down = (model.predict(x + sign * 1e-5 * direction, t).sum() for sign in (1, -1))
    assert float((gradient * direction).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-5)


def test_wrong_images_and_steps_are_refused(ddpm_folder):
    model = create(NAME, folder=ddpm_folder)
    with pytest.raises(InputError, match=r"takes images \['N', 1, 16, 16\], not \[2, 3, 16, 16\]"):
        model.predict(torch.zeros(2, 3, 16, 16), torch.zeros(2).long())
    for t in (
        torch.tensor([0, 1000]),
        torch.tensor([-1, 0]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([5]),
        torch.tensor(5),
    ):
        with pytest.raises(InputError, match="one step per image, an integer from 0 to 999"):
            model.predict(torch.zeros(2, 1, 16, 16), t)


def test_edits_change_what_is_predicted(ddpm_folder):
    base = create(NAME, folder=ddpm_folder, steps=2)
    model = create("generator/edited", base=base, edits=UnitEdits.ablate({"module.mid_block": [0, 1]}))
    x, t = noise(2, 1, 16, 16), torch.tensor([10, 900])
    with torch.no_grad():
        assert float((model.predict(x, t) - base.predict(x, t)).abs().max()) > 1e-3
    assert not torch.equal(model.sample(1, seed=0).images, base.sample(1, seed=0).images)


# -- what it draws ----------------------------------------------------------------------------------------------------


def test_ddim_draws_what_the_librarys_pipeline_draws(ddpm_folder, unet, monkeypatch):
    scheduler = diffusers.DDIMScheduler.from_config(diffusers.DDPMScheduler().config)
    library = diffusers.DDIMPipeline(unet(), scheduler)
    library.set_progress_bar_config(disable=True)
    start = draws.normal(5, range(3), (1, 16, 16))
    monkeypatch.setattr(pipeline_ddim, "randn_tensor", lambda *_, **__: start)
    expected = library(batch_size=3, num_inference_steps=7, eta=0.0, output_type="pt", return_dict=False)[0]
    expected = torch.as_tensor(expected)
    model = create(NAME, folder=ddpm_folder, steps=7, sampler="ddim")
    found = model.sample(3, seed=5).images
    assert torch.allclose(found, 2 * expected - 1, atol=1e-6)
    assert float(found.std()) > 0.1


def test_ddpm_draws_what_the_librarys_pipeline_draws(ddpm_folder, unet, monkeypatch):
    library = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())
    library.set_progress_bar_config(disable=True)
    start = draws.normal(5, range(3), (1, 16, 16))
    monkeypatch.setattr(pipeline_ddpm, "randn_tensor", lambda *_, **__: start)
    expected = library(
        batch_size=3, generator=generators(5, 3), num_inference_steps=7, output_type="pt", return_dict=False
    )[0]
    found = create(NAME, folder=ddpm_folder, steps=7).sample(3, seed=5).images
    assert torch.allclose(found, 2 * torch.as_tensor(expected) - 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_ddpm_is_the_papers_formula_whatever_is_predicted(pipeline, kind):
    """Equations 6 and 7 of Ho et al., over neighbouring steps of a process of six."""
    betas = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
    edited(
        pipeline / "scheduler" / "scheduler_config.json",
        prediction_type=kind,
        num_train_timesteps=6,
        trained_betas=betas,
        clip_sample=False,
    )
    model = create(NAME, folder=pipeline, steps=6)
    assert model.prediction_type == kind
    levels = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0)
    x, drawn = draws.normal(3, range(2), (1, 16, 16)).double(), generators(3, 2)
    for t in reversed(range(6)):
        with torch.no_grad():
            output = model.predict(x.float(), torch.full((2,), t)).double()
        level, before, beta = levels[t], levels[t - 1] if t else torch.tensor(1.0).double(), betas[t]
        start = {
            "epsilon": (x - (1 - level).sqrt() * output) / level.sqrt(),
            "sample": output,
            "v_prediction": level.sqrt() * x - (1 - level).sqrt() * output,
        }[kind]
        mean = (before.sqrt() * beta * start + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - level)
        fresh = torch.cat([torch.randn(1, 1, 16, 16, generator=each) for each in drawn]).double() if t else 0.0
        x = mean + (beta * (1 - before) / (1 - level)).sqrt() * fresh
    assert torch.allclose(model.sample(2, seed=3).images.double(), x.clamp(-1, 1), atol=1e-5)


def test_an_image_depends_on_its_seed_and_index_alone(ddpm_folder):
    model = create(NAME, folder=ddpm_folder, steps=4)
    whole, part = model.sample(4, seed=1).images, model.sample(1, seed=1, start=2).images
    assert torch.allclose(part, whole[2:3], atol=1e-5)
    assert model.sample(0, seed=1).images.shape == (0, 1, 16, 16)
    with pytest.raises(InputError, match="unconditional"):
        model.sample(1, seed=0, labels=torch.zeros(1, dtype=torch.long))


def test_learnt_variances_are_used_and_not_predicted(tmp_path, unet):
    net = unet(out_channels=2)
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    diffusers.DDPMPipeline(net, scheduler).save_pretrained(tmp_path)
    model = create(NAME, folder=tmp_path, steps=3)
    x, t = noise(2, 1, 16, 16), torch.tensor([3, 700])
    scheduler.set_timesteps(3)
    drawn, images = generators(0, 2), draws.normal(0, range(2), (1, 16, 16))
    with torch.no_grad():
        assert torch.equal(model.predict(x, t), net(x, t).sample[:, :1])
        for step in scheduler.timesteps:
            images = scheduler.step(net(images, step).sample, step, images, generator=drawn).prev_sample
    assert torch.allclose(model.sample(2, seed=0).images, images.clamp(-1, 1), atol=1e-6)
    assert "2 outputs for 1 channels do not fit a DDIMScheduler" in refusal(tmp_path, sampler="ddim")


# -- the folders that it reads ----------------------------------------------------------------------------------------


def test_older_folders_and_bare_networks(pipeline, tmp_path):
    expected = create(NAME, folder=pipeline, steps=2).sample(1, seed=0).images
    flat = tmp_path / "flat"  # as the first published models lie: side by side
    flat.mkdir()
    for file in (*(pipeline / "unet").iterdir(), *(pipeline / "scheduler").iterdir(), pipeline / "model_index.json"):
        shutil.copy(file, flat)
    assert torch.equal(create(NAME, folder=flat, steps=2).sample(1, seed=0).images, expected)
    (flat / "model_index.json").unlink()
    assert torch.equal(create(NAME, folder=flat, steps=2).sample(1, seed=0).images, expected)
    told = refusal(pipeline / "unet")
    assert "no scheduler_config.json; say what the U-Net was trained with" in told
    given = create(NAME, folder=pipeline / "unet", scheduler=pipeline / "scheduler", steps=2)
    assert torch.equal(given.sample(1, seed=0).images, expected)


def test_other_schedulers_are_driven_as_ddpm_or_ddim_or_refused(pipeline):
    file = pipeline / "scheduler" / "scheduler_config.json"
    ddim = create(NAME, folder=pipeline, steps=3, sampler="ddim").sample(1, seed=0).images
    diffusers.PNDMScheduler(num_train_timesteps=1000).save_pretrained(pipeline / "scheduler")
    assert "a PNDMScheduler is not driven by generator/diffusers; say sampler: ddpm or ddim" in refusal(pipeline)
    edited(file, beta_start=1e-4)
    found = create(NAME, folder=pipeline, steps=3, sampler="ddim")
    assert found.alphas_cumprod.shape == (1000,)
    diffusers.EDMEulerScheduler().save_pretrained(pipeline / "scheduler")
    assert "a EDMEulerScheduler has no DDPM schedule of noise" in refusal(pipeline, sampler="ddpm")
    diffusers.DDIMScheduler().save_pretrained(pipeline / "scheduler")
    assert torch.equal(create(NAME, folder=pipeline, steps=3).sample(1, seed=0).images, ddim)


def test_latent_and_conditional_models_are_refused_by_name(pipeline, tmp_path, unet, vae_folder):
    edited(pipeline / "model_index.json", _class_name="LDMPipeline", vqvae=["diffusers", "VQModel"])
    assert "a LDMPipeline with vqvae: latent or conditional diffusion" in refusal(pipeline)
    edited(pipeline / "model_index.json", vqvae=[None, None], unet=[None, None])
    assert "with no unet" in refusal(pipeline)
    edited(pipeline / "model_index.json", unet=["diffusers", "UNet2DConditionModel"])
    edited(pipeline / "unet" / "config.json", _class_name="UNet2DConditionModel")
    assert "holds UNet2DConditionModel" in refusal(pipeline)
    diffusers.DDPMPipeline(unet(num_class_embeds=3), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "classes")
    assert "is conditioned on classes" in refusal(tmp_path / "classes")
    assert "holds AutoencoderKL" in refusal(vae_folder)
    assert "finds no such folder" in refusal(tmp_path / "none")


def test_what_would_fail_later_is_refused_at_once(pipeline, tmp_path, unet):
    assert "steps 1001 must be between 1 and 1000" in refusal(pipeline, BadParameter, steps=1001)
    assert "steps 0 must be between" in refusal(pipeline, BadParameter, steps=0)
    assert "sampler" in refusal(pipeline, BadParameter, sampler="euler")
    file = pipeline / "scheduler" / "scheduler_config.json"
    edited(file, steps_offset=1)
    assert "lead beyond step 999" in refusal(pipeline, BadParameter, steps=1000)
    edited(file, variance_type="fixed_large_log")
    assert "fixed_large_log gives NaN" in refusal(pipeline)
    edited(file, variance_type="nope")
    assert "variance_type 'nope'" in refusal(pipeline)
    edited(file, variance_type="learned")
    assert "1 outputs for 1 channels" in refusal(pipeline)
    diffusers.DDPMPipeline(unet(sample_size=None), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "free")
    assert "has no sample_size" in refusal(tmp_path / "free")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"num_train_timesteps": "x"}, "TypeError"),
        ({"num_train_timesteps": 0}, "its betas do not make num_train_timesteps 0 levels of noise"),
        ({"trained_betas": [0.1, 0.2]}, "its betas do not make num_train_timesteps 1000 levels"),
        ({"beta_end": 5.0}, "its betas do not make num_train_timesteps 1000 levels"),
        ({"beta_start": float("nan")}, "its betas do not make num_train_timesteps 1000 levels"),
        ({"beta_schedule": "nope"}, "nope is not implemented"),
        ({"timestep_spacing": "nope"}, "nope is not supported"),
        ({"steps_offset": "x"}, "Error"),
        ({"prediction_type": "nope"}, "prediction_type given as nope"),
        ({"clip_sample_range": "x"}, "TypeError"),
    ],
    ids=str,
)
def test_damaged_schedulers_are_told_in_one_line(pipeline, said, told):
    file = pipeline / "scheduler" / "scheduler_config.json"
    edited(file, **said)
    found = refusal(pipeline)
    assert found.startswith(f"{file}: generator/diffusers cannot use what it says: ")
    assert told in found


@pytest.mark.parametrize("side", [-3, 0, "8", 8.0, True, [8], [8, -8], [8, "8"], {"height": 8}], ids=str)
def test_a_damaged_side_is_told_in_one_line(pipeline, side):
    edited(pipeline / "unet" / "config.json", sample_size=side)
    assert f"config.json: sample_size {side!r} is no side of an image, and no two" in refusal(pipeline)


def test_images_need_not_be_square(pipeline):
    edited(pipeline / "unet" / "config.json", sample_size=[8, 16])
    assert create(NAME, folder=pipeline, steps=2).sample(1, seed=0).images.shape == (1, 1, 8, 16)


@pytest.mark.parametrize("where", ["p.bin", "../outside.safetensors"])
def test_an_index_cannot_name_other_weights(pipeline, unet, where):
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, pipeline / "outside.safetensors")
    torch.save(unet().state_dict(), pipeline / "unet" / "p.bin")
    index = weights.with_name(weights.name + ".index.json")
    for name in (weights.name, where):
        index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(unet().state_dict(), name)}))
        if name == weights.name:
            assert create(NAME, folder=pipeline).image_shape == (1, 16, 16)
    assert f"index.json names {where!r}, which is no safetensors file right in the folder" in refusal(pipeline)


def test_pickled_weights_are_refused(pipeline, unet):
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(unet().state_dict(), pipeline / "unet" / "diffusion_pytorch_model.bin")
    assert "only pickled weights (diffusion_pytorch_model.bin)" in refusal(pipeline)


def test_a_missing_library_is_told_in_one_line(ddpm_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "-m pip install 'diffusers>=0.38'" in refusal(ddpm_folder, NotInstalled)
