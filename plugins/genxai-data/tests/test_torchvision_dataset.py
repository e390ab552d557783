import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

import genxai_core as gx
from genxai_core.errors import BadParameter, StorageError

REPOSITORY = Path(__file__).parents[3]
REAL = Path(os.environ.get("GENXAI_TEST_DATA", REPOSITORY / ".." / "shared" / "data")) / "fashion-mnist"


def create(name, root, **kw):
    return gx.create("dataset/torchvision", name=name, root=root, **kw)


def idx_bytes(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder, split="train", n=12, zipped=False, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    images, labels = draw.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
    for array, stem in ((images, "images-idx3-ubyte"), (labels, "labels-idx1-ubyte")):
        data = idx_bytes(array)
        name = f"{split}-{stem}" + (".gz" if zipped else "")
        (folder / name).write_bytes(gzip.compress(data) if zipped else data)
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_idx_files_are_read_where_they_lie(tmp_path, zipped, below):
    images, labels = write_idx(tmp_path / below, zipped=zipped)
    test_images, _ = write_idx(tmp_path / below, "t10k", n=5, zipped=zipped, seed=1)
    data = create("FashionMNIST", tmp_path, value_range=[0, 255])
    assert data.image_shape == (1, 28, 28)
    assert data.class_names == tuple(datasets.FashionMNIST.classes)
    assert torch.equal(data[:].images[:, 0], torch.from_numpy(images).float())
    assert data[:].labels.tolist() == labels.tolist()
    test = create("FashionMNIST", tmp_path, split="test", value_range=[0, 255])
    assert torch.equal(test[:].images[:, 0], torch.from_numpy(test_images).float())


def test_torchvision_reads_the_same_from_its_own_layout(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    write_idx(tmp_path / "MNIST" / "raw", "t10k")
    theirs = datasets.MNIST(tmp_path, train=True, download=False)
    ours = create("MNIST", tmp_path, value_range=[0, 255])[:]
    assert torch.equal(ours.images[:, 0].byte(), theirs.data)
    assert torch.equal(ours.labels, theirs.targets)
    assert ours.class_names == tuple("0123456789")


def test_limit_and_size(tmp_path):
    write_idx(tmp_path)
    whole, part = create("KMNIST", tmp_path), create("KMNIST", tmp_path, limit=5, size=14)
    assert len(part) == 5
    assert part.image_shape == (1, 14, 14)
    pooled = torch.nn.functional.interpolate(
        whole[:5].images, (14, 14), mode="bilinear", antialias=True, align_corners=False
    )
    assert torch.equal(part[:].images, pooled)
    assert create("KMNIST", tmp_path, size=28)[3].images.equal(whole[3].images)
    assert part[0:0].images.shape == (0, 1, 14, 14)


# -- files that are wrong ---------------------------------------------------------------------------------------------


def cut(data):
    return data[:-1]


def lengthen(data):
    return data + b"\0"


def relabel(data):
    return data[:2] + b"\x0d" + data[3:]  # floats


def huge(data):
    return data[:4] + struct.pack(">3I", 2**31, 2**10, 2**10) + data[16:]


def empty(data):
    return data[:4] + struct.pack(">3I", 0, 28, 28)


def stub(data):
    return data[:9]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "announces 9,408 bytes and only 9,407 follow"),
        (lengthen, "announces 9,408 bytes and more follow"),
        (relabel, "begins with 00 00 0d 03, not with 00 00 08 03"),
        (huge, "announces the shape"),
        (empty, "announces the shape"),
        (stub, "ends within its header"),
        (lambda data: b"", "begins with nothing"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_images_give_one_line_that_names_the_file(tmp_path, damage, says, zipped):
    write_idx(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    data = damage(file.read_bytes())
    if zipped:
        file.unlink()
        file = file.with_name(file.name + ".gz")
        data = gzip.compress(data)
    file.write_bytes(data)
    with pytest.raises(StorageError, match=says) as caught:
        create("MNIST", tmp_path)
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_gzip_files(tmp_path):
    write_idx(tmp_path, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[: len(whole) // 2], bytes(flipped), b"plain text"):
        file.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"images-idx3-ubyte.gz: "):
            create("MNIST", tmp_path)


def test_labels_that_do_not_fit(tmp_path):
    write_idx(tmp_path, n=12)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.arange(11) % 10))
    with pytest.raises(StorageError, match="12 images and train-labels-idx1-ubyte 11 labels"):
        create("MNIST", tmp_path)
    labels.write_bytes(idx_bytes(np.arange(12)))
    with pytest.raises(StorageError, match="label 11, but MNIST has 10 classes"):
        create("MNIST", tmp_path)
    labels.unlink()
    with pytest.raises(StorageError, match=r"no train-labels-idx1-ubyte\[.gz\].*nothing is downloaded"):
        create("MNIST", tmp_path)


# -- through torchvision ----------------------------------------------------------------------------------------------


def write_cifar(root, monkeypatch):
    """A small CIFAR10 whose checksums torchvision is told; returns the images of both parts."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    arrays = {name: draw.integers(0, 256, (4, 3072), dtype=np.uint8) for name in ("one", "two", "test")}
    lists = {k: write(k, {"data": v, "labels": [0, 1, 2, 9]}) for k, v in arrays.items()}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [lists["one"], lists["two"]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [lists["test"]])
    name, md5 = write("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return np.concatenate([arrays["one"], arrays["two"]]).reshape(-1, 3, 32, 32), arrays["test"].reshape(-1, 3, 32, 32)


def test_cifar10(tmp_path, monkeypatch):
    train, test = write_cifar(tmp_path, monkeypatch)
    for split, want in (("train", train), ("test", test)):
        data = create("CIFAR10", tmp_path, split=split, value_range=[0, 255])
        assert data.image_shape == (3, 32, 32)
        assert torch.equal(data[:].images, torch.from_numpy(want).float())
        assert data[:].labels.tolist() == [0, 1, 2, 9] * (len(want) // 4)
        assert data.class_names[9] == "class 9"


def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    file = tmp_path / "test_32x32.mat"
    savemat(file, {"X": images, "y": np.array([[1], [2], [10], [9], [3]])})
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.SVHN, "split_list", {"test": ["", file.name, md5]})
    samples = create("SVHN", tmp_path, split="test", value_range=[0, 255])[:]
    assert torch.equal(samples.images, torch.from_numpy(images.transpose(3, 2, 0, 1).copy()).float())
    assert samples.labels.tolist() == [1, 2, 0, 9, 3]


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    ("name", "folder", "files"),
    [
        ("CIFAR10", "cifar-10-batches-py", ["batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))]),
        ("CIFAR100", "cifar-100-python", ["meta", "train", "test"]),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_pickles_that_are_not_the_official_files_are_never_opened(tmp_path, name, folder, files, split):
    marker = tmp_path / "ran"
    (tmp_path / folder).mkdir()
    for file in files:
        (tmp_path / folder / file).write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(StorageError, match="are not in it, or differ from them"):
        create(name, tmp_path, split=split)
    assert not marker.exists()
    pickle.loads((tmp_path / folder / files[0]).read_bytes())
    assert marker.exists()  # the bomb is live: only the checksum kept it from going off


def test_only_the_labels_file_exchanged_is_refused_as_well(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    marker = tmp_path / "ran"
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(StorageError, match="CIFAR10"):
        create("CIFAR10", tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100", "SVHN"])
def test_nothing_is_downloaded(tmp_path, monkeypatch, name):
    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(StorageError, match="nothing is downloaded"):
        create(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_parameters_are_refused_by_name(tmp_path):
    write_idx(tmp_path)
    for wrong in ({"limit": 0}, {"size": 4}, {"value_range": [2, 1]}, {"split": "valid"}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            create("MNIST", tmp_path, **wrong)
    with pytest.raises(BadParameter, match="ImageNet"):
        create("ImageNet", tmp_path)


# -- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="no fashion-mnist in the folder that GENXAI_TEST_DATA names")
def test_the_real_fashion_mnist():
    train, test = (create("FashionMNIST", REAL, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60000, 10000)
    assert torch.bincount(train[:].labels).tolist() == [6000] * 10
    # published: mean 0.2860 and standard deviation 0.3530 of the training images in [0, 1]
    images = (train[:].images + 1) / 2
    assert float(images.mean()) == pytest.approx(0.2860, abs=1e-4)
    assert float(images.std()) == pytest.approx(0.3530, abs=1e-4)
    assert train.class_names[int(train[0].labels)] == "Ankle boot"
