"""A plugin of one file: nets of a few hundred weights, discriminators that spoil the short cut, rude explainers."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from genxai_core import Attribution, Component, Discriminator, Explainer, Generator, draws, hookimpl


class TinyGenerator(Generator):
    """Latents [N, 6] to images in (-1, 1), without batch statistics."""

    latent_shape = (6,)

    def __init__(self, size: int, channels: int, high: float = 1.0) -> None:
        super().__init__()
        self.value_range = (-1.0, high)
        self.stem = nn.Linear(6, 8 * (size // 4) ** 2)
        self.body = nn.Sequential(nn.Unflatten(1, (8, size // 4, size // 4)), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, channels, 4, 2, 1))

    def sample_latents(self, n: int, seed: int, start: int = 0) -> torch.Tensor:
        return draws.normal(seed, range(start, start + n), self.latent_shape)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.up(self.body(self.stem(latents))))


class NoLatents(Generator):
    """Makes nothing."""

    value_range = (-1.0, 1.0)


class TinyDiscriminator(Discriminator):
    """Spectral norm and LeakyReLU."""

    def __init__(self, channels: int, logits: int = 1) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(channels, 8, 4, 2, 1))
        self.second = spectral_norm(nn.Conv2d(8, 8, 4, 2, 1))
        self.head = spectral_norm(nn.Linear(128, logits))

    def norm(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = F.leaky_relu(self.first(images), 0.2)
        return self.head(F.leaky_relu(self.norm(self.second(hidden)), 0.2).flatten(1))


class ConditionalGenerator(TinyGenerator):
    """Adds an embedding of the label to the latent."""

    def __init__(self, size: int, channels: int, num_classes: int, class_names: tuple[str, ...] = ()) -> None:
        super().__init__(size, channels)
        if class_names and len(class_names) != num_classes:
            raise ValueError(f"class_names {class_names} are not {num_classes}")
        self.num_classes, self.class_names = num_classes, class_names
        self.embedding = nn.Embedding(num_classes, 6)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(latents + self.embedding(labels))


class ConditionalDiscriminator(TinyDiscriminator):
    """Weighs a hidden layer by an embedding of the label."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels)
        self.num_classes = num_classes
        self.embedding = nn.Embedding(num_classes, 8)

    def judged(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        hidden = F.leaky_relu(self.second(F.leaky_relu(self.first(images), 0.2)), 0.2)
        weights = 1 + self.embedding(labels)[:, :, None, None]
        return self.head((weights * hidden).flatten(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("judged without labels")

    def given(self, *, labels: int | torch.Tensor) -> Discriminator:
        return Given(self, torch.as_tensor(labels))


class Given(Discriminator):
    """Holds the labels."""

    def __init__(self, base: ConditionalDiscriminator, labels: torch.Tensor) -> None:
        super().__init__()
        self.base, self.labels = base, labels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.base.judged(images, self.labels.expand(len(images)))


class ClassesOnly(TinyDiscriminator):
    """Says that it has classes, and cannot be given one."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels)
        self.num_classes = num_classes


class BatchNormDiscriminator(TinyDiscriminator):
    """Has batch statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.batch_norm = nn.BatchNorm2d(8)

    def norm(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.batch_norm(hidden)


class DropoutDiscriminator(TinyDiscriminator):
    """Drops out by a function, which no module's type betrays."""

    def norm(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.dropout(hidden, 0.1, self.training)


class NeighbourDiscriminator(TinyDiscriminator):
    """Subtracts the batch's mean, in eval mode too."""

    def norm(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden - hidden.mean(0, keepdim=True)


class Ramp(Explainer):
    """A constant horizontal ramp [N, H, W], to be recognised in what the trainer does with it."""

    returns = Attribution

    def attribute(self, model, images, target):
        n, _, height, width = images.shape
        return torch.linspace(-1, 0, width).expand(n, height, width)

    def _explain(self, model, images, target):
        return Attribution(maps=self.attribute(model, images, target), target=target)


class Rude(Ramp):
    """Does to the model and to the global generators whatever can be done, then draws a random map."""

    def attribute(self, model, images, target):
        random.seed(1)
        model.train().requires_grad_(True)
        model.first.register_forward_hook(lambda *_: None)
        with torch.enable_grad():
            model(images.requires_grad_()).sum().backward()
        with torch.no_grad():
            model.head.parametrizations.weight.original.mul_(2)
        np.random.rand(3)
        return torch.randn_like(images)


class Noisy(Ramp):
    """Draws its map from torch's global generator."""

    def attribute(self, model, images, target):
        return torch.randn_like(images)


class Misshapen(Ramp):
    """Returns maps of the wrong size."""

    def attribute(self, model, images, target):
        return torch.zeros(len(images), 3, 3)


class Broken(Ramp):
    """Returns NaN."""

    def attribute(self, model, images, target):
        return torch.full_like(images, float("nan"))


class Offline(Explainer):
    """Cannot work inside a training step."""

    returns = Attribution

    def _explain(self, model, images, target):
        return Attribution(maps=torch.zeros_like(images), target=target)


@hookimpl
def genxai_components():
    """Return the components, all of them for tests."""
    generators = {"tiny": TinyGenerator, "no-latents": NoLatents, "conditional": ConditionalGenerator}
    discriminators = {
        "tiny": TinyDiscriminator,
        "conditional": ConditionalDiscriminator,
        "classes-only": ClassesOnly,
        "batch-norm": BatchNormDiscriminator,
        "dropout": DropoutDiscriminator,
        "neighbour": NeighbourDiscriminator,
    }
    explainers = {
        "ramp": Ramp,
        "rude": Rude,
        "noisy": Noisy,
        "misshapen": Misshapen,
        "broken": Broken,
        "offline": Offline,
    }
    kinds = {"generator": generators, "discriminator": discriminators, "explainer": explainers}
    return [
        Component(kind, name, f"{cls.__module__}:{cls.__name__}", "for tests")
        for kind, classes in kinds.items()
        for name, cls in classes.items()
    ]
