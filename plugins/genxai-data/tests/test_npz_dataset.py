"""dataset/npz: arrays come back as they are, masks follow their images, and what does not fit is told."""

import zipfile

import numpy as np
import pytest
import torch

from genxai_core import create
from genxai_core.errors import BadParameter, StorageError

N, H, W = 6, 8, 12


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (N, H, W, 3), dtype=np.uint8),
        "parts": rng.integers(0, 4, (N, H, W), dtype=np.uint8),
        "kind": rng.integers(0, 3, N),
        "known": rng.normal(size=(N, 2)),
    }


@pytest.fixture
def saved(tmp_path, arrays):
    def save(**changes):
        np.savez_compressed(tmp_path / "data.npz", **{**arrays, **changes})
        return tmp_path / "data.npz"

    return save


def load(file, **params):
    return create("dataset/npz", file=file, **params)


ALL = {
    "labels": "kind",
    "class_names": ["a", "b", "c"],
    "masks": "parts",
    "concepts": ["none", "hat", "shoe", "coat"],
    "factors": "known",
    "factor_names": ["x", "y"],
}


def test_everything_comes_back_as_it_is(saved, arrays):
    data = load(saved(), **ALL, value_range=(0.0, 255.0))
    got = data[1:4]
    assert (len(data), data.image_shape) == (N, (3, H, W))
    assert np.array_equal(got.images.numpy(), arrays["images"][1:4].transpose(0, 3, 1, 2))
    assert np.array_equal(got.labels.numpy(), arrays["kind"][1:4])
    assert np.array_equal(got.masks.byte().argmax(1).numpy(), arrays["parts"][1:4])
    assert bool((got.masks.sum(1) == 1).all())
    assert got.concepts == ("none", "hat", "shoe", "coat")
    np.testing.assert_allclose(got.factors.numpy(), arrays["known"][1:4].astype(np.float32))


@pytest.mark.parametrize("layout", ["last", "first", "none"])
def test_the_ways_to_lay_out_images(saved, layout):
    gray = np.arange(N * H * W, dtype=np.uint8).reshape(N, H, W)
    given = {"last": gray[..., None], "first": gray[:, None], "none": gray}[layout]
    images = load(saved(images=given), value_range=(0.0, 255.0))[:].images
    assert np.array_equal(images.numpy(), gray[:, None])


def test_overlapping_masks(saved):
    planes = np.zeros((N, 2, H, W), bool)
    planes[:, :, 2:4] = True
    got = load(saved(parts=planes), masks="parts", concepts=["a", "b"])[:]
    assert np.array_equal(got.masks.numpy(), planes)


def test_masks_are_resized_with_their_images(saved):
    images, parts = np.zeros((N, 16, 16, 3), np.uint8), np.zeros((N, 16, 16), np.uint8)
    images[:, 4:8, 6:12], parts[:, 4:8, 6:12] = 255, 2
    got = load(saved(images=images, parts=parts), masks="parts", concepts=["a", "b", "c"], size=8)[:]
    expected = torch.zeros(N, 8, 8, dtype=torch.bool)
    expected[:, 2:4, 3:6] = True
    assert torch.equal(got.masks[:, 2], expected)
    assert torch.equal(got.images[:, 0] > 0, expected)
    assert bool((got.masks.sum(1) == 1).all())


def test_the_first_ones(saved):
    assert len(load(saved(), limit=2)) == 2


@pytest.mark.parametrize(
    ("changes", "params", "match"),
    [
        ({}, {"images": "pictures"}, r"holds no array 'pictures'; it has images, kind, known, parts"),
        ({"images": np.zeros((N, H, W, 3))}, {}, r"float64 .*images are uint8"),
        ({"images": np.zeros((N, H, W, 4), np.uint8)}, {}, "C 1 or 3"),
        ({"images": np.zeros((0, H, W), np.uint8)}, {}, "at least one"),
        ({"images": np.array([object()])}, {}, "holds Python objects"),
        ({"kind": np.zeros(N)}, {"labels": "kind"}, "labels are integers"),
        ({"kind": np.zeros(3, int)}, {"labels": "kind"}, "labels are integers"),
        ({}, {"labels": "kind", "class_names": ["a"]}, "one class_name per label"),
        ({}, {"masks": "parts", "concepts": ["a", "b"]}, "there are 2 concepts; name all"),
        ({"parts": np.zeros((N, 3, 3), int)}, {"masks": "parts", "concepts": ["a"]}, "masks are integers"),
        ({"kind": np.zeros(())}, {"labels": "kind"}, "no array with rows"),
        ({"kind": np.full(N, 2**63, np.uint64)}, {"labels": "kind"}, "labels are integers"),
        ({"kind": np.full(N, 30_000_000)}, {"labels": "kind"}, "labels are numbers of classes"),
        ({"known": np.zeros((N, 3))}, {"factors": "known", "factor_names": ["x"]}, r"finite numbers \[6, 1\]"),
        ({"known": np.zeros((N, 1), complex)}, {"factors": "known", "factor_names": ["x"]}, "finite numbers"),
        ({"known": np.full((N, 1), np.nan)}, {"factors": "known", "factor_names": ["x"]}, "finite numbers"),
    ],
)
def test_what_does_not_fit_is_told(saved, changes, params, match):
    with pytest.raises(StorageError, match=match):
        load(saved(**changes), **params)


def test_files_that_are_none(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(StorageError, match=r"is no \.npz file"):
        load(tmp_path / "text.npz")


@pytest.mark.parametrize("shape", ["(17592186044416, 16, 16)", "(-3,)", "('a',)"])
def test_a_header_that_lies_is_told(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(StorageError, match=r"is no \.npz file"):
        load(tmp_path / "lie.npz")


def test_a_member_that_is_no_array_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("images.npy", "hello")
    with pytest.raises(StorageError, match="images is no array"):
        load(tmp_path / "text.npz")


@pytest.mark.parametrize(
    "params", [{"masks": "parts"}, {"factor_names": ["x"]}, {"limit": 0}, {"size": 4}, {"value_range": [1.0, 1.0]}]
)
def test_parameters_that_make_no_sense(saved, params):
    with pytest.raises(BadParameter):
        load(saved(), **params)
