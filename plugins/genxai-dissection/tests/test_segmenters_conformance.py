"""Segmenters that are not trained here keep the contract of their kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from genxai_core.testing import PatchDataset, SegmenterTests


class TestMorphology(SegmenterTests):
    component = "segmenter/morphology"


class TestMorphologyOfDarkInk(SegmenterTests):
    component = "segmenter/morphology"
    params = {"threshold": 0.6, "ink": "dark", "radius": 2, "spur": 0.0}


class TestFixedForAllImages(SegmenterTests):
    component = "segmenter/fixed"
    params = {"masks": torch.eye(16, dtype=torch.bool)[None], "concepts": ("diagonal",)}


class TestFixedForEachImage(SegmenterTests):
    component = "segmenter/fixed"

    def parameters(self):
        samples = PatchDataset(8)[:]
        own = samples.masks ^ (torch.arange(8) % 3 == 0)[:, None, None, None]
        return {"masks": replace(samples, masks=own)}


class TestTransformers(SegmenterTests):
    component = "segmenter/transformers"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tmp_path_factory):
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.SegformerConfig(
            num_encoder_blocks=1,
            depths=[1],
            sr_ratios=[1],
            hidden_sizes=[8],
            patch_sizes=[3],
            strides=[2],
            num_attention_heads=[1],
            mlp_ratios=[2],
            decoder_hidden_size=8,
            id2label={0: "wall", 1: "sky", 2: "tree"},
        )
        cls.folder = tmp_path_factory.mktemp("segformer")
        transformers.SegformerForSemanticSegmentation(config).save_pretrained(cls.folder)
        processor = transformers.SegformerImageProcessor(size={"height": 16, "width": 16})
        processor.save_pretrained(cls.folder)

    def parameters(self):
        return {"folder": self.folder}
