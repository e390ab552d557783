"""A plugin of one file: a small generator, a judge of its images, and an explainer that switches a unit off."""

import torch
from torch import nn

import genxai_core as gx
from genxai_core import Component, Dataset, Discriminator, Explainer, Generator, Samples, hookimpl
from genxai_core.results import UnitEdits


class Paints(Generator):
    """Latents [N, 3] to images [N, 1, 6, 6], through a layer of 4 units with 3x3 cells.

    Parameters
    ----------
    seed
        Of the weights.
    """

    value_range = (-1.0, 1.0)
    latent_shape = (3,)
    image_shape = (1, 6, 6)

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(3, 18)
            self.units = nn.Conv2d(2, 4, 1)
            self.relu = nn.ReLU(inplace=True)
            self.last = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 1))
            self.unused = nn.Conv2d(2, 4, 1)
        with torch.no_grad():  # as many bright images as dark ones
            self.last[1].weight *= 4
            self.last[1].bias.zero_()
            many = gx.draws.normal(0, range(64), (3,))
            self.last[1].bias -= self.last(self.relu(self._units(many))).mean()

    def _units(self, latents):
        return self.units(self.first(latents).reshape(-1, 2, 3, 3))

    def forward(self, latents):
        return torch.tanh(2 * self.last(self.relu(self._units(latents))))

    def sample_latents(self, n, seed, start=0):
        return gx.draws.normal(seed, range(start, start + n), (3,))

    @torch.no_grad()
    def sample(self, n, seed, labels=None, start=0):
        latents = self.sample_latents(n, seed, start)
        images = self(latents)
        return Samples(images, latents=latents, masks=images > 0, value_range=self.value_range)


class Everything(Paints):
    """A generator with every capability."""

    num_classes = 4

    def encode(self, images):
        return self.units(images[:, :1, :3, :3].repeat(1, 2, 1, 1)).flatten(1)

    def log_prob(self, images):
        return -images.square().sum((1, 2, 3))

    def translate(self, images, target):
        return self(images[:, 0, 0, :3] + target[:, None])

    def predict(self, x_t, t):
        return self(x_t[:, 0, 0, :3] + t[:, None])

    def features(self, images):
        return self.encode(images)

    def embed_images(self, images):
        return self.encode(images)

    def embed_texts(self, texts):
        return torch.ones(len(texts), 2)


def literal(base, latents, off=(0, 2)):
    """Images with units switched off, by hand."""
    x = base.units(base.first(latents).reshape(-1, 2, 3, 3)).clone()
    x[:, list(off)] = 0
    return torch.tanh(2 * base.last(torch.relu(x)))


def sigmoid_above(judge, images, above):
    return judge(images)[:, 0].sigmoid() > above


class Bright(Discriminator):
    """The logit of "bright" is ten times the mean; with batch statistics in training, as many judges have.

    Parameters
    ----------
    k
        Number of classes; with two or more the logits are those of the classes from dark to bright.
    """

    image_shape = (1, 6, 6)

    def __init__(self, k: int = 1):
        super().__init__()
        self.class_names = ("bright",) if k == 1 else tuple(f"class {i}" for i in range(k))
        self.norm = nn.BatchNorm2d(1)
        self.scale = nn.Parameter(torch.tensor([10.0]) if k == 1 else torch.linspace(-3, 3, k))

    def forward(self, images):
        return self.norm(images).mean((1, 2, 3))[:, None] * self.scale


class SwitchOff(Explainer):
    """Edits that ablate one unit.

    Parameters
    ----------
    unit
        Which.
    above
        Only where the judge says so; None for all images.
    """

    explains, accepts, returns = "generator", "nothing", UnitEdits

    def __init__(self, unit: int = 1, above: float | None = None):
        self.unit, self.above = unit, above

    def _explain(self, model, inputs, target):
        condition = None if self.above is None else {"target": 0, "above": self.above}
        return UnitEdits.ablate({"units": [self.unit]}, condition=condition)


class Drawn(Dataset):
    """Images of a generator.

    Parameters
    ----------
    n
        How many.
    """

    image_shape = (1, 6, 6)

    def __init__(self, n: int = 5):
        self.n = n

    def __len__(self):
        return self.n

    def _samples(self, rows):
        raise NotImplementedError

    def load(self, model, *, runtime=None):
        return model.sample(self.n, 7)


@hookimpl
def genxai_components():
    rows = [
        ("generator", "paints", Paints),
        ("discriminator", "bright", Bright),
        ("explainer", "switch-off", SwitchOff),
        ("dataset", "painted", Drawn),
    ]
    return [Component(kind, name, f"edited_models:{target.__name__}", "a test's own") for kind, name, target in rows]
