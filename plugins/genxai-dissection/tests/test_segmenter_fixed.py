"""segmenter/fixed: the same masks for every image, or each image its own, and what does not fit is refused."""

import numpy as np
import pytest
import torch
from genxai_dissection.fixed import Fixed

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError

NAMES = ("left", "right")


def images(n=6, size=8, channels=3):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def halves(size=8):
    left = torch.zeros(size, size, dtype=torch.bool)
    left[:, : size // 2] = True
    return torch.stack([left, ~left])


def annotated(n=6):
    masks = torch.rand(n, 2, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    return gx.Samples(images(n), masks=masks, value_range=(0.0, 1.0), concepts=NAMES)


def bare(samples, rows, value_range=None):
    chosen = gx.Samples(samples.images[rows], value_range=samples.value_range)
    return chosen.rescale(value_range) if value_range else chosen


# -- the same for every image -----------------------------------------------------------------------------------


def test_one_set_of_masks_holds_for_every_image(tmp_path):
    found = gx.create("segmenter/fixed", masks=halves(), concepts=NAMES).segment(bare(annotated(), [0, 3, 1]))
    assert torch.equal(found, halves().expand(3, 2, 8, 8))
    np.savez(tmp_path / "halves.npz", masks=halves().numpy(), concepts=np.array(NAMES))
    read = gx.create("segmenter/fixed", masks=tmp_path / "halves.npz")
    assert read.concepts == NAMES
    assert torch.equal(read.segment(bare(annotated(), [0, 3, 1])), found)


def test_masks_of_another_size_are_refused():
    with pytest.raises(InputError, match="masks are 8×8, the images 16×16"):
        Fixed(halves(), NAMES).segment(gx.Samples(images(size=16), value_range=(0.0, 1.0)))


# -- each image its own -----------------------------------------------------------------------------------------


def test_an_image_gets_its_own_masks_whatever_the_order_and_range():
    known = annotated()
    segmenter = gx.create("segmenter/fixed", masks=known)
    rows = [4, 0, 4, 2]
    assert torch.equal(segmenter.segment(bare(known, rows)), known.masks[rows])
    assert torch.equal(segmenter.segment(bare(known, rows, (-1.0, 1.0)), gx.Runtime(batch_size=1)), known.masks[rows])


def test_images_are_recognised_when_rounded_to_8_bits_and_from_a_file(tmp_path):
    known = annotated()
    bytes_ = (known.images * 255).round().to(torch.uint8).numpy()
    np.savez(tmp_path / "set.npz", masks=known.masks.numpy(), concepts=np.array(NAMES), images=bytes_)
    segmenter = gx.create("segmenter/fixed", masks=tmp_path / "set.npz")
    assert torch.equal(segmenter.segment(bare(known, [5, 1])), known.masks[[5, 1]])
    floats = {"images": 2 * known.images.numpy() - 1, "value_range": np.array([-1.0, 1.0])}
    np.savez(tmp_path / "floats.npz", masks=known.masks.numpy(), concepts=np.array(NAMES), **floats)
    segmenter = gx.create("segmenter/fixed", masks=tmp_path / "floats.npz")
    assert torch.equal(segmenter.segment(bare(known, [5, 1])), known.masks[[5, 1]])


def test_an_image_that_differs_by_more_than_a_step_anywhere_is_refused():
    known = annotated()
    segmenter = Fixed(known)
    for change, refused in ((0.99 / 255, False), (1.1 / 255, True)):
        near = known.images[:2].clone()
        at = near[1, 2, 7, 7]
        near[1, 2, 7, 7] = at + change if at < 0.5 else at - change
        given = gx.Samples(near, value_range=(0.0, 1.0))
        if refused:
            with pytest.raises(InputError, match=r"1 of 2 images are not among those that have masks .*number 1"):
                segmenter.segment(given)
        else:
            assert torch.equal(segmenter.segment(given), known.masks[:2])
    with pytest.raises(InputError, match=r"images are \[1, 8, 8\], those with masks \[3, 8, 8\]"):
        segmenter.segment(gx.Samples(images(channels=1), value_range=(0.0, 1.0)))


@pytest.mark.parametrize("steps", [2, 6])
def test_images_that_differ_in_one_pixel_are_told_apart(steps):
    """By less than the rounding of a Euclidean distance that is found by products of matrices."""
    draw = torch.Generator().manual_seed(0)
    near = (0.9 * torch.rand(1, 3, 64, 64, generator=draw)).repeat(64, 1, 1, 1)
    masks = torch.zeros(64, 1, 64, 64, dtype=torch.bool)
    for i in range(64):
        near[i, 0, i, 7] += steps / 255
        masks[i, 0, i] = True
    segmenter = Fixed(gx.Samples(near, masks=masks, value_range=(0.0, 1.0), concepts=("row",)))
    assert torch.equal(segmenter.segment(gx.Samples(near.clone(), value_range=(0.0, 1.0))), masks)
    for i in (0, 25, 63):
        assert torch.equal(segmenter.segment(gx.Samples(near[[i]], value_range=(0.0, 1.0))), masks[[i]])


def test_samples_and_their_masks_survive_saving(tmp_path):
    known = annotated()
    gx.save_result(gx.create("segmenter/fixed", masks=known), tmp_path / "fixed")
    loaded = gx.load_result(tmp_path / "fixed")
    assert loaded.concepts == NAMES
    assert torch.equal(loaded.segment(bare(known, [3])), known.masks[[3]])


# -- what is refused when it is built ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"masks": halves().float(), "concepts": NAMES}, "must be bool"),
        ({"masks": halves()[0], "concepts": NAMES}, r"must be bool \[concepts, H, W\]"),
        ({"masks": halves()}, "0 names for 2 masks"),
        ({"masks": halves(), "concepts": ("a", "a")}, "give each one of its own"),
        ({"masks": annotated(), "concepts": NAMES}, "have names of their own"),
        ({"masks": gx.Samples(images(), value_range=(0.0, 1.0))}, r"bool \[N, concepts, H, W\].*none"),
        ({"masks": annotated()[:0]}, "must be bool"),
    ],
)
def test_what_does_not_fit_is_refused(given, said):
    with pytest.raises(BadParameter, match=said):
        gx.create("segmenter/fixed", **given)


def test_files_that_do_not_fit_are_refused(tmp_path):
    known = annotated()
    masks, names = known.masks.numpy(), np.array(NAMES)
    files = {
        "nothing.npz": (None, "cannot be read as .npz"),
        "pickled.npz": ({"masks": np.array([{"a": 1}], dtype=object), "concepts": names}, "without pickles"),
        "words.npz": ({"masks": names, "concepts": names}, "masks are <U5, not numbers"),
        "nameless.npz": ({"masks": masks[0]}, "has no concepts"),
        "empty.npz": ({"images": masks}, "has no masks and no concepts"),
        "rangeless.npz": ({"masks": masks, "concepts": names, "images": known.images.numpy()}, "without a value_range"),
        "short.npz": ({"masks": masks[:2], "concepts": names, "images": np.zeros((6, 3, 8, 8), np.uint8)}, "2 rows"),
        "all.npz": ({"masks": masks, "concepts": names}, r"must be bool \[concepts, H, W\]"),
    }
    for name, (arrays, said) in files.items():
        if arrays is not None:
            np.savez(tmp_path / name, **arrays)
        with pytest.raises(BadParameter, match=said):
            gx.create("segmenter/fixed", masks=tmp_path / name)
    np.save(tmp_path / "plain.npy", masks)
    (tmp_path / "text.npz").write_text("masks")
    for name in ("plain.npy", "text.npz"):
        with pytest.raises(BadParameter, match=r"write it with numpy.savez|has no masks"):
            gx.create("segmenter/fixed", masks=tmp_path / name)
