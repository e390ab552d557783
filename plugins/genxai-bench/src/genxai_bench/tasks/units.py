"""Planted units: a generator of which it is known what every unit draws, and which units only look as if they did."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Samples, UnitScores, draws
from genxai_core.errors import InputError

from ..models.palette import PaletteSegmenter
from ..models.planted_generator import LAYERS, PlantedGenerator
from ..models.planted_roles import Role, draw_roles
from ..models.planted_scene import PIXELS
from ..task import Measure, Problem, Task

CUT = 0.25
"""Fixed before any explainer runs: a unit counts as found for a concept where its IoU reaches this; a score of another
measure, where it reaches this share of the answer's largest. The least IoU of a unit that draws is 1/3."""


class PlantedUnits(Task):
    """Find the units that draw each concept, in two layers, among decoys, redundant pairs and noise.

    See `PlantedGenerator` for the model. In each layer, in an order that the seed decides,

    - every concept is drawn by one unit; or by a redundant pair, both of which draw all of it, so that it goes only
      when both are off; or by two units that draw one half each;
    - decoys are active where a concept is, and nothing reads them: without them no bit of the image changes;
    - the other units are noise.

    Every unit but noise is active on the same share of every image, 24 pixels, which is also the area of every concept.
    So with the threshold at the quantile 1 − 24/size² (``decided["quantile"]``), of whatever latents, its IoU is a
    constant of the construction: 1 for a unit that draws a whole concept, 1/3 for half of one, and for a decoy
    that covers c of the three columns c / (6 − c): 0.2, 0.5 or 1.

    ``problem.truth``: by layer, ``roles`` (the `Role` of each unit), ``draws`` (bool ``[units, concepts]``), ``iou``
    (``[units, concepts]``, NaN for noise) and ``pairs`` ((unit, unit, concept) that are redundant).

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
    decoys
        How many of them are decoys.
    redundant
        How many concepts a pair of units draws.
    split
        How many concepts two halves draw.
    cover
        How many of the three columns of a concept's object its decoys cover. With 1 their IoU is below the cut, and
        IoU alone is enough; with 2 they beat units that draw a half; with 3 they look just like units that draw.
    noise
        Largest activation of a unit away from its concept, at most 0.15.

    Raises
    ------
    ValueError
        If a parameter is out of bounds, or the units are too few.
    """

    name = "planted-units"
    says = "units that draw concepts, among decoys, redundant pairs and noise; the right answer is which draw what"
    explains = "HasLatents"
    returns = "unit-scores"
    heuristic_name = "activation contrast"
    measures = (
        Measure("f1", "harmonic mean of precision and recall", 1.0, 0.17),
        Measure("precision", "share of the (unit, concept) found at the cut that draw", 1.0, 0.09),
        Measure("recall", "share of the (unit, concept) that draw found at the cut", 1.0, 0.75),
        Measure(
            "causal-rank",
            "share of (cause, decoy) pairs of a layer in which the cause scores more",
            1.0,
            0.5,
            near=0.2,
        ),
        Measure(
            "iou-error",
            "mean |IoU - the constructed one| of the units that draw; 1 for scores that are no IoU",
            0.0,
            0.43,
            higher_is_better=False,
        ),
    )

    def __init__(
        self,
        images: int = 16,
        size: int = 32,
        concepts: int = 4,
        units: int = 16,
        decoys: int = 4,
        redundant: int = 1,
        split: int = 1,
        cover: int = 2,
        noise: float = 0.05,
    ) -> None:
        if images < 1:
            raise ValueError(f"images {images} must be at least 1")
        self.images, self.size, self.concepts, self.units = images, size, concepts, units
        self.decoys, self.redundant, self.split = decoys, redundant, split
        self.cover, self.noise = cover, noise
        self._model(0)  # so that bad parameters are told now

    def _roles(self, seed: int) -> list[list[Role]]:
        return [
            draw_roles(
                seed,
                layer,
                units=self.units,
                concepts=self.concepts,
                redundant=self.redundant,
                split=self.split,
                decoys=self.decoys,
                extra=[],
            )
            for layer in range(len(LAYERS))
        ]

    def _model(self, seed: int) -> PlantedGenerator:
        model = PlantedGenerator(
            self._roles(seed), concepts=self.concepts, size=self.size, noise=self.noise, cover=self.cover, seed=seed
        )
        return model.eval()

    def problem(self, seed: int) -> Problem:
        """Make an instance: a generator with its units in a new order, and samples of it."""
        model = self._model(seed)
        roles = dict(zip(LAYERS, self._roles(seed)))
        truth = {
            "roles": roles,
            "draws": {layer: self._drawing(found) for layer, found in roles.items()},
            "iou": {layer: self._iou(found) for layer, found in roles.items()},
            "pairs": {layer: pairs(found) for layer, found in roles.items()},
        }
        decided = {
            "layers": LAYERS,
            "concepts": model.concepts,
            "segmenter": PaletteSegmenter(model.concepts),
            "quantile": 1 - PIXELS / self.size**2,
        }
        return Problem(model, model.sample(self.images, seed), truth=truth, decided=decided, seed=seed)

    def _drawing(self, roles: list[Role]) -> Tensor:
        found = torch.zeros(len(roles), self.concepts, dtype=torch.bool)
        for unit, role in enumerate(roles):
            found[unit, role.concept] = role.kind == "cause"
        return found

    def _iou(self, roles: list[Role]) -> Tensor:
        """Return the constructed IoU ``[units, concepts]``: f / (2 − f) for a unit that covers a share f."""
        shares = {"whole": 1.0, "first": 0.5, "second": 0.5, "cover": self.cover / 3}
        found = torch.zeros(len(roles), self.concepts, dtype=torch.float64)
        for unit, role in enumerate(roles):
            if role.kind == "noise":
                found[unit] = torch.nan
            else:
                found[unit, role.concept] = shares[role.part] / (2 - shares[role.part])
        return found

    # -- who frames it ------------------------------------------------------------------------------------------

    def oracle(self, problem: Problem) -> UnitScores:
        """Answer with the constructed IoU of the units that draw, and 0 for all others."""
        return answer(
            problem, {k: torch.where(problem.truth["draws"][k], v, 0) for k, v in problem.truth["iou"].items()}
        )

    def random(self, problem: Problem) -> UnitScores:
        """Answer with numbers uniform on [0, 1)."""
        shape = (self.units, self.concepts)
        drawn = draws.uniform(problem.seed, range(len(LAYERS)), shape, stream="random-units").double()
        return answer(problem, dict(zip(LAYERS, drawn)))

    def heuristic(self, problem: Problem) -> UnitScores:
        """Answer with each unit's mean activation where the concept is, less its mean elsewhere."""
        samples, model = problem.inputs, problem.model
        assert isinstance(samples, Samples)
        assert isinstance(model, PlantedGenerator)
        assert samples.masks is not None
        assert samples.latents is not None
        masks = samples.masks.double()
        scores = {}
        for layer, activation in model.activations(samples.latents).items():
            maps = F.interpolate(activation.double(), masks.shape[2:], mode="bilinear", align_corners=False)
            inside = torch.einsum("nuhw,nkhw->uk", maps, masks) / masks.sum((0, 2, 3))
            outside = torch.einsum("nuhw,nkhw->uk", maps, 1 - masks) / (1 - masks).sum((0, 2, 3))
            scores[layer] = inside - outside
        return answer(problem, scores, measure="contrast")

    def constant(self, problem: Problem) -> UnitScores:
        """Answer with one for every unit and concept."""
        return answer(problem, {k: torch.ones_like(v) for k, v in problem.truth["iou"].items()})

    # -- the score ----------------------------------------------------------------------------------------------

    def score(self, problem: Problem, answer: UnitScores) -> dict[str, float]:
        """Judge scores of the units of both layers; its concepts may come in any order, and there may be more.

        Raises
        ------
        InputError
            If a layer, a unit or a concept is missing, or low scores are the better ones.
        """
        truth, scores = problem.truth["draws"], self._scores(problem, answer)
        is_iou = answer.measure.lower() == "iou"
        largest = max(float(values.max()) for values in scores.values())
        cut = CUT if is_iou else CUT * largest
        hits = found = there = 0
        wrong: list[float] = []
        ordered: list[float] = []
        for layer, values in scores.items():
            taken = (values >= cut) & (values > 0)
            hits += int((taken & truth[layer]).sum())
            found += int(taken.sum())
            there += int(truth[layer].sum())
            wrong += (values - problem.truth["iou"][layer])[truth[layer]].abs().tolist()
            ordered += order(values, problem.truth["roles"][layer])
        return {
            "f1": 2 * hits / (found + there),
            "precision": hits / found if found else 0.0,
            "recall": hits / there,
            "causal-rank": sum(ordered) / len(ordered) if ordered else 1.0,
            "iou-error": sum(wrong) / len(wrong) if is_iou else 1.0,
        }

    def _scores(self, problem: Problem, answer: UnitScores) -> dict[str, Tensor]:
        """Return ``[units, concepts]`` by layer in double precision, the concepts in the task's order."""
        if not answer.higher_is_better:
            raise InputError(f"the scores ({answer.measure}) are better when low; give them with the sign turned")
        missing = [c for c in problem.decided["concepts"] if c not in answer.concepts]
        if missing:
            raise InputError(
                f"there are no scores for the concept {missing[0]!r}, only for {', '.join(answer.concepts)}"
            )
        columns = [answer.concepts.index(c) for c in problem.decided["concepts"]]
        found = {}
        for layer, true in problem.truth["draws"].items():
            if layer not in answer.scores:
                raise InputError(f"there are no scores of {layer!r}, only of {', '.join(answer.scores)}")
            values = answer.scores[layer].detach().cpu().double()
            if len(values) != len(true):
                raise InputError(f"there are scores of {len(values)} units of {layer!r}, which has {len(true)}")
            found[layer] = values[:, columns]
        return found


def order(scores: Tensor, roles: list[Role]) -> list[float]:
    """Return for each pair of a cause and a decoy, by their own concepts: 1 if the cause scores more, ½ if as much."""
    own = {
        kind: [float(scores[u, r.concept]) for u, r in enumerate(roles) if r.kind == kind]
        for kind in ("cause", "decoy")
    }
    return [(c > d) + 0.5 * (c == d) for c in own["cause"] for d in own["decoy"]]


def pairs(roles: list[Role]) -> tuple[tuple[int, int, int], ...]:
    """Return (unit, unit, concept) of the units of which either draws all of the concept."""
    whole: dict[int, list[int]] = {}
    for unit, role in enumerate(roles):
        if role.kind == "cause" and role.part == "whole":
            whole.setdefault(role.concept, []).append(unit)
    return tuple((units[0], units[1], concept) for concept, units in sorted(whole.items()) if len(units) == 2)


def answer(problem: Problem, scores: dict[str, Tensor], measure: str = "iou") -> UnitScores:
    """Wrap scores of the problem's concepts."""
    return UnitScores(scores, concepts=problem.decided["concepts"], measure=measure)
