import pytest
import torch
from torch import nn

import genxai_core as gx
from genxai_core import Runtime, Samples, draws
from genxai_core.errors import BadParameter, InputError, MissingCapability


class Toy(gx.Generator):
    """A generator with batch statistics and dropout, so that train mode would show."""

    value_range = (0.0, 1.0)
    num_classes = 3

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Sigmoid())
        self.calls = []

    def sample(self, n, seed, labels=None, start=0):
        type(self).seen = (self.training, torch.is_grad_enabled(), n)
        self.batches.append(n)
        z = draws.normal(seed, range(start, start + n), (5,))
        images = self.layers(z).view(n, 1, 4, 4)
        if labels is not None:
            images = images * 0 + labels.view(n, 1, 1, 1) / 4
        return Samples(images, latents=z, labels=labels, value_range=self.value_range)

    batches = []  # of the class: the guard restores the attributes of an instance


class Unconditional(gx.Generator):
    value_range = (0.0, 1.0)

    def __init__(self, images=None):
        super().__init__()
        self.images = images

    def sample(self, n, seed, labels=None, start=0):
        return Samples(torch.zeros(n, 1, 4, 4), value_range=(0.0, 1.0)) if self.images is None else self.images


@pytest.fixture
def toy():
    Toy.batches.clear()
    return Toy()


def generated(**kw):
    return gx.create("dataset/generated", **kw)


def test_image_i_depends_on_seed_and_start_plus_i_only(toy):
    whole = generated(n=10, seed=3).load(model=toy)
    assert isinstance(whole, Samples)
    assert whole.images.shape == (10, 1, 4, 4)
    assert torch.equal(whole.latents, draws.normal(3, range(10), (5,)))
    part = generated(n=4, seed=3, start=6).load(model=toy)
    assert torch.equal(part.latents, whole.latents[6:])
    torch.testing.assert_close(part.images, whole.images[6:], atol=1e-6, rtol=0)
    other = generated(n=10, seed=4).load(model=toy)
    assert not torch.equal(other.images, whole.images)


def test_batches_follow_the_runtime_and_do_not_change_the_samples(toy):
    whole = generated(n=10).load(model=toy, runtime=Runtime(device="cpu", batch_size=10))
    Toy.batches.clear()
    batched = generated(n=10).load(model=toy, runtime=Runtime(device="cpu", batch_size=4))
    assert Toy.batches == [4, 4, 2]
    assert torch.equal(batched.latents, whole.latents)
    torch.testing.assert_close(batched.images, whole.images, atol=1e-6, rtol=0)


def test_the_seed_is_the_runtimes_unless_one_is_given(toy):
    by_runtime = generated(n=3).load(model=toy, runtime=Runtime(seed=7))
    by_parameter = generated(n=3, seed=7).load(model=toy, runtime=Runtime(seed=1))
    assert torch.equal(by_runtime.latents, by_parameter.latents)
    assert not torch.equal(by_runtime.latents, generated(n=3).load(model=toy).latents)


def test_draws_in_eval_mode_without_gradients_and_leaves_the_model_as_it_was(toy):
    toy.train()
    before = {k: v.clone() for k, v in toy.state_dict().items()}
    rng = torch.get_rng_state()
    samples = generated(n=3).load(model=toy)
    assert Toy.seen == (False, False, 3)
    assert not samples.images.requires_grad
    assert samples.images.device.type == "cpu"
    assert toy.training
    assert all(p.requires_grad for p in toy.parameters())
    assert all(torch.equal(v, before[k]) for k, v in toy.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_mixed_precision_ends_in_float32(toy):
    exact = generated(n=4).load(model=toy)
    rough = generated(n=4).load(model=toy, runtime=Runtime(device="cpu", precision="bfloat16"))
    assert rough.images.dtype == torch.float32
    assert not torch.equal(rough.images, exact.images)
    torch.testing.assert_close(rough.images, exact.images, atol=0.05, rtol=0)


@pytest.mark.parametrize(("labels", "want"), [(2, [2] * 5), ([0, 1, 2, 1, 0], [0, 1, 2, 1, 0])])
def test_labels_reach_the_model_batch_by_batch(toy, labels, want):
    samples = generated(n=5, labels=labels).load(model=toy, runtime=Runtime(batch_size=2))
    assert samples.labels.tolist() == want
    assert (samples.images[:, 0, 0, 0] * 4).tolist() == want


def test_labels_that_do_not_fit_are_refused(toy):
    with pytest.raises(InputError, match="label 3 is out of range; the model's classes are 0…2"):
        generated(n=2, labels=[0, 3]).load(model=toy)
    with pytest.raises(MissingCapability, match="dataset/generated with labels needs the capability Conditional"):
        generated(n=2, labels=1).load(model=Unconditional())
    with pytest.raises(BadParameter, match="labels has 2 classes for 3 images"):
        generated(n=3, labels=[0, 1])


def test_a_model_that_cannot_sample_is_refused_by_name():
    with pytest.raises(MissingCapability, match="dataset/generated needs the capability CanSample, which Linear"):
        generated().load(model=nn.Linear(2, 2))


class NoModule:
    def sample(self, n, seed, labels=None, start=0):
        return None


def test_what_a_model_returns_is_checked():
    with pytest.raises(InputError, match=r"Unconditional.sample\(4, …\) returned 3 samples"):
        generated(n=4).load(model=Unconditional(Samples(torch.zeros(3, 1, 4, 4), value_range=(0.0, 1.0))))
    with pytest.raises(InputError, match="returned Tensor"):
        generated(n=4).load(model=Unconditional(torch.zeros(4, 1, 4, 4)))
    broken = torch.zeros(4, 1, 4, 4)
    broken[2, 0, 1, 1] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity"):
        generated(n=4).load(model=Unconditional(Samples(broken, value_range=(0.0, 1.0))))
    with pytest.raises(InputError, match="torch module, not a NoModule"):
        generated(n=4).load(model=NoModule())


def test_before_load_there_are_no_images():
    data = generated(n=5)
    for use in (lambda: len(data), lambda: data[0], lambda: data[:2], lambda: data.plot()):
        with pytest.raises(InputError, match=r"holds no images until it has drawn them: use Generated\(n=5\).load"):
            use()


@pytest.mark.parametrize(("params", "says"), [({"n": 0}, "n 0"), ({"start": -1}, "start -1"), ({"n": "3"}, "n")])
def test_bad_parameters_are_refused_by_name(params, says):
    with pytest.raises(BadParameter, match=says):
        generated(**params)
