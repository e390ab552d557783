"""Planted artifacts: units that stamp an artifact under a known trigger, and a clean twin: the exact repair."""

from __future__ import annotations

import torch
from torch import Tensor

import genxai_core
from genxai_core import Samples, UnitEdits, draws
from genxai_core.errors import GenxaiError, InputError

from ..models.planted_artifacts import ArtifactGenerator, StampJudge, draw_pattern
from ..models.planted_generator import LAYERS
from ..models.planted_roles import Part, Role, draw_roles
from ..task import Measure, Problem, Task

CHUNK = 64
"""Latents drawn at a time in search of some that pull the trigger."""

STRIPS: tuple[Part, ...] = ("strip-0", "strip-1", "strip-2")


class PlantedArtifacts(Task):
    """Find the units that stamp an artifact on some images, and switch them off without harming anything else.

    See `ArtifactGenerator` for the model. Each of the ``artifacts`` units draws one of the stamp's three strips: in one
    layer, which the seed decides, or dealt to both in turn. In both layers there are also the units that draw concepts,
    without which the image is damaged; shadows, active on the whole stamp in exactly the broken images, which nothing
    reads, so that switching them off repairs nothing; and noise.

    Given are samples with latents, ``labels`` (1: has the artifact; exactly the share that is asked for) and ``masks``
    (where it shows), and ``decided["classifier"]``, an exact judge of the stamp for methods that want one and for edits
    under a condition.

    ``problem.truth``: ``stamps`` (layer -> units), ``roles`` (layer -> `Role` of each unit), ``twin`` (the model) and
    ``clean`` (its images of the given latents).

    Parameters
    ----------
    images
        How many are given.
    size
        Height and width in pixels, a multiple of 8.
    concepts
        How many, at most 6.
    units
        How many a layer has.
    artifacts
        How many units stamp, from 3 to 6; from the fourth on they are redundant.
    shadows
        How many units of each layer are active where the stamp is and draw nothing.
    share
        Of the images that have the artifact.
    overlap
        Whether the artifact comes with a bright first concept, and covers it.
    spread
        Whether the units that stamp are spread over both layers.
    noise
        Largest activation of a unit where it has nothing to do, at most 0.15.

    Raises
    ------
    ValueError
        If a parameter is out of bounds, or the units are too few.
    """

    name = "planted-artifacts"
    says = "units that stamp an artifact under a trigger; the right answer switches these off and nothing else"
    explains = "HasLatents"
    returns = "unit-edits"
    heuristic_name = "most active units"
    measures = (
        Measure(
            "correction",
            "1 - |edited - twin| / |broken - twin| over all images, at least 0: 1 if all is right, 0 if no better",
            1.0,
            0.0,
        ),
        Measure("f1", "harmonic mean of precision and recall of the edited units", 1.0, 0.09, near=0.2),
        Measure("precision", "share of the edited units that stamp", 1.0, 0.09, near=0.2),
        Measure("recall", "share of the units that stamp which are edited", 1.0, 0.09, near=0.2),
        Measure("repair-error", "|edited - twin| / |broken - twin| in the stamp", 0.0, higher_is_better=False),
        Measure("collateral", "mean |change| outside of the stamp / value range", 0.0, higher_is_better=False),
    )

    def __init__(
        self,
        images: int = 40,
        size: int = 32,
        concepts: int = 4,
        units: int = 16,
        artifacts: int = 3,
        shadows: int = 2,
        share: float = 0.3,
        overlap: bool = False,
        spread: bool = False,
        noise: float = 0.05,
    ) -> None:
        if not 3 <= artifacts <= 6:
            raise ValueError(f"artifacts {artifacts} must be from 3 to 6")
        if shadows < 0:
            raise ValueError(f"shadows {shadows} must not be negative")
        self.images, self.size, self.concepts, self.units = images, size, concepts, units
        self.artifacts, self.shadows, self.share = artifacts, shadows, share
        self.overlap, self.spread, self.noise = overlap, spread, noise
        self._model(0)  # so that bad parameters are told now
        self.broken = round(images * share)
        if not 0 < self.broken < images:
            raise ValueError(
                f"of {images} images the share {share} is {self.broken}; some must be broken, and some not"
            )

    def _roles(self, seed: int) -> list[list[Role]]:
        one = int(draws.integers(seed, [0], len(LAYERS), stream="planted-layer"))
        extra: list[list[Role]] = [[Role("shadow", self.concepts, "block")] * self.shadows for _ in LAYERS]
        for i in range(self.artifacts):
            extra[i % 2 if self.spread else one].append(Role("stamp", self.concepts, STRIPS[i % 3]))
        return [
            draw_roles(
                seed, at, units=self.units, concepts=self.concepts, redundant=0, split=0, decoys=0, extra=extra[at]
            )
            for at in range(len(LAYERS))
        ]

    def _model(self, seed: int) -> ArtifactGenerator:
        model = ArtifactGenerator(
            self._roles(seed),
            share=self.share,
            overlap=self.overlap,
            concepts=self.concepts,
            size=self.size,
            noise=self.noise,
            seed=seed,
        )
        return model.eval()

    def problem(self, seed: int) -> Problem:
        """Make an instance: a generator that stamps, and samples of it, some of them broken."""
        model = self._model(seed)
        twin = model.clean()
        latents = self._latents(model, seed)
        roles = dict(zip(LAYERS, self._roles(seed)))
        truth = {
            "roles": roles,
            "stamps": {layer: [u for u, r in enumerate(found) if r.kind == "stamp"] for layer, found in roles.items()},
            "clean": twin.described(latents).images,
            "twin": twin,
        }
        decided = {"layers": LAYERS, "classifier": StampJudge(draw_pattern(seed)).eval()}
        return Problem(model, model.described(latents), truth=truth, decided=decided, seed=seed)

    def _latents(self, model: ArtifactGenerator, seed: int) -> Tensor:
        """Return the first latents of a seed of which the share that is asked for pulls the trigger."""
        wanted = {True: self.broken, False: self.images - self.broken}
        kept: list[Tensor] = []
        start = 0
        while len(kept) < self.images:
            latents = model.sample_latents(CHUNK, seed, start)
            for row, pulls in zip(latents, model.triggered(latents).tolist()):
                if wanted[pulls]:
                    wanted[pulls] -= 1
                    kept.append(row)
            start += CHUNK
        return torch.stack(kept)

    # -- who frames it ------------------------------------------------------------------------------------------

    def oracle(self, problem: Problem) -> UnitEdits:
        """Switch off the units that stamp."""
        return UnitEdits.ablate(problem.truth["stamps"])

    def random(self, problem: Problem) -> UnitEdits:
        """Switch off as many units at random."""
        order = draws.permutation(problem.seed, 0, self.units * len(LAYERS), stream="random-units")
        return self._ablated([int(i) for i in order[: self.artifacts]])

    def heuristic(self, problem: Problem) -> UnitEdits:
        """Switch off as many units: those most active, on average, in the broken images."""
        samples, model = problem.inputs, problem.model
        assert isinstance(samples, Samples)
        assert isinstance(model, ArtifactGenerator)
        assert samples.labels is not None
        assert samples.latents is not None
        found = model.activations(samples.latents[samples.labels == 1])
        means = torch.cat([found[layer].mean((0, 2, 3)) for layer in LAYERS])
        return self._ablated(means.argsort(descending=True, stable=True)[: self.artifacts].tolist())

    def constant(self, problem: Problem) -> UnitEdits:
        """Change nothing."""
        return UnitEdits.ablate({})

    def _ablated(self, numbers: list[int]) -> UnitEdits:
        """Switch off units that are counted through both layers."""
        found = {layer: [n % self.units for n in numbers if n // self.units == at] for at, layer in enumerate(LAYERS)}
        return UnitEdits.ablate(found)

    # -- the score ----------------------------------------------------------------------------------------------

    def score(self, problem: Problem, answer: UnitEdits) -> dict[str, float]:
        """Judge edits, applied by ``generator/edited``; those under a condition with ``decided["classifier"]``.

        A unit counts as edited if its activation changes anywhere: a factor other than 1, or a value other than 0.

        Raises
        ------
        InputError
            If the edits do not fit the generator or, under a condition, the classifier.
        """
        samples, clean = problem.inputs, problem.truth["clean"].double()
        assert isinstance(samples, Samples)
        assert samples.masks is not None
        images = self._edited(problem, answer).double()
        broken = samples.images.double()
        inside = samples.masks.expand_as(broken)
        there = {(layer, unit) for layer, units in problem.truth["stamps"].items() for unit in units}
        found = changed(answer)
        hits = len(there & found)
        low, high = samples.value_range
        return {
            "correction": max(0.0, 1 - float((images - clean).norm() / (broken - clean).norm())),
            "f1": 2 * hits / (len(found) + len(there)),
            "precision": hits / len(found) if found else 0.0,
            "recall": hits / len(there),
            "repair-error": float((images - clean)[inside].norm() / (broken - clean)[inside].norm()),
            "collateral": float((images - broken)[~inside].abs().mean()) / (high - low),
        }

    def _edited(self, problem: Problem, answer: UnitEdits) -> Tensor:
        unknown = [layer for layer in answer.layers if layer not in LAYERS]
        if unknown:
            raise InputError(f"there are edits of {unknown[0]!r}; the layers to edit are {', '.join(LAYERS)}")
        judge = None if answer.condition is None else problem.decided["classifier"]
        assert isinstance(problem.inputs, Samples)
        try:
            edited = genxai_core.create("generator/edited", base=problem.model, edits=answer, judge=judge)
            with torch.no_grad():
                images: Tensor = edited(problem.inputs.latents)
        except GenxaiError as error:
            raise InputError(f"the edits do not fit the generator: {error}") from error
        return images


def changed(edits: UnitEdits) -> set[tuple[str, int]]:
    """Return the (layer, unit) whose activation the edits change."""
    values = torch.zeros(len(edits)) if edits.values is None else edits.values
    acts = (edits.factors != 1) | (values != 0)
    if edits.locations is not None:
        acts &= edits.locations.flatten(1).any(1)
    return {(layer, int(unit)) for layer, unit, does in zip(edits.layers, edits.units, acts) if does}
