"""The generator that moves images to another class: shapes, range, what its mask leaves alone, what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from genxai_core import create, models
from genxai_core.errors import BadParameter, InputError


def built(size=16, channels=1, num_classes=3, seed=0, **params):
    torch.manual_seed(seed)
    made = create("generator/stargan", size=size, channels=channels, num_classes=num_classes, width=8, **params).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "affine" in name:
                parameter.normal_(0, 0.5)  # classes differ from the start
    return made


def noise(made, n=4):
    return torch.rand(n, *made.image_shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("size", "smallest"), [(8, 4), (10, 5), (14, 7), (16, 8), (28, 7), (32, 8), (36, 9), (64, 8)])
def test_any_even_size_is_halved_and_comes_back(size, smallest):
    made = built(size, channels=3, blocks=1)
    seen = []
    made.middle[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:]))
    with torch.no_grad():
        images = made.translate(noise(made, 2), torch.tensor([0, 2]))
    assert images.shape == (2, 3, size, size)
    assert seen == [(smallest, smallest)]
    assert -1 <= float(images.min()) <= float(images.max()) <= 1


def test_the_output_is_the_image_where_the_mask_is_zero_and_what_is_painted_where_it_is_one():
    made = built()
    images, target = noise(made), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        painted, mask = made.change(images, target)
        literal = torch.stack([mask[i] * painted[i] + (1 - mask[i]) * images[i] for i in range(4)])
        assert torch.allclose(made(images, target), literal, atol=1e-6)
        made.to_image.bias[-1] = -1e4
        made.to_image.weight[-1] = 0
        assert torch.equal(made(images, target), images)
        made.to_image.bias[-1] = 1e4
        assert torch.allclose(made(images, target), painted, atol=1e-6)
    assert mask.shape == (4, 1, 16, 16)


def test_all_targets_in_one_pass_are_those_made_one_by_one():
    made = built()
    images = noise(made)
    with torch.no_grad():
        together = made.translate(images.repeat_interleave(3, 0), torch.arange(3).repeat(4)).view(4, 3, 1, 16, 16)
        for t in range(3):
            assert torch.allclose(together[:, t], made.translate(images, t), atol=1e-6)
    assert (together[:, 0] - together[:, 1]).abs().amax((1, 2, 3)).min() > 1e-3


def test_the_norm_of_a_class_is_group_normalisation_with_that_classes_scale_and_shift():
    norm = built().down[0].norm
    x, target = torch.randn(3, 16, 5, 5, generator=torch.Generator().manual_seed(2)), torch.tensor([2, 0, 1])
    with torch.no_grad():
        found = norm(x, target)
        for i, t in enumerate(target.tolist()):
            scale, shift = norm.affine.weight[t, :16], norm.affine.weight[t, 16:]
            assert torch.allclose(found[i], F.group_norm(x[i : i + 1], 8, 1 + scale, shift)[0], atol=1e-6)


def test_gradients_reach_the_image():
    made = built().requires_grad_(False)
    images = noise(made).requires_grad_()
    made(images, torch.tensor([0, 1, 2, 0])).square().sum().backward()
    assert bool((images.grad.flatten(1).abs().amax(1) > 0).all())


def test_it_is_a_translator_of_classes():
    made = built(class_names=("a", "b", "c"))
    assert models.require(made, models.Translates, by="a test") is made
    assert (made.num_classes, made.class_names) == (3, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("images", "target", "said"),
    [
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), r"takes images \['N', 1, 16, 16\], not \[2, 1, 8, 8\]"),
        (torch.zeros(2, 1, 16, 16), torch.tensor([0]), r"one per image, not torch.int64 \[1\]"),
        (torch.zeros(2, 1, 16, 16), torch.tensor([0.0, 1.0]), "integer classes"),
        (torch.zeros(2, 1, 16, 16), torch.tensor([0, 3]), "class 3 is none of 0…2"),
        (torch.zeros(2, 1, 16, 16), -1, "class -1 is none of 0…2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(images, target, said):
    with pytest.raises(InputError, match=said):
        built().translate(images, target)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"size": 15}, "size 15 must be even"),
        ({"size": 6}, "at least 8"),
        ({"size": 16, "width": 12}, "multiple of 8"),
        ({"size": 16, "channels": 0}, "channels"),
        ({"size": 16, "num_classes": 1}, "num_classes"),
        ({"size": 16, "class_names": ("a", "b")}, "2 class_names for 10 classes"),
    ],
)
def test_parameters_out_of_bounds_are_refused(params, said):
    with pytest.raises(BadParameter, match=said):
        create("generator/stargan", **params)


def test_both_heads_of_the_discriminator_look_at_the_same_features():
    torch.manual_seed(0)
    made = create("discriminator/stargan", size=16, num_classes=3, width=8).eval()
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        source, classes = made.heads(images)
        features = made.layers(images).flatten(1)
        assert torch.equal(source, made(images))
        assert torch.allclose(classes, features @ made.classes.weight.T + made.classes.bias, atol=1e-6)
    assert (source.shape, classes.shape) == ((2, 1), (2, 3))


def test_a_discriminator_without_classes_says_so():
    with pytest.raises(InputError, match="build it with num_classes"):
        create("discriminator/stargan", size=16).heads(torch.zeros(1, 1, 16, 16))
    with pytest.raises(BadParameter, match="0, for no class head, or at least 2"):
        create("discriminator/stargan", size=16, num_classes=1)
