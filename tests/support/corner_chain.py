"""A generator of three layers, a judge of its upper left corner, and corrections of what that calls broken."""

import torch
from genxai_correction.correcting import CorrectUnits
from torch import nn

from genxai_core import Discriminator, Generator, Runtime, Samples, draws

RUNTIME = Runtime(device="cpu", batch_size=7, quiet=True)
LAYERS = ("one", "two", "three")


class Chain(Generator):
    """Latents [N, 6] to images [N, 1, 8, 8], through three layers at 2, 4 and 8 cells."""

    value_range = (-1.0, 1.0)
    latent_shape = (6,)

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(6, 5 * 4)
        self.one, self.two, self.three = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.first = nn.ConvTranspose2d(5, 6, 4, 2, 1)
        self.second = nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.end = nn.Conv2d(4, 1, 3, padding=1)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(0.6 * draws.normal(3, [i], parameter.shape)[0])

    def sample_latents(self, n, seed, start=0):
        return draws.normal(seed, range(start, start + n), (6,))

    def forward(self, latents):
        low = self.one(self.start(latents).view(-1, 5, 2, 2))
        return torch.tanh(0.5 * self.end(self.three(self.second(self.two(self.first(low))))))


class Corner(Discriminator):
    """Two logits, of which the second grows with the brightness of the upper left corner."""

    class_names = ("normal", "artifact")
    value_range = (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(5.0))

    def forward(self, images):
        half = self.gain * (images[:, :, :4, :4].mean((1, 2, 3)) - 0.1)
        return torch.stack([-half, half], 1)


def given(n=40):
    """Return the generator, the judge, and samples with labels and masks: corners brighter than 0.1."""
    model, judge = Chain().eval(), Corner().eval()
    latents = model.sample_latents(n, 0)
    with torch.no_grad():
        images = model(latents)
        labels = (judge(images)[:, 1] > 0).long()
    masks = torch.zeros_like(images).bool()
    masks[:, :, :4, :4] = images[:, :, :4, :4] > 0
    about = {"class_names": ("normal", "artifact"), "concepts": ("artifact",)}
    return model, judge, Samples(images, latents, labels, masks, value_range=(-1.0, 1.0), **about)


def corrected(**how):
    model, judge, samples = given(how.pop("n", 60))
    target = how.pop("target", None)
    parameters = {"classifier": judge, "layers": LAYERS, "quantile": 0.9, "bound": 0.2, "counts": (1, 2), **how}
    return CorrectUnits(**parameters).explain(model, samples, target=target, runtime=RUNTIME), model, judge, samples
