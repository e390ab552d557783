import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError


def native(split="all", **kw):
    return gx.create("dataset/digits", split=split, **kw)


def levels(samples):
    """The 64 levels of each image, 0 to 16, as tuples."""
    return [tuple(((i + 1) * 8).flatten().tolist()) for i in samples.images]


def test_native_images_are_scikit_learns_levels_exactly_only_in_another_order():
    bunch = load_digits()
    samples = native()[:]
    assert samples.images.shape == (1797, 1, 8, 8)
    assert samples.images.dtype == torch.float32
    assert samples.value_range == (-1.0, 1.0)
    ours = sorted(zip(levels(samples), samples.labels.tolist()))
    theirs = sorted((tuple(float(v) for v in row), int(y)) for row, y in zip(bunch.data, bunch.target))
    assert ours == theirs
    assert set(np.concatenate(levels(samples))) == set(range(17))
    assert samples.labels.tolist() != bunch.target.tolist()


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-2.0, 6.0)])
def test_levels_fill_the_value_range_linearly(value_range):
    low, high = value_range
    want = native()[:].rescale(value_range).images
    got = native(value_range=value_range)[:].images
    assert torch.equal(got, want)
    assert (got.min(), got.max()) == (low, high)


def test_train_and_test_are_disjoint_cover_all_and_are_stratified():
    everything, train, test = (native(split) for split in ("all", "train", "test"))
    assert (len(everything), len(train), len(test)) == (1797, 1442, 355)
    parts = sorted(levels(train[:]) + levels(test[:]))
    assert parts == sorted(levels(everything[:]))
    assert len(set(levels(train[:]))) == 1442  # no image occurs twice, so that disjoint rows are disjoint images
    assert not set(levels(train[:])) & set(levels(test[:]))
    whole = torch.bincount(everything[:].labels)
    assert torch.equal(torch.bincount(test[:].labels), whole // 5)


def test_the_order_is_fixed_and_goes_no_longer_by_writer():
    assert levels(native()[:20]) == levels(native()[:20])
    # the file repeats 0 1 2 … 9 writer by writer
    assert load_digits().target[:10].tolist() == list(range(10))
    assert native()[:12].labels.tolist() == [7, 5, 4, 6, 2, 2, 6, 7, 8, 2, 5, 9]
    assert native("test")[:12].labels.tolist() == [6, 8, 5, 2, 4, 9, 3, 0, 6, 2, 5, 4]


def bilinear(image, size):
    """Literal bilinear interpolation with half-pixel centres and clamped edges."""
    out = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y, x = ((k + 0.5) * 8 / size - 0.5 for k in (i, j))
            y, x = min(max(y, 0), 7), min(max(x, 0), 7)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, 7), min(x0 + 1, 7)
            top = image[y0, x0] * (1 - x + x0) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - x + x0) + image[y1, x1] * (x - x0)
            out[i, j] = top * (1 - y + y0) + bottom * (y - y0)
    return out


@pytest.mark.parametrize("size", [16, 20, 128])
def test_larger_sizes_are_bilinear_with_half_pixel_centres_edges_included(size):
    small, large = native()[3].images[0, 0].numpy(), native(size=size)[3].images[0, 0].numpy()
    assert native(size=size).image_shape == (1, size, size)
    np.testing.assert_allclose(large, bilinear(small, size), atol=1e-6)


def test_indexing_also_of_nothing():
    digits = native(size=16)
    assert digits[0:0].images.shape == (0, 1, 16, 16)
    assert torch.equal(digits[[5, -1]].images[1], digits[1796].images[0])
    assert digits[2].class_names[int(digits[2].labels)] in "0123456789"
    with pytest.raises(InputError, match="out of range"):
        digits[1797]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"size": 7}, "size 7 is not between 8 and 128"),
        ({"size": 129}, "size 129"),
        ({"value_range": [1, 1]}, "value_range"),
        ({"split": "valid"}, "split"),
        ({"size": "16"}, "size"),
    ],
)
def test_bad_parameters_are_refused_by_name(params, says):
    with pytest.raises(BadParameter, match=says):
        gx.create("dataset/digits", **params)
