"""A generator of which every unit's part in the picture is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError

from . import planted_scene
from .palette import COLOURS, GRAY, PaletteSegmenter
from .planted_roles import Role
from .planted_scene import PARTS, SLOT, Scene, doubled, place

LAYERS = ("layer1", "layer2")
"""Modules whose output is the activations: ``layer1`` at half the image's size, ``layer2`` at the image's size."""

LOUDEST = 0.15
"""Largest activation of a unit of a concept away from its concept. Up to there the regions above a quantile threshold
are exact after bilinear upsampling: with levels in [h, 1] = [0.9, 1] and noise up to l, the corner pixel of a rectangle
has from h·9/16 to (9 + 7·l)/16, the others more, and a pixel outside at most (1 + 3·l)/4. For l ≤ 0.154 a threshold
midway between the largest outside and the smallest inside of one set of images then separates those of any other."""

QUIET = 0.2
"""An activation up to here draws nothing; the opacity rises from there linearly to 1 at 1."""


def opacity(activation: Tensor) -> Tensor:
    """Return how strongly an activation draws: 0 up to 0.2, then linear, 1 from 1 upward."""
    return ((activation - QUIET) / (1 - QUIET)).clamp(0, 1)


class UnitBank(nn.Module):
    """What arrives at the units of one layer, before rectification.

    Parameters
    ----------
    roles
        What each unit does.
    concepts, objects
        How many objects are drawn as rectangles, and how many there are; the others are blocks of 3 × 3 cells.
    grid
        Slots along a side.
    scale
        1 for cells, 2 for pixels.
    latents
        Numbers in a latent.
    noise
        Largest activation away from the object.
    cover
        How many of an object's three columns a decoy covers.
    seed, layer
        Address of the draw of the textures.
    """

    phases: Tensor
    turns: Tensor
    tiles: Tensor
    ghosts: Tensor
    object: Tensor
    part: Tensor
    outlines: Tensor
    passes: Tensor
    free: Tensor

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        concepts: int,
        objects: int,
        grid: int,
        scale: int,
        latents: int,
        noise: float,
        cover: int,
        seed: int,
        layer: int,
    ) -> None:
        super().__init__()
        self.grid, self.scale, self.noise, self.objects = grid, scale, noise, objects
        units, side = len(roles), grid * SLOT * scale
        chance = draws.generator(seed, layer, "planted-textures")
        phases = torch.from_numpy(chance.random((units, side, side), dtype="float32")) * (2 * torch.pi)
        self.register_buffer("phases", phases)
        self.register_buffer("turns", torch.from_numpy(chance.standard_normal((latents, units), dtype="float32")))
        self.register_buffer("tiles", planted_scene.objects(cover).to(phases.dtype))
        self.register_buffer("ghosts", planted_scene.ghosts(cover).to(phases.dtype))
        self.register_buffer("object", torch.tensor([r.concept for r in roles]))
        self.register_buffer("part", torch.tensor([PARTS.index(r.part) for r in roles]))
        outlines = [PARTS.index("whole")] * concepts + [PARTS.index("block")] * (objects - concepts)
        self.register_buffer("outlines", torch.tensor(outlines))
        self.register_buffer("passes", _flags(roles, "cause", "stamp"))
        self.register_buffer("free", _flags(roles, "noise"))

    def forward(self, latents: Tensor, scene: Scene, evidence: Tensor) -> Tensor:
        """Return ``[N, units, h, w]``.

        A unit that draws passes on the evidence of its object, except on the parts that are another unit's; one that
        misleads passes it on in its part only. Away from there, a texture up to ``noise``.

        Parameters
        ----------
        latents
            ``[N, latents]``.
        scene
            What they say.
        evidence
            ``[N, objects, h, w]``, how strongly each object is to be drawn where.
        """
        inside, ghost = self.regions(scene)
        whole = self._laid(self.tiles[scene.turned, scene.shifted, self.outlines], scene.slots)[:, self.object]
        window = inside + self.passes[:, None, None] * (1 - whole)
        signal = evidence[:, self.object] * window + scene.level[:, self.object, None, None] * ghost
        texture = 0.5 + 0.5 * torch.cos((latents @ self.turns)[:, :, None, None] + self.phases)
        active = inside * (scene.level[:, self.object, None, None] > 0) + ghost
        quiet = self.noise * texture * (1 - active.clamp(max=1))
        free = self.free[:, None, None]
        return free * texture + (1 - free) * (signal + quiet)

    def regions(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Return each unit's part of its object and its ghost, both ``[N, units, h, w]`` of zeros and ones."""
        turned, shifted = scene.turned[:, self.object], scene.shifted[:, self.object]
        inside = self._laid(self.tiles[turned, shifted, self.part], scene.slots[:, self.object])
        empty = scene.order[:, self.objects :]
        slots = empty[:, torch.arange(len(self.object), device=empty.device) % empty.shape[1]]
        return inside, self._laid(self.ghosts[turned, self.part], slots)

    def _laid(self, tiles: Tensor, slots: Tensor) -> Tensor:
        laid = place(tiles, slots, self.grid)
        return laid if self.scale == 1 else doubled(laid)


def _flags(roles: Sequence[Role], *kinds: str) -> Tensor:
    return torch.tensor([float(r.kind in kinds) for r in roles])


class PlantedGenerator(Generator):
    """Latents ``[N, d]`` to pictures ``[N, 3, size, size]`` of coloured rectangles on a shaded background, in [-1, 1].

    Every picture has one rectangle of 24 pixels per concept; the latent says where, how it lies, and its shade. Two
    layers draw it, one after the other: ``layer1`` ``[N, units, size/2, size/2]`` says to ``layer2`` ``[N, units, size,
    size]`` what to draw, and this to the picture. In both, with D_c the largest activation of the units that draw
    concept c, ghosts left out,

    - opacity of c = clamp((D_c − 0.2) / 0.8, 0, 1), which is the evidence of the next layer, and in the end
    - image ← image + opacity · (colour_c − image), one concept after the other.

    So a concept goes when all the units that draw it are off, and what no D_c reads changes no bit. Every unit that is
    not noise is active (0.87 to 1) on exactly 24 pixels' worth of every image and below ``noise`` elsewhere: one that
    draws or covers only a share f of its object is active on an empty place, its ghost, for the rest, and has the IoU
    f / (2 − f). Latents are standard normal: keys that sort the slots of the grid, then per concept how it lies, its
    shift and its level, then six of the background. The picture is differentiable in level and background, and steps
    where an object jumps; textures turn with all of the latent.

    Parameters
    ----------
    roles
        Per layer, what each unit does.
    concepts
        How many, at most 6.
    size
        Height and width, a multiple of 8; (size / 8)² slots hold the concepts and at least one ghost.
    noise
        Largest activation away from the object, at most 0.15.
    cover
        How many of an object's three columns a decoy covers.
    seed
        Of the textures.
    spare
        Numbers in the latent, and objects, that a subclass adds.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    """

    value_range = (-1.0, 1.0)
    causes1: Tensor
    causes2: Tensor

    def __init__(
        self,
        roles: Sequence[Sequence[Role]],
        *,
        concepts: int = 4,
        size: int = 32,
        noise: float = 0.05,
        cover: int = 2,
        seed: int = 0,
        spare: int = 0,
    ) -> None:
        super().__init__()
        if size % 8 or size < 16:
            raise ValueError(f"size {size} must be a multiple of 8, at least 16")
        grid = size // 8
        if not 1 <= concepts <= len(COLOURS) or concepts + spare >= grid * grid:
            most = min(len(COLOURS), grid * grid - 1 - spare)
            raise ValueError(f"concepts {concepts} must be from 1 to {most} at size {size}")
        if not 0 <= noise <= LOUDEST:
            raise ValueError(f"noise {noise} must be from 0 to {LOUDEST}")
        if cover not in (1, 2, 3):
            raise ValueError(f"cover {cover} must be 1, 2 or 3 columns")
        if len(roles) != len(LAYERS):
            raise ValueError(f"give the roles of {len(LAYERS)} layers, not {len(roles)}")
        self.grid, self.objects, self.known = grid, concepts + spare, concepts
        self.concepts = tuple(COLOURS)[:concepts]
        self.latent_shape = (grid * grid + 3 * self.objects + 6,)
        self.image_shape = (3, size, size)
        banks = [
            UnitBank(
                layer_roles,
                concepts=concepts,
                objects=self.objects,
                grid=grid,
                scale=at + 1,
                latents=self.latent_shape[0],
                noise=noise,
                cover=cover,
                seed=seed,
                layer=at,
            )
            for at, layer_roles in enumerate(roles)
        ]
        self.bank1, self.bank2 = banks
        self.layer1, self.layer2 = nn.ReLU(), nn.ReLU()
        self.palette = nn.Parameter(torch.tensor([COLOURS[c] for c in self.concepts]))
        for at, layer_roles in enumerate(roles):
            self.register_buffer(f"causes{at + 1}", torch.tensor(_causes(layer_roles, concepts)))

    # -- the picture --------------------------------------------------------------------------------------------

    def forward(self, latents: Tensor) -> Tensor:
        """Return images for latents ``[N, d]``.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        return self._drawing(latents)[0]

    def _drawing(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the picture, and the activations of both layers, of which a subclass draws more."""
        if latents.shape[1:] != self.latent_shape:
            raise InputError(f"the generator takes latents {['N', *self.latent_shape]}, not {list(latents.shape)}")
        scene = self.scene(latents)
        evidence = self._evidence(scene)
        first: Tensor = self.layer1(self.bank1(latents, scene, evidence))
        drawn = doubled(opacity(self._drawn(first, scene, self.bank1, self.causes1)))
        rest = doubled(evidence[:, self.known :])
        second: Tensor = self.layer2(self.bank2(latents, scene, torch.cat([drawn, rest], 1)))
        image = self._background(latents)
        shades = opacity(self._drawn(second, scene, self.bank2, self.causes2))
        for concept, colour in enumerate(self.palette):
            image = image + shades[:, concept, None] * (colour[:, None, None] - image)
        return image, first, second

    def scene(self, latents: Tensor) -> Scene:
        """Read latents."""
        keys = self.grid * self.grid
        order = latents[:, :keys].argsort(dim=1, stable=True)
        turned, shifted, level = latents[:, keys:-6].chunk(3, dim=1)
        level = 0.9 + 0.1 * torch.sigmoid(level)
        return Scene(order, order[:, : self.objects], (turned > 0).long(), (shifted > 0).long(), level)

    def _evidence(self, scene: Scene) -> Tensor:
        """Return ``[N, objects, h, w]`` at the first layer: each object's level where it lies."""
        tiles = self.bank1.tiles[scene.turned, scene.shifted, self.bank1.outlines]
        return scene.level[:, :, None, None] * place(tiles, scene.slots, self.grid)

    def _drawn(self, activations: Tensor, scene: Scene, bank: UnitBank, causes: Tensor) -> Tensor:
        """Return ``[N, concepts, h, w]``: the largest activation of each concept's units, ghosts left out."""
        heard = activations * (1 - bank.regions(scene)[1])
        return torch.maximum(heard[:, causes[:, 0]], heard[:, causes[:, 1]])

    def _background(self, latents: Tensor) -> Tensor:
        """Return a shaded gray, slightly tinted, within ± 0.45."""
        level, across, down = latents[:, -6:-3].unbind(1)
        at = torch.linspace(-1, 1, self.image_shape[1], dtype=latents.dtype, device=latents.device)
        slope = across[:, None, None] * at[None, None, :] + down[:, None, None] * at[None, :, None]
        gray = 0.9 * torch.tanh(0.5 * (level[:, None, None] + slope))
        tint = 0.1 * torch.tanh(latents[:, -3:])
        return GRAY * (gray[:, None] + tint[:, :, None, None])

    # -- samples ------------------------------------------------------------------------------------------------

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw ``[n, d]`` on the model's device; latent i depends on ``(seed, start + i)`` only."""
        return draws.normal(seed, range(start, start + n), self.latent_shape).to(self.palette)

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n pictures with latents and exact masks; picture i depends on ``(seed, start + i)`` only.

        The masks are read back from the pictures, so they stay true when the model is edited.

        Raises
        ------
        InputError
            If labels are given: this generator is unconditional.
        """
        if labels is not None:
            raise InputError("the planted generator is unconditional, so it cannot draw given labels; leave labels out")
        return self.described(self.sample_latents(n, seed, start))

    @torch.no_grad()
    def described(self, latents: Tensor) -> Samples:
        """Return the pictures of latents with their masks ``[N, concepts, size, size]``."""
        samples = Samples(self(latents), latents=latents, value_range=self.value_range)
        masks = PaletteSegmenter(self.concepts).segment(samples)
        return Samples(samples.images, latents, masks=masks, value_range=self.value_range, concepts=self.concepts)

    @torch.no_grad()
    def activations(self, latents: Tensor) -> dict[str, Tensor]:
        """Return ``[N, units, h, w]`` by layer."""
        found: dict[str, Tensor] = {}
        hooks = [
            getattr(self, layer).register_forward_hook(lambda _m, _i, out, layer=layer: found.update({layer: out}))
            for layer in LAYERS
        ]
        try:
            self(latents)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def _causes(roles: Sequence[Role], concepts: int) -> list[list[int]]:
    """Return two units per concept: a pair, two halves, or twice the same one."""
    found = [[u for u, r in enumerate(roles) if r.kind == "cause" and r.concept == c] for c in range(concepts)]
    for concept, units in enumerate(found):
        if len(units) not in (1, 2):
            raise ValueError(f"{len(units)} units draw concept {concept}; give one or two")
    return [[units[0], units[-1]] for units in found]
