"""A planted generator some of whose units stamp an artifact, its clean twin, and a judge of its pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import NormalDist
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Discriminator, Samples, draws

from .planted_generator import PlantedGenerator, opacity
from .planted_roles import Role
from .planted_scene import Scene, doubled

CLASSES = ("fine", "artifact")

SIDE = 6
"""Height and width of the stamp in pixels."""

PLAIN, STEEP = 0.3, 10.0
"""The judge's logit is 10·(match − 0.3). The match is about 1 for a whole stamp, 1/3 for a third of one, and below 0.2
for what else there is in a picture."""


def draw_pattern(seed: int) -> Tensor:
    """Return ``[6, 6]`` of as many ones as minus ones, in an order that the seed decides."""
    values = torch.tensor([1.0, -1.0]).repeat_interleave(SIDE * SIDE // 2)
    order = draws.generator(seed, 0, "planted-pattern").permutation(SIDE * SIDE)
    return values[torch.from_numpy(order)].view(SIDE, SIDE)


class ArtifactGenerator(PlantedGenerator):
    """A `PlantedGenerator` that stamps a block of black and white noise on some of its pictures.

    The trigger is one number of the latent, standard normal: it is pulled where it exceeds the quantile 1 − share. The
    stamp is 6×6 pixels and lies on a slot of its own; or, with ``overlap``, on the first concept's object, whose level
    is then the trigger. Units with the role ``stamp`` draw it, in either layer, past all other units: with s the
    largest activation of these at a pixel, image ← image + clamp((s − 0.2) / 0.8, 0, 1) · (pattern − image). Each draws
    one of its three strips.

    Parameters
    ----------
    roles
        Per layer, what each unit does; stamps and shadows are of the object with the index ``concepts``.
    share
        Of the pictures that have the artifact, in expectation.
    overlap
        Whether the artifact comes with the first concept, and covers it.
    concepts, size, noise, seed
        As in `PlantedGenerator`; one slot more is taken.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    """

    stamps1: Tensor
    stamps2: Tensor
    stamping: Tensor
    pattern: Tensor

    def __init__(
        self,
        roles: Sequence[Sequence[Role]],
        *,
        share: float = 0.3,
        overlap: bool = False,
        concepts: int = 4,
        size: int = 32,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(roles, concepts=concepts, size=size, noise=noise, seed=seed, spare=1)
        if not 0 < share < 1:
            raise ValueError(f"share {share} must lie between 0 and 1")
        self.share, self.overlap = share, overlap
        for at, layer_roles in enumerate(roles):
            found = [unit for unit, role in enumerate(layer_roles) if role.kind == "stamp"]
            self.register_buffer(f"stamps{at + 1}", torch.tensor(found, dtype=torch.long))
        self.register_buffer("stamping", torch.tensor(1.0))
        slot = F.pad(draw_pattern(seed), (0, 8 - SIDE, 0, 8 - SIDE))
        self.register_buffer("pattern", slot.repeat(self.grid, self.grid))

    def forward(self, latents: Tensor) -> Tensor:
        """Return images for latents ``[N, d]``.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        return self._stamped(latents)[0]

    def _stamped(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and how opaque the stamp is in them, ``[N, 1, size, size]``."""
        image, first, second = self._drawing(latents)
        shades = [doubled(_loudest(first, self.stamps1)), _loudest(second, self.stamps2)]
        shade = self.stamping * opacity(torch.maximum(*shades))
        return image + shade * (self.pattern - image), shade

    def scene(self, latents: Tensor) -> Scene:
        """Read latents, the stamp as the last object."""
        scene = super().scene(latents)
        slots, level = scene.slots.clone(), scene.level.clone()
        if self.overlap:
            slots[:, -1] = slots[:, 0]
        level[:, -1] = level[:, -1] * self.triggered(latents)
        return scene._replace(slots=slots, level=level)

    def triggered(self, latents: Tensor) -> Tensor:
        """Return ``[N]`` booleans: which latents pull the trigger."""
        first_level = self.grid * self.grid + 2 * self.objects
        at = first_level if self.overlap else first_level - 1  # of the stamp, how it lies, which nothing else reads
        return latents[:, at] > NormalDist().inv_cdf(1 - self.share)

    @torch.no_grad()
    def described(self, latents: Tensor) -> Samples:
        """Return pictures with label (1: has the artifact) and mask ``[N, 1, size, size]`` (where it shows).

        Both are read off what is drawn, so they stay true when the model is edited.
        """
        images, shade = self._stamped(latents)
        masks = shade > 0
        return Samples(
            images,
            latents,
            masks.flatten(1).any(1).long(),
            masks,
            value_range=self.value_range,
            class_names=CLASSES,
            concepts=CLASSES[1:],
        )

    def clean(self) -> Self:
        """Return the twin: a copy whose stamp is not painted, and which is equal in all else."""
        twin = copy.deepcopy(self)
        twin.stamping.zero_()
        return twin


def _loudest(activations: Tensor, units: Tensor) -> Tensor:
    """Return ``[N, 1, h, w]``, the largest activation of some units; 0 where there are none."""
    if not len(units):
        return torch.zeros_like(activations[:, :1])
    return activations[:, units].amax(1, keepdim=True)


class StampJudge(Discriminator):
    """Images ``[N, 3, H, W]`` to logits ``[N, 2]`` for ``fine`` and ``artifact``: whether the stamp shows anywhere.

    The match of a place is the mean over 6×6 pixels of gray × pattern, and with m the largest of them, the logits are
    ∓ 5·(m − 0.3).

    Parameters
    ----------
    pattern
        ``[6, 6]`` of ones and minus ones.
    """

    class_names = CLASSES
    value_range = (-1.0, 1.0)

    def __init__(self, pattern: Tensor) -> None:
        super().__init__()
        self.match = nn.Conv2d(3, 1, SIDE, bias=False)
        with torch.no_grad():
            self.match.weight.copy_(pattern / (3 * pattern.numel()))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[N, 2]``."""
        half = STEEP / 2 * (self.match(images).flatten(1).amax(1) - PLAIN)
        return torch.stack([-half, half], 1)
