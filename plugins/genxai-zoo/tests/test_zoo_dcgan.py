"""The DCGAN family: shapes, capabilities, its normalisations, and that samples are addressed by (seed, index)."""

import pytest
import torch
from genxai_zoo.dcgan import SIZES, DCGANGenerator, PixelNorm
from genxai_zoo.dcgan_discriminator import DCGANDiscriminator
from torch import nn

import genxai_core as gx
from genxai_core import models
from genxai_core.errors import BadParameter, InputError


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_makes_images_and_judges_them(size, channels):
    generator = gx.create("generator/dcgan", size=size, channels=channels, width=8)
    discriminator = gx.create("discriminator/dcgan", size=size, channels=channels, width=8)
    samples = generator.sample(2, seed=0)
    assert samples.image_shape == generator.image_shape == discriminator.image_shape == (channels, size, size)
    assert samples.value_range == generator.value_range == discriminator.value_range == (-1.0, 1.0)
    assert samples.images.abs().max() <= 1
    assert samples.images[0].ne(samples.images[1]).any()
    assert discriminator(samples.images).shape == (2, 1)
    assert discriminator.class_names == ("real",)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_layers_go_from_four_pixels_to_half_the_image_with_halving_units(upsampling):
    generator = DCGANGenerator(size=64, width=8, upsampling=upsampling)
    shapes, x = [], generator.sample_latents(1, seed=0)[:, :, None, None]
    for layer in generator.layers:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 4, 4), (32, 8, 8), (16, 16, 16), (8, 32, 32)]
    assert generator.get_submodule("layers.0") is generator.layers[0]
    assert torch.equal(torch.tanh(generator.to_image(x)), generator.sample(1, seed=0).images)


def test_another_upsampling_is_refused():
    with pytest.raises(ValueError, match="upsampling 'bicubic' is not one of transposed, nearest"):
        DCGANGenerator(size=8, upsampling="bicubic")
    with pytest.raises(BadParameter, match="upsampling"):
        gx.create("generator/dcgan", size=8, upsampling="bicubic")


def test_units_do_not_grow_beyond_eight_times_the_width():
    assert DCGANGenerator(size=128, width=4).layers[0][0].out_channels == 32
    assert DCGANDiscriminator(size=128, width=4).layers[-1][0].out_channels == 32


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
@pytest.mark.parametrize("size", [0, 4, 12, 48, 256])
def test_another_size_is_refused_with_those_that_work(kind, size):
    with pytest.raises(BadParameter, match=f"size {size} is not one of 8, 16, 32, 64, 128"):
        gx.create(f"{kind}/dcgan", size=size)


@pytest.mark.parametrize("wrong", [{"latents": 0}, {"width": 0}, {"channels": 0}])
def test_numbers_must_be_positive(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*must be at least 1"):
        DCGANGenerator(**{"size": 8, **wrong})


def test_capabilities():
    generator = DCGANGenerator(size=8)
    assert models.require(generator, models.HasLatents, by="test") is generator
    assert models.require(generator, models.CanSample, by="test") is generator
    assert not isinstance(generator, models.Conditional)


def test_latents_are_standard_normal():
    latents = DCGANGenerator(size=8, latents=100).sample_latents(1000, seed=0)
    assert abs(latents.mean()) < 0.02
    assert abs(latents.std() - 1) < 0.02


def test_an_image_does_not_depend_on_its_neighbours_even_in_training():
    generator, discriminator = DCGANGenerator(size=16, width=8).train(), DCGANDiscriminator(size=16, width=8).eval()
    latents = generator.sample_latents(4, seed=0)
    other = torch.cat([latents[:1], 5 * latents[1:]])
    images, images_other = generator(latents), generator(other)
    torch.testing.assert_close(images[0], images_other[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(discriminator(images)[0], discriminator(images_other)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_the_generator_is_differentiable_in_its_latents(upsampling):
    torch.manual_seed(0)  # away from the kinks of the ReLUs
    generator = DCGANGenerator(size=8, latents=5, width=4, upsampling=upsampling).double()
    latents = generator.sample_latents(2, seed=0).double().requires_grad_()
    assert torch.autograd.gradcheck(generator, (latents,))


def test_labels_are_refused_by_an_unconditional_generator():
    with pytest.raises(InputError, match=r"unconditional.*leave labels out"):
        DCGANGenerator(size=8).sample(2, seed=0, labels=torch.tensor([0, 1]))


def test_latents_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"takes latents \['N', 64\], not \[2, 64, 1, 1\]"):
        DCGANGenerator(size=8)(torch.zeros(2, 64, 1, 1))


def test_pixel_norm_against_its_formula():
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    y = PixelNorm()(x)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                mean_square = sum(float(x[n, c, i, j]) ** 2 for c in range(5)) / 5
                for c in range(5):
                    assert float(y[n, c, i, j]) == pytest.approx(float(x[n, c, i, j]) / (mean_square + 1e-8) ** 0.5)


def test_every_weight_of_the_discriminator_has_spectral_norm_one():
    discriminator = DCGANDiscriminator(size=32, channels=3, width=8)
    for _ in range(200):  # the power iteration goes on with every forward in training
        discriminator(torch.zeros(1, 3, 32, 32))
    weights = [m.weight.detach() for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) == 4
    for weight in weights:
        assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, abs=1e-3)


def test_the_discriminator_has_neither_batch_statistics_nor_dropout():
    forbidden = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for model in (DCGANDiscriminator(size=16), DCGANGenerator(size=16), gx.create("discriminator/classifier", size=16)):
        assert not any(isinstance(m, forbidden) for m in model.modules())


@pytest.mark.parametrize("use", ["generator/dcgan", "discriminator/dcgan", "discriminator/classifier"])
def test_saving_and_loading_restores_every_bit(use, tmp_path):
    torch.manual_seed(1)
    model = gx.create(use, size=16, channels=3, width=8)
    if use != "generator/dcgan":
        model(torch.randn(4, 3, 16, 16))  # moves spectral norm's vectors
    gx.save_model(model.eval(), tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    assert type(loaded) is type(model)
    state, restored = model.state_dict(), loaded.state_dict()
    assert list(state) == list(restored)
    assert all(torch.equal(state[k], restored[k]) for k in state)
    inputs = model.sample_latents(3, seed=0) if use == "generator/dcgan" else torch.randn(3, 3, 16, 16)
    assert torch.equal(model(inputs), loaded(inputs))


def test_a_spec_is_built_from_what_the_data_decide():
    decided = {"size": 32, "channels": 3, "num_classes": 10}
    assert gx.Spec("generator/dcgan", {"latents": 7}).build(**decided).latent_shape == (7,)
    assert gx.Spec("discriminator/dcgan", {"width": 8}).build(**decided).image_shape == (3, 32, 32)
