"""The U-Net, the segmenter of scenes and the trainer keep the contracts of their kinds."""

from __future__ import annotations

from dataclasses import replace

import torch

from genxai_core import Spec
from genxai_core.testing import PatchDataset, SegmenterTests, TrainerTests


class Seeded(SegmenterTests):
    """First weights come from torch's global generator; whoever builds a network without a training seeds that."""

    def build(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return super().build()


class TestUNet(Seeded):
    component = "segmenter/unet"
    params = {"concepts": ("patch", "rest"), "channels": 1, "width": 8, "depth": 2}


class TestUNetAtAnotherSize(Seeded):
    component = "segmenter/unet"
    params = {"concepts": ("patch",), "channels": 1, "width": 8, "value_range": (0.0, 1.0), "sizes": (24, 32)}


class TestScenes(SegmenterTests):
    component = "segmenter/scenes"

    def samples(self):
        return replace(PatchDataset(5, channels=3)[:], masks=None, concepts=())


class TestSegmenterTrainer(TrainerTests):
    component = "trainer/segmenter"
    params = {"segmenter": Spec("segmenter/unet", {"width": 8, "depth": 2}), "steps": 6, "batch": 8}


class TestSegmenterTrainerOnCleanImagesWithoutHoldout(TrainerTests):
    component = "trainer/segmenter"
    params = {
        "segmenter": Spec("segmenter/unet", {"width": 8, "depth": 1}),
        "steps": 7,
        "batch": 5,
        "degrade": 0.0,
        "holdout": 0.0,
    }
