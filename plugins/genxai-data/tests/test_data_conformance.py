"""Every dataset of this distribution keeps the contract of datasets."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genxai_core import Generator, Samples, draws
from genxai_core.testing import DatasetTests, LinearGenerator


class TestDigits(DatasetTests):
    component = "dataset/digits"


class TestDigitsEnlarged(DatasetTests):
    component = "dataset/digits"
    params = {"size": 16, "split": "test", "value_range": (0.0, 1.0)}


class TestScenes(DatasetTests):
    component = "dataset/scenes"
    params = {"n": 12, "size": 16}


class TestScenesFromElsewhere(DatasetTests):
    component = "dataset/scenes"
    params = {"n": 7, "size": 24, "seed": 3, "start": 100, "value_range": (0.0, 1.0)}


class OnDisk(DatasetTests):
    """A dataset that reads files, which `write` makes."""

    @pytest.fixture(autouse=True)
    def _files(self, tmp_path_factory):
        self.root = tmp_path_factory.mktemp("files")
        self.write(self.root)

    def write(self, root):
        raise NotImplementedError

    def parameters(self):
        return {**self.params, "root": self.root}


class TestNPZ(OnDisk):
    component = "dataset/npz"
    params = {"size": 8, "labels": "kind", "masks": "parts", "concepts": ("none", "hat"), "value_range": (0.0, 1.0)}

    def write(self, root):
        levels = np.random.default_rng(0)
        np.savez(
            root / "data.npz",
            images=levels.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8),
            parts=levels.integers(0, 2, (9, 16, 16)),
            kind=levels.integers(0, 3, 9),
        )

    def parameters(self):
        return {**self.params, "file": self.root / "data.npz"}


class TestFolder(OnDisk):
    component = "dataset/folder"
    params = {"size": 12}

    def write(self, root):
        levels = np.random.default_rng(0)
        for name, suffix, shape in (("cat", "png", (20, 30, 3)), ("dog", "jpg", (17, 11, 3)), ("owl", "bmp", (12, 12))):
            (root / name).mkdir()
            for i in range(3):
                pixels = levels.integers(0, 256, shape).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i}.{suffix}")


class TestFolderWithoutClasses(OnDisk):
    component = "dataset/folder"
    params = {"size": 8, "channels": 1, "value_range": (0.0, 1.0)}

    def write(self, root):
        levels = np.random.default_rng(1)
        for i in range(4):
            Image.fromarray(levels.integers(0, 256, (9, 9, 4)).astype(np.uint8)).save(root / f"{i}.png")


def idx(array):
    """Return an array as the bytes of an IDX file."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


class TestTorchvision(OnDisk):
    component = "dataset/torchvision"
    params = {"name": "FashionMNIST"}

    def write(self, root):
        images = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
        (root / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (root / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(12) % 10))


class TestTorchvisionResized(TestTorchvision):
    params = {"name": "MNIST", "size": 14, "limit": 5, "value_range": (0.0, 1.0)}


class TestGenerated(DatasetTests):
    component = "dataset/generated"
    params = {"n": 7, "start": 2}

    def data(self):
        return self.build().load(model=LinearGenerator())


class Conditional(Generator):
    """Images ``[N, 1, 8, 8]`` in (0, 1), brighter by class."""

    value_range = (0.0, 1.0)
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.1))

    def sample(self, n, seed, labels=None, start=0):
        levels = torch.zeros(n) if labels is None else labels
        noise = draws.uniform(seed, range(start, start + n), (1, 8, 8))
        images = levels.view(n, 1, 1, 1) / 4 + self.gain.detach() * noise
        return Samples(images, labels=labels, value_range=self.value_range, class_names=("dark", "mid", "bright"))


class TestGeneratedOfClasses(DatasetTests):
    component = "dataset/generated"
    params = {"n": 5, "seed": 4, "labels": (2, 0, 1, 1, 2)}

    def data(self):
        return self.build().load(model=Conditional())
