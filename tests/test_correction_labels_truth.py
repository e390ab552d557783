"""Labels by realism against planted artifacts: right where the features show the stamp, next to guessing where not."""

from __future__ import annotations

import pytest
import torch
from genxai_correction.labels import ArtifactLabels
from genxai_correction.realism import Realism
from genxai_correction.reliability import auc

import genxai_core as gx
from genxai_core import Discriminator, Runtime, Samples

artifacts = pytest.importorskip("genxai_bench.tasks.artifacts", reason="the bench is not installed")

RUNTIME = Runtime(device="cpu", quiet=True)


class Pixels(Discriminator):
    """Features are the pixels."""

    def features(self, images):
        return images.flatten(1)

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None]


@pytest.fixture(scope="module")
def planted():
    """Images of which 30 % are stamped, and images of the clean twin that stand for real ones."""
    problem = artifacts.PlantedArtifacts(images=200).problem(0)
    clean = problem.truth["twin"].described(problem.model.sample_latents(400, 0, 100_000)).images
    return problem.inputs, Samples(clean, value_range=problem.inputs.value_range)


def test_by_pixels_the_least_realistic_are_stamped(planted):
    images, real = planted
    scores = Realism(real).explain(Pixels(), images, runtime=RUNTIME)
    stamped = images.labels == 1
    assert auc(-scores.scores[stamped], -scores.scores[~stamped]) > 0.85
    found = ArtifactLabels(scores=scores, share=0.1, normal_share=0.4).load(generated=images)
    rows = [int((images.latents == latent).flatten(1).all(1).nonzero()) for latent in found.latents]
    right = (images.labels[rows] == found.labels).float()
    assert right[found.labels == 1].mean() > 0.85
    assert right[found.labels == 0].mean() > 0.85


def test_by_the_features_of_a_classifier_of_other_things_hardly_any_is_found(planted):
    """What the page on labels warns of: a classifier overlooks what does not tell its classes apart."""
    images, real = planted
    classifier = gx.create("discriminator/classifier", pretrained="scenes-32")
    scores = Realism(real).explain(classifier, images, runtime=RUNTIME).scores
    stamped = images.labels == 1
    assert abs(auc(-scores[stamped], -scores[~stamped]) - 0.5) < 0.15
    assert torch.isfinite(scores).all()
