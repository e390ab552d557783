"""Placebo masks: equal means, nothing of the place left, the same in any batch; and k-th steps."""

import numpy as np
import pytest
import torch
from genxai_xai_gan.controls import Control
from genxai_xai_gan.guidance import MaskGuide, scaled

from genxai_core import Runtime, Spec, create, draws
from genxai_core.errors import BadParameter

KINDS = ["uniform", "shuffled", "random"]
CPU = Runtime(device="cpu", seed=3)


def masks(n=8, channels=3):
    return draws.uniform(1, range(n), (channels, 6, 5)).square()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_placebo_has_the_mean_of_each_mask(kind, channels):
    M = masks(channels=channels)
    placebo = Control(kind, CPU, 8)(4, M)
    assert placebo.shape == M.shape
    torch.testing.assert_close(placebo.mean((1, 2, 3)), M.mean((1, 2, 3)), rtol=3e-7, atol=0)
    assert not torch.equal(placebo, M)
    assert placebo.min() >= 0


def test_uniform_is_the_mean_everywhere():
    M = masks()
    for placebo, mask in zip(Control("uniform", CPU, 8)(4, M), M, strict=True):
        np.testing.assert_allclose(placebo, mask.numpy().mean(), rtol=1e-6)


def test_shuffled_moves_whole_pixels_and_keeps_every_value():
    M = masks()
    placebo = Control("shuffled", CPU, 8)(4, M)
    for i in range(8):
        order = draws.permutation(3, 4 * 8 + i, 30, "placebo")
        literal = M[i].reshape(3, 30)[:, order].reshape(3, 6, 5)
        assert torch.equal(placebo[i], literal)
        pixels = {tuple(p) for p in M[i].reshape(3, 30).T.tolist()}
        assert {tuple(p) for p in placebo[i].reshape(3, 30).T.tolist()} == pixels


def test_random_has_nothing_of_the_mask_but_its_mean():
    one = Control("random", CPU, 8)(4, masks())
    other = Control("random", CPU, 8)(4, masks().flip(2, 3))
    torch.testing.assert_close(one, other)
    literal = draws.uniform(3, range(32, 40), (3, 6, 5), "placebo")
    torch.testing.assert_close(one / one.amax((1, 2, 3), True), literal / literal.amax((1, 2, 3), True))


def test_a_mask_of_zeros_stays_zero():
    for kind in KINDS:
        assert not Control(kind, CPU, 2)(0, torch.zeros(2, 1, 4, 4)).any()


@pytest.mark.parametrize("kind", ["shuffled", "random"])
def test_a_placebo_depends_on_seed_and_image_and_on_no_batch(kind):
    M = masks()
    whole = Control(kind, CPU, 8)(4, M)
    halves = [Control(kind, CPU, 4)(step, M[4 * (step % 2) :][:4]) for step in (8, 9)]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-6, atol=0)
    assert not torch.equal(Control(kind, CPU, 8)(5, M), whole)
    assert not torch.equal(Control(kind, Runtime(device="cpu", seed=4), 8)(4, M), whole)


def test_the_second_of_two_processes_draws_for_its_own_images(monkeypatch):
    M = masks()
    whole = Control("shuffled", CPU, 8)(4, M)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert torch.equal(Control("shuffled", CPU, 8)(4, M[4:]), whole[4:])


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_hook_weighs_by_the_placebo(kind, separate):
    """In the running backward pass and with a mask from elsewhere alike."""
    g = draws.normal(2, range(8), (3, 6, 5))
    a = draws.normal(5, range(8), (3, 6, 5))
    control = Control(kind, CPU, 8)
    images = torch.zeros(8, 3, 6, 5, requires_grad=True)
    record = MaskGuide(0.5, 0, scaled(lambda step, images, labels: a) if separate else None, "", control=control)(
        4, images, None
    )
    images.backward(g)
    size = (a if separate else g).abs()
    low, high = size.amin((1, 2, 3), True), size.amax((1, 2, 3), True)
    M = (size - low) / (high - low)
    torch.testing.assert_close(images.grad, g * (1 + 0.5 * control(4, M)), rtol=1e-6, atol=1e-7)
    assert record["mask_mean"].item() == pytest.approx(M.mean().item(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_with_a_placebo(train, same_weights, kind):
    params = {"start": 0.0, "alpha": 5.0}
    placebo = train("xai-gan", control=kind, **params)
    mask = train("xai-gan", **params)
    assert placebo.history["mask_mean"][0] == pytest.approx(mask.history["mask_mean"][0], rel=1e-6)
    assert not same_weights(placebo, mask)
    assert placebo.info["mask"].startswith(f"a placebo ({kind}) with the mean of: saliency, from the running")
    assert same_weights(train("xai-gan", control=kind, start=0.0, alpha=0.0), train("gan"))


def test_only_every_kth_step_from_the_start_on_is_guided(train):
    trained = train("xai-gan", steps=10, start=0.2, every=3, explainer=Spec("explainer/noisy"))
    masks = trained.history["mask_mean"]
    assert [i for i, m in enumerate(masks) if m > 0] == [2, 5, 8]
    assert trained.info["guided"] == pytest.approx(0.3)
    assert trained.info["mask_mean"] == pytest.approx(sum(masks) / 3)


@pytest.mark.parametrize(
    ("params", "match"), [({"control": "placebo"}, "control"), ({"every": 0}, "every is 0; it must be at least 1")]
)
def test_bad_parameters_are_refused(params, match):
    with pytest.raises(BadParameter, match=match):
        create("trainer/xai-gan", **params)
