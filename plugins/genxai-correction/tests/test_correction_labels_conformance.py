"""Labels, the realism score and the judge's trainer keep the contract of their kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from genxai_correction import labels_file

from genxai_core import ImageScores, Samples, Spec
from genxai_core.testing import DatasetTests, ExplainerTests, LinearDiscriminator, PatchDataset, TrainerTests


def patches(n, names):
    """Return patches, the dark ones under the first name."""
    data = PatchDataset(n)
    return Samples(data[:].images, labels=data[:].labels, value_range=data.value_range, class_names=names)


class TestArtifactLabelsByScores(DatasetTests):
    component = "dataset/artifact-labels"
    params = {"share": 0.25, "scores": ImageScores(torch.arange(12.0))}

    def data(self):
        return self.build().load(generated=PatchDataset(12))


class TestArtifactLabelsByHand(DatasetTests):
    component = "dataset/artifact-labels"

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path_factory):
        self.file = tmp_path_factory.mktemp("labels") / "labels.csv"
        labels_file.write(self.file, {0: "normal", 3: "artifact", 4: "artifact"})

    def parameters(self):
        return {"csv": Path(self.file), "real": patches(5, ("a", "b"))}

    def data(self):
        return self.build().load(generated=PatchDataset(12))


class TestRealism(ExplainerTests):
    component = "explainer/realism"
    params = {"real": patches(16, ("a", "b"))}

    def model(self):
        return LinearDiscriminator(num_classes=3).eval()

    def inputs(self):
        """Return others than the real ones, of which a copy would score infinity."""
        return PatchDataset(6, seed=5)


class TestRealismInALayer(TestRealism):
    params = {**TestRealism.params, "layer": "head"}


class TestArtifactClassifier(TrainerTests):
    component = "trainer/artifact-classifier"
    params = {"model": Spec("discriminator/classifier", {"width": 8}), "steps": 6, "batch": 16}

    def data(self):
        return patches(32, ("normal", "artifact"))


class TestArtifactClassifierOfThree(TrainerTests):
    component = "trainer/artifact-classifier"
    params = {"model": Spec("discriminator/classifier", {"width": 8}), "steps": 6, "batch": 16, "flip": False}

    def data(self):
        samples = patches(30, ("normal", "artifact", "real"))
        labels = samples.labels.clone()
        labels[::3] = 2
        return replace(samples, labels=labels)
