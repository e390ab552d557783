"""metric/baseline-quality keeps its contract, with realism by pixels and by features."""

from __future__ import annotations

from genxai_core import Attribution, create, draws
from genxai_core.testing import MetricTests
from genxai_core.testing.data import PatchDataset
from genxai_core.testing.models import PatchDiscriminator, planted_images


def attribution(images, baseline):
    return Attribution(maps=images[:, 0], target=0, images=images, baseline=baseline, value_range=(-1.0, 1.0))


class TestBaselineQuality(MetricTests):
    component = "metric/baseline-quality"

    def good(self):
        images = planted_images(32)  # all bright
        dark = -0.99 * images.roll(1, 0)
        real = PatchDataset(32, seed=1)[:]
        return {"explanation": attribution(images, dark), "real": real, "model": PatchDiscriminator().eval()}

    def bad(self):
        images = planted_images(32)
        noise = draws.uniform(3, range(32), (1, 16, 16)) * 2 - 1
        noise[:, :, 8:12, 4:8] = noise[:, :, 8:12, 4:8].abs()
        return {**self.good(), "explanation": attribution(images, noise)}


class TestBaselineQualityByFeatures(TestBaselineQuality):
    component = "metric/baseline-quality"

    def parameters(self):
        return {"by": "features", "judge": create("discriminator/tiny-linear")}
