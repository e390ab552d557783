"""A generator of eight units of which it is known, in closed form, what each of them draws; and its segmenter."""

import torch
from torch import nn

from genxai_core import Component, Generator, Samples, Segmenter, UnitScores, draws, hookimpl
from genxai_core.errors import InputError

CONCEPTS = ("whole", "twice", "halves")
CELLS = ((slice(0, 2), slice(0, 2)), (slice(0, 2), slice(2, 4)), (slice(2, 4), slice(0, 2)))
"""The cells of each concept at 4×4: a quarter of the picture."""

LEVEL = 0.9
CAUSES = ((0,), (1, 2), (3, 4))
DECOYS = (5, 6)
"""Unit 5 is active just as 0 is, 6 as 1 is; nothing reads them, nor 7, which is noise."""


class Painter(Generator):
    """Latents ``[N, 4]`` to images ``[N, 3, 8, 8]``, in (0, 1): channel c shows concept c.

    Concept c is there, at its cells, where z_c > 0. Unit 0 draws ``whole``; 1 and 2 each draw all of ``twice`` (the
    larger of the two counts); 3 draws the left and 4 the right half of ``halves``.
    """

    value_range = (0.0, 1.0)
    latent_shape = (4,)
    image_shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.units = nn.Identity()
        self.gain = nn.Parameter(torch.ones(1))

    def activations(self, z):
        found = torch.zeros(len(z), 8, 4, 4)
        there = LEVEL * (z[:, :3] > 0).float()[:, :, None, None]
        for c, (rows, columns) in enumerate(CELLS):
            for unit in (*CAUSES[c], *DECOYS[c : c + 1]):
                found[:, unit, rows, columns] = there[:, c]
        found[:, 3, :, 1] = 0
        found[:, 4, :, 0] = 0
        found[:, 7] = torch.sin(z[:, 3] + torch.arange(16.0).view(16, 1)).T.reshape(-1, 4, 4).abs()
        return found

    def forward(self, latents):
        if latents.shape[1:] != (4,):
            raise InputError(f"latents are {list(latents.shape)}, not [N, 4]")
        r = self.units(self.activations(latents) * self.gain)
        drawn = torch.stack([r[:, 0], torch.maximum(r[:, 1], r[:, 2]), torch.maximum(r[:, 3], r[:, 4])], 1)
        return nn.functional.interpolate(drawn, scale_factor=2, mode="nearest").clamp(0, 1)

    def sample_latents(self, n, seed, start=0):
        return draws.normal(seed, range(start, start + n), (4,))

    @torch.no_grad()
    def sample(self, n, seed, labels=None, start=0):
        if labels is not None:
            raise InputError("it is unconditional")
        z = self.sample_latents(n, seed, start)
        return Samples(self(z), z, value_range=self.value_range)


class Channels(nn.Module, Segmenter):
    """Concept c is where channel c is above one half: masks ``[N, 3, H, W]``, logits 10 (x − ½)."""

    value_range = (0.0, 1.0)
    concepts = CONCEPTS

    def forward(self, images):
        return 10 * (images - 0.5)

    def probabilities(self, samples):
        return self(samples.rescale(self.value_range).images).sigmoid()

    def _segment(self, samples):
        return self(samples.rescale(self.value_range).images) > 0


class Hard(Segmenter):
    """The same without probabilities: masks ``[N, 3, H, W]``."""

    concepts = CONCEPTS

    def _segment(self, samples):
        return samples.rescale((0.0, 1.0)).images > 0.5


class Quadrants(nn.Module, Segmenter):
    """Masks ``[N, 4, H, W]`` of the pixels above 0.15 in each quadrant of gray images, as of generator/tiny-linear."""

    value_range = (-1.0, 1.0)
    concepts = ("q0", "q1", "q2", "q3")

    def forward(self, images):
        where = torch.zeros(4, *images.shape[2:])
        h, w = images.shape[2] // 2, images.shape[3] // 2
        for k in range(4):
            where[k, h * (k // 2) : h * (k // 2 + 1), w * (k % 2) : w * (k % 2 + 1)] = 1
        return 40 * (images - 0.15) * where - 100 * (1 - where)

    def probabilities(self, samples):
        return self(samples.rescale(self.value_range).images).sigmoid()

    def _segment(self, samples):
        return self(samples.rescale(self.value_range).images) > 0


def iou():
    """The IoU that the painter's units have: a decoy has that of the unit which it is active with."""
    scores = torch.zeros(8, 3).double()
    scores[[0, 5], 0], scores[[1, 2, 6], 1], scores[[3, 4], 2], scores[7] = 1.0, 1.0, 0.5, 0.1
    return UnitScores({"units": scores}, concepts=CONCEPTS)


@hookimpl
def genxai_components():
    """Return what these tests register."""
    here = __name__
    return [
        Component("generator", "painter", f"{here}:Painter", "for tests"),
        Component("segmenter", "channels", f"{here}:Channels", "for tests"),
        Component("segmenter", "hard-channels", f"{here}:Hard", "for tests"),
        Component("segmenter", "quadrants", f"{here}:Quadrants", "for tests"),
    ]
