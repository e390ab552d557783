"""Every metric, model and dataset of this distribution keeps the contract of its kind."""

from __future__ import annotations

import pytest
import torch
from genxai_metrics import inception
from torchvision.models.inception import Inception3

from genxai_core import Samples, Spec, draws
from genxai_core.testing import DatasetTests, DiscriminatorTests, LinearDiscriminator, MetricTests, PatchDataset

CLASSES = 4


class TestKID(MetricTests):
    component = "metric/kid"
    params = {"extractor": Spec("discriminator/tiny-linear")}


class TestFID(MetricTests):
    component = "metric/fid"
    params = {"extractor": Spec("discriminator/tiny-linear")}


class TestPrecisionRecall(MetricTests):
    component = "metric/precision-recall"
    params = {"extractor": Spec("discriminator/tiny-linear"), "neighbours": 2}


class TestModeCoverage(MetricTests):
    component = "metric/mode-coverage"
    params = {"extractor": Spec("discriminator/tiny-linear", {"num_classes": CLASSES})}

    def of_classes(self, *classes):
        """Return 32 images of real's four classes, and as many of some of them."""
        looked_for = 16 * LinearDiscriminator(num_classes=CLASSES).weights
        noise = 0.05 * draws.normal(0, range(32), looked_for.shape[1:])

        def images(chosen):
            rows = looked_for[torch.tensor(list(chosen))].repeat(32 // len(chosen), 1, 1, 1)
            return Samples((rows + noise).clamp(-1, 1), value_range=(-1.0, 1.0))

        return {"real": images(range(CLASSES)), "generated": images(classes)}

    def good(self):
        return self.of_classes(0, 1, 2, 3)

    def bad(self):
        return self.of_classes(0, 1)


class TestInceptionScore(MetricTests):
    component = "metric/inception-score"
    params = {"extractor": Spec("discriminator/tiny-linear", {"num_classes": CLASSES})}

    def generated(self, contrast):
        """Return 32 images of what the classes look for, by turns: the stronger, the surer is the classifier."""
        looked_for = 16 * LinearDiscriminator(num_classes=CLASSES).weights  # in (-1, 1)
        return {"generated": Samples(contrast * looked_for.repeat(8, 1, 1, 1).clamp(-1, 1), value_range=(-1.0, 1.0))}

    def good(self):
        return self.generated(1.0)

    def bad(self):
        return self.generated(0.1)


class TestOnePerClass(DatasetTests):
    component = "dataset/one-per-class"
    params = {"n": 7}

    def data(self):
        return self.build().load(real=PatchDataset(6))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights under which signals neither vanish nor explode, for three classes."""
    with torch.device("meta"):
        shapes = Inception3(3, aux_logits=False, init_weights=False).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, like in shapes.items():
        if like.ndim > 1:
            state[name] = torch.randn(like.shape, generator=generator) * (2 / like[0].numel()) ** 0.5
        else:
            state[name] = torch.full_like(like, name.endswith(("running_var", "bn.weight")), device="cpu")
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, file)
    return file


class TestInception(DiscriminatorTests):
    """The whole network at the smallest side that passes through it, which takes a sixteenth of the time."""

    component = "discriminator/inception"

    @pytest.fixture(autouse=True)
    def _small(self, weights, monkeypatch):
        self.weights = weights
        monkeypatch.setattr(inception, "SIDE", 75)

    def parameters(self):
        return {"weights": self.weights}

    def images(self, model):
        return self.draw(model, 3).expand(-1, 3, -1, -1).clone()
