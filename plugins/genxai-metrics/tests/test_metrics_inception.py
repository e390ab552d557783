"""Inception-v3 from a file of random weights: both networks, their pooling, gray images, and its refusals."""

from pathlib import Path

import pytest
import torch
from genxai_metrics.inception import Inception
from torch import nn
from torch.nn import functional as F
from torchvision.models.inception import Inception3

import genxai_core as gx
from genxai_core.errors import InputError, StorageError


def random_weights(classes, aux):
    """Return weights under which signals neither vanish nor explode, and statistics that are not the defaults."""
    with torch.device("meta"):
        shapes = Inception3(classes, aux_logits=aux, init_weights=False).state_dict()
    draws = torch.Generator().manual_seed(0)
    state = {}
    for name, like in shapes.items():
        if like.dtype == torch.long:
            state[name] = torch.zeros((), dtype=torch.long)
        elif like.ndim > 1:
            state[name] = torch.randn(like.shape, generator=draws) * (2 / like[0].numel()) ** 0.5
        else:  # norms' weights and variances near one, biases and means small
            near_one = name.endswith(("running_var", "bn.weight"))
            state[name] = torch.rand(like.shape, generator=draws) * 0.4 + (0.8 if near_one else -0.2)
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for classes in (1008, 1000):
        found[classes] = folder / f"{classes}.pth"
        torch.save(random_weights(classes, aux=classes == 1000), found[classes])
    return found


@pytest.fixture(scope="module")
def fid_network(files):
    return Inception(files[1008])


def images(n, side=40, channels=3):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_1000_logits_give_torchvision_s_network(files):
    model = gx.create("discriminator/inception", weights=files[1000])
    library = Inception3(1000, init_weights=False).eval()
    library.load_state_dict(torch.load(files[1000]))
    x = images(2, side=299)
    with torch.no_grad():
        logits = model(x)
        assert torch.allclose(logits, library(x), rtol=1e-5, atol=1e-5)
    assert logits.shape == (2, 1000)
    assert logits.std() > 0.1


def test_1008_logits_give_the_literature_s_pooling(fid_network):
    """Every pooled branch, against a literal mean over the pixels that are there; the last one's maximum."""
    seen = {}

    def block(name):
        return lambda _, inputs: seen.update({name: [inputs[0]]})

    def branch(name):
        return lambda _, inputs: seen[name].append(inputs[0])

    names = [f"Mixed_5{c}" for c in "bcd"] + [f"Mixed_6{c}" for c in "bcde"] + ["Mixed_7b", "Mixed_7c"]
    handles = []
    for name in names:
        module = getattr(fid_network.net, name)
        handles += [
            module.register_forward_pre_hook(block(name)),
            module.branch_pool.register_forward_pre_hook(branch(name)),
        ]
    with torch.no_grad():
        fid_network.features(images(1))
    for handle in handles:
        handle.remove()
    for name in names:
        x, pooled = seen[name][0], seen[name][-1]
        padded, there = F.pad(x, (1, 1, 1, 1)), F.pad(torch.ones_like(x), (1, 1, 1, 1))
        windows = [(slice(i, i + x.shape[2]), slice(j, j + x.shape[3])) for i in range(3) for j in range(3)]
        if name == "Mixed_7c":
            literal = torch.stack([padded[:, :, i, j] for i, j in windows]).amax(0)  # after ReLU, so zeros do no harm
        else:
            literal = sum(padded[:, :, i, j] for i, j in windows) / sum(there[:, :, i, j] for i, j in windows)
        assert torch.allclose(pooled, literal, rtol=1e-5, atol=1e-6), name


def test_its_pooling_is_not_torchvision_s(files, fid_network):
    library = Inception3(1008, aux_logits=False, init_weights=False).eval()
    library.load_state_dict(torch.load(files[1008]))
    x = images(1, side=299)
    with torch.no_grad():
        assert not torch.allclose(fid_network(x), library(x), rtol=0.01, atol=0.01)


def test_images_are_resized_bilinearly_and_gray_ones_repeated(fid_network):
    gray = images(2, channels=1)
    resized = F.interpolate(gray, (299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad():
        features = fid_network.features(gray)
        assert torch.allclose(features, fid_network.features(resized.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-6)
    assert features.shape == (2, 2048)


def test_it_can_leave_the_bias_out(files, fid_network):
    without = Inception(files[1008], bias=False)
    x = images(1)
    with torch.no_grad():
        assert torch.allclose(fid_network(x) - fid_network.head.bias, without(x), atol=1e-5)
    assert len(without.class_names) == 1008


def test_building_it_draws_no_random_numbers(files):
    before = torch.get_rng_state()
    model = Inception(files[1008])
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(t.device.type == "cpu" for t in (*model.parameters(), *model.buffers()))


def test_metrics_take_it_by_its_spec(files):
    spec = gx.Spec("discriminator/inception", {"weights": files[1008], "bias": False})
    samples = gx.Samples(images(6), value_range=(-1.0, 1.0))
    kid = gx.create("metric/kid", extractor=spec).measure(real=samples[:3], generated=samples[3:])
    assert kid["kid_se"] > 0
    score = gx.create("metric/inception-score", extractor=spec).measure(generated=samples)["inception_score"]
    assert 1 <= score <= 6


def test_other_channels_are_refused(fid_network):
    with pytest.raises(InputError, match="images with 1 or 3 channels, not 2"):
        fid_network.features(images(1, channels=2))


def test_a_file_that_is_missing_or_holds_something_else_is_refused(tmp_path, files):
    with pytest.raises(StorageError, match=r"none\.pth: no such file"):
        gx.create("discriminator/inception", weights=tmp_path / "none.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(StorageError, match=r"linear\.pth: not the weights of an Inception-v3: it has no fc\.weight"):
        Inception(tmp_path / "linear.pth")
    state = torch.load(files[1008])
    del state["Mixed_5b.branch1x1.conv.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(StorageError, match=r"part\.pth: not the weights.*Missing key.*Mixed_5b\.branch1x1") as refused:
        Inception(tmp_path / "part.pth")
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value).removeprefix(str(Path(tmp_path)))) < 400
