"""The U-Net, its trainer and what is done to training images: formulas, what is learnt, refusals."""

import dataclasses

import pytest
import torch
from genxai_dissection import segmenter_training
from genxai_dissection.degrading import degrade
from genxai_dissection.segmenter_training import SegmenterTrainer, dice, measure
from genxai_dissection.unet import UNet
from torch.nn import functional as F

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError, StorageError
from genxai_core.testing import PatchDataset

NAMES = ("bright", "dark", "absent")


def runtime(**changes):
    return gx.Runtime(device="cpu", quiet=True, **changes)


def blobs(n=48, size=12, channels=1, value_range=(-1.0, 1.0)):
    """A bright and a dark square on gray, whose masks overlap where the dark one hides the bright one."""
    draw = torch.Generator().manual_seed(0)
    images, masks = torch.zeros(n, channels, size, size), torch.zeros(n, 3, size, size, dtype=torch.bool)
    for i in range(n):
        for k, value in enumerate((0.9, -0.9)):
            y, x = torch.randint(0, size - 5, (2,), generator=draw).tolist()
            images[i, :, y : y + 5, x : x + 5] = value
            masks[i, k, y : y + 5, x : x + 5] = True
    return gx.Samples(images, masks=masks, value_range=(-1.0, 1.0), concepts=NAMES).rescale(value_range)


def bare(samples):
    return dataclasses.replace(samples, masks=None, concepts=())


# -- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (9, 21), (17, 16)])
def test_logits_have_the_images_size(size):
    model = UNet(NAMES, channels=1, width=8)
    assert model(torch.randn(2, 1, *size)).shape == (2, 3, *size)
    samples = gx.Samples(torch.rand(2, 1, *size), value_range=(0.0, 1.0))
    expected = model.eval()(samples.rescale((-1.0, 1.0)).images) > 0
    assert torch.equal(model.segment(samples), expected)


def test_an_image_of_a_size_it_was_not_trained_at_is_resized_and_its_logits_back():
    model = UNet(NAMES, channels=1, width=8, sizes=(16, 24)).eval()
    for size, at in (((32, 48), (24, 36)), ((20, 40), (20, 40)), ((8, 12), (16, 24))):
        images = torch.randn(2, 1, *size)
        with torch.no_grad():
            resized = F.interpolate(images, at, mode="bilinear", align_corners=False, antialias=True)
            logits = F.interpolate(model(resized), size, mode="bilinear", align_corners=False)
        assert torch.equal(model.segment(gx.Samples(images.clamp(-9, 9), value_range=(-1.0, 1.0))), logits > 0)


def test_a_mask_depends_on_its_own_image_even_in_training():
    model = UNet(NAMES, channels=1, width=8).train()
    images = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(model(images)[:1], model(images[:1]), atol=1e-5, rtol=0)


def test_images_that_it_does_not_take_are_refused():
    model = UNet(NAMES, channels=1, width=8)
    with pytest.raises(InputError, match="takes images of 1 channels, not 3"):
        model.segment(gx.Samples(torch.rand(1, 3, 16, 16), value_range=(0.0, 1.0)))
    with pytest.raises(InputError, match="from 8 px on, not 7×16"):
        model.segment(gx.Samples(torch.rand(1, 1, 7, 16), value_range=(0.0, 1.0)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"concepts": ()}, "concepts"),
        ({"concepts": ("a", "a")}, "all different"),
        ({"channels": 0}, "channels"),
        ({"depth": 0}, "depth"),
        ({"width": 12}, "multiple of 8"),
        ({"value_range": (1.0, 1.0)}, "empty"),
        ({"sizes": (4, 16)}, "from 8 px on"),
        ({"sizes": (32, 16)}, "smallest, largest"),
    ],
)
def test_parameters_out_of_bounds_are_refused(wrong, said):
    with pytest.raises(BadParameter, match=said):
        gx.create("segmenter/unet", **{"concepts": NAMES, **wrong})


# -- what is done to training images ----------------------------------------------------------------------------


def test_what_is_done_to_an_image_depends_on_its_row_only():
    samples = blobs(6, channels=3)
    whole = degrade(samples, 3, range(10, 16))
    one = degrade(samples[[4]], 3, [14])
    torch.testing.assert_close(whole.images[[4]], one.images, atol=1e-6, rtol=0)
    assert not torch.allclose(degrade(samples[[4]], 4, [14]).images, one.images, atol=0.01)
    assert torch.equal(whole.masks, samples.masks)


def test_strength_zero_changes_nothing_and_images_stay_in_their_range():
    samples = blobs(8, channels=3, value_range=(0.0, 255.0))
    assert degrade(samples, 0, range(8), 0.0) is samples
    worse = degrade(samples, 0, range(8)).images
    assert 0 <= float(worse.min()) < float(worse.max()) <= 255
    half, full = ((degrade(samples, 0, range(8), s).images - samples.images).abs().mean() for s in (0.5, 1.0))
    assert 5 < float(half) < float(full) < 80


def test_degrading_is_what_its_docstring_says():
    """Literally, with its own draws, for one image."""
    from genxai_core import draws

    samples, seed, row = blobs(1, size=8, channels=2), 5, 7

    def u(what, *shape):
        return draws.uniform(seed, [row], shape, stream=f"degrade {what}")[0]

    x = samples.images[0]
    for c in range(2):
        x = x.clone()
        x[c] = (1 + 0.3 * (2 * u("gain", 2, 1, 1)[c] - 1)) * x[c] + 0.2 * (2 * u("offset", 2, 1, 1)[c] - 1)
    weights, twice = torch.tensor([1.0, 2.0, 1.0]), x
    for _ in range(2):
        padded, blurred = F.pad(twice[None], (1, 1, 1, 1), mode="replicate")[0], torch.zeros_like(x)
        for i in range(3):
            for j in range(3):
                blurred += weights[i] * weights[j] / 16 * padded[:, i : i + 8, j : j + 8]
        twice = blurred
    w = u("blur", 1, 1, 1)
    x = (1 - w) * x + w * twice
    white = draws.normal(seed, [row], (2, 8, 8), stream="degrade white")[0]
    coarse = draws.normal(seed, [row], (2, 3, 3), stream="degrade coarse")
    smooth = F.interpolate(coarse, (8, 8), mode="bilinear", align_corners=True)[0]
    x = x + 0.12 * (u("white share", 1, 1, 1) * white + u("smooth share", 1, 1, 1) * smooth)
    torch.testing.assert_close(degrade(samples, seed, [row]).images[0], x.clamp(-1, 1), atol=1e-6, rtol=0)


# -- training ---------------------------------------------------------------------------------------------------


def test_dice_equals_a_count_pixel_by_pixel():
    draw = torch.Generator().manual_seed(1)
    p, g = torch.rand(3, 2, 4, 5, generator=draw), (torch.rand(3, 2, 4, 5, generator=draw) > 0.5).float()
    for k in range(2):
        both = one = other = 0.0
        for n in range(3):
            for y in range(4):
                for x in range(5):
                    both += float(p[n, k, y, x] * g[n, k, y, x])
                    one += float(p[n, k, y, x])
                    other += float(g[n, k, y, x])
        assert float(dice(p, g)[k]) == pytest.approx((2 * both + 1) / (one + other + 1), rel=1e-5)
    assert torch.equal(dice(g, g), torch.ones(2))


def test_overlapping_concepts_are_learnt_and_measured_on_images_outside_training(tmp_path):
    data = blobs()
    trainer = gx.create("trainer/segmenter", segmenter=gx.Spec("segmenter/unet", {"width": 8}), steps=120, holdout=0.25)
    trained = trainer.fit(data, runtime())
    model = trained.segmenter
    assert (model.concepts, model.channels, model.sizes, model.training) == (NAMES, 1, (12, 12), False)
    assert (trained.info["trained_on"], trained.info["held_out"]) == (36, 12)
    found = model.segment(bare(data))
    held = trainer._split(len(data), 0)[1]
    for k, name in enumerate(NAMES[:2]):
        both, either = 0, 0
        for i in held:
            both += int((found[i, k] & data.masks[i, k]).sum())
            either += int((found[i, k] | data.masks[i, k]).sum())
        assert trained.info["held_out_iou"][name] == pytest.approx(both / either)
        assert both / either > 0.75
    exact = [
        bool((found[i, :, y, x] == data.masks[i, :, y, x]).all()) for i in held for y in range(12) for x in range(12)
    ]
    assert trained.info["held_out_pixel_accuracy"] == pytest.approx(sum(exact) / len(exact))
    assert trained.info["held_out_iou"]["absent"] is None
    assert trained.info["held_out_mean_iou"] == pytest.approx(
        (trained.info["held_out_iou"]["bright"] + trained.info["held_out_iou"]["dark"]) / 2
    )
    gx.save_model(model, tmp_path / "model")
    assert torch.equal(gx.load_model(tmp_path / "model").segment(bare(data)), found)


def test_images_held_out_are_not_trained_on():
    """Taught the wrong masks, and measured by right ones, it must be wrong."""
    data, trainer = blobs(), SegmenterTrainer(gx.Spec("segmenter/unet", {"width": 8}), steps=100, holdout=0.25)
    train, held = trainer._split(len(data), 0)
    assert sorted(train + held) == list(range(len(data)))
    taught = data.masks.clone()
    taught[train] = ~taught[train]
    iou = trainer.fit(dataclasses.replace(data, masks=taught), runtime()).info["held_out_iou"]
    assert iou["bright"] < 0.2
    assert iou["dark"] < 0.2


def test_exact_masks_measure_as_perfect_and_empty_ones_as_nothing():
    class Oracle(gx.Segmenter):
        concepts = NAMES

        def __init__(self, masks):
            self.masks = masks

        def _segment(self, samples):
            return self.masks[: len(samples)]

    data = blobs(4)
    perfect = measure(Oracle(data.masks), data, range(4), runtime())
    assert (perfect["held_out_mean_iou"], perfect["held_out_pixel_accuracy"]) == (1.0, 1.0)
    nothing = measure(Oracle(torch.zeros_like(data.masks)), data, range(4), runtime())
    assert nothing["held_out_mean_iou"] == 0.0
    assert nothing["held_out_pixel_accuracy"] == pytest.approx(float((~data.masks).all(1).float().mean()))


def test_data_that_do_not_fit_are_refused():
    trainer = SegmenterTrainer(steps=2)
    with pytest.raises(InputError, match="needs masks with the names of their concepts"):
        trainer.fit(bare(blobs()), runtime())
    with pytest.raises(InputError, match="leave none to train on"):
        SegmenterTrainer(steps=2, holdout=0.9).fit(blobs(2), runtime())
    ranged = SegmenterTrainer(gx.Spec("segmenter/unet", {"value_range": (0.0, 1.0)}), steps=2)
    with pytest.raises(InputError, match=r"images are in \(-1.0, 1.0\), the network expects \(0.0, 1.0\)"):
        ranged.fit(blobs(), runtime())
    named = SegmenterTrainer(gx.Spec("segmenter/unet", {"concepts": ("bright", "grass")}), steps=2)
    with pytest.raises(InputError, match="no masks of grass, but of bright, dark, absent"):
        named.fit(blobs(), runtime())
    other = SegmenterTrainer(gx.Spec("segmenter/morphology"), steps=2)
    with pytest.raises(InputError, match="is not a network that can be trained"):
        other.fit(blobs(), runtime())


def test_a_choice_of_concepts_is_trained(tmp_path):
    trainer = SegmenterTrainer(gx.Spec("segmenter/unet", {"concepts": ("dark",), "width": 8}), steps=3, batch=4)
    assert trainer.fit(PatchDarkened(), runtime()).segmenter.concepts == ("dark",)


class PatchDarkened(PatchDataset):
    """Patches under another name, beside an empty concept."""

    def _samples(self, rows):
        samples = super()._samples(rows)
        masks = torch.cat([torch.zeros_like(samples.masks), samples.masks], 1)
        return dataclasses.replace(samples, masks=masks, concepts=("nothing", "dark"))


def test_a_training_goes_on_with_its_own_data_only(tmp_path, monkeypatch):
    trainer = SegmenterTrainer(gx.Spec("segmenter/unet", {"width": 8}), steps=4, batch=4)
    saving = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0}
    data, steps = blobs(100), []

    def counted(*given):
        steps.append(given)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return degrade(*given)

    monkeypatch.setattr(segmenter_training, "degrade", counted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, runtime(**saving))
    images, masks = data.images.clone(), data.masks.clone()
    images[-3:] *= -1
    masks[-3:] ^= True
    for other in (dataclasses.replace(data, images=images), dataclasses.replace(data, masks=masks)):
        with pytest.raises(StorageError, match="is the checkpoint of another configuration"):
            trainer.fit(other, runtime(**saving))
    found = trainer.fit(data, runtime(**saving)).segmenter.state_dict()
    assert len(steps) == 5  # of four, two were done
    whole = trainer.fit(data, runtime()).segmenter.state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"steps": 0}, "steps"), ({"lr": 0.0}, "lr"), ({"degrade": 1.5}, "degrade"), ({"holdout": 1.0}, "holdout")],
)
def test_trainings_out_of_bounds_are_refused(wrong, said):
    with pytest.raises(BadParameter, match=said):
        gx.create("trainer/segmenter", **wrong)
