"""A shortcut that a network learned by itself, verified by intervention before anybody explains it."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

import genxai_core
from genxai_core import Attribution, Samples, draws
from genxai_core.errors import InputError

from ..models.marked import MarkNet, one_thread, train
from ..signed import excess, finite
from ..task import Measure, Problem
from .shortcut import ENERGY, MAGNITUDE, POINTING, SIGN, Shortcut, contrast

FIRST, SECOND, NEITHER = 0, 1, 2
"""Which mark a picture has."""

HELD_OUT = 256
"""Pictures on which the truth is verified, none of which was seen in training."""

CONTRAST = Measure(
    "contrast", "share of |map| in the mark of that in mark and decoys, above that by chance: to 1", 1.0, 0.0
)

ENOUGH = (0.95, 0.95, 0.75)
"""The shares of them that must flip, stay and fall."""


@dataclass(frozen=True)
class Recipe:
    """All that a trained network depends on besides its seed."""

    size: int
    mark: int
    decoys: int
    width: int
    examples: int
    steps: int


@dataclass(frozen=True)
class Pictures:
    """Scenes with marks pasted in: all of them can be made again with another mark, or on another scene."""

    scenes: Tensor
    """``[N, 3, H, W]``."""
    places: Tensor
    """Top and left of the mark and then of the decoys, ``[N, 1 + decoys, 2]``; they do not overlap."""
    colours: Tensor
    """Of the two marks and the two of each decoy, ``[1 + decoys, 2, 3]``."""
    picks: Tensor
    """Which of its two colours each decoy has, ``[N, decoys]``."""
    mark: int

    def with_(self, kinds: Tensor, scenes: Tensor | None = None) -> Tensor:
        """Return the pictures with these marks ``[N]``, on these scenes or their own."""
        images = (self.scenes if scenes is None else scenes).clone()
        shown = torch.cat([kinds[:, None], self.picks], 1).tolist()
        for image, picked, places in zip(images, shown, self.places.tolist(), strict=True):
            for pair, pick, place in zip(self.colours, picked, places, strict=True):
                if pick != NEITHER:
                    self._at(image, place)[:] = pair[pick][:, None, None]
        return images

    def squares(self) -> Tensor:
        """Return where the mark and the decoys are, bool ``[N, 1 + decoys, H, W]``."""
        squares = torch.zeros(*self.places.shape[:2], *self.scenes.shape[2:], dtype=torch.bool)
        for square, place in zip(squares.flatten(0, 1), self.places.flatten(0, 1).tolist(), strict=True):
            self._at(square, place)[:] = True
        return squares

    def _at(self, image: Tensor, place: list[int]) -> Tensor:
        top, left = place
        return image[..., top : top + self.mark, left : left + self.mark]


@dataclass(frozen=True)
class Verdict:
    """What interventions on held-out pictures showed, per picture ``[N]`` bool."""

    flips: Tensor
    """The other mark in its place turns the decision round."""
    stays: Tensor
    """On another scene, with other decoys elsewhere, the decision is the same."""
    falls: Tensor
    """Without the mark, less than half of the logit is left."""

    def check(self, recipe: Recipe, seed: int) -> None:
        """Raise unless the mark is what the network decides by.

        Raises
        ------
        InputError
            With the shares that were found and needed.
        """
        found = [float(kept.double().mean()) for kept in (self.flips, self.stays, self.falls)]
        if all(share >= least for share, least in zip(found, ENOUGH, strict=True)):
            return
        flips, stays, falls = (f"{a:.0%} (at least {b:.0%})" for a, b in zip(found, ENOUGH, strict=True))
        raise InputError(
            f"trained-shortcut: the network of seed {seed} does not decide by the mark alone. Of {HELD_OUT} held-out "
            f"pictures, exchanging the mark flips {flips}, exchanging all else keeps {stays}, and without the mark the "
            f"logit falls by half in {falls}. Raise steps ({recipe.steps}) or examples ({recipe.examples}), or take "
            f"another seed"
        )


class TrainedShortcut(Shortcut):
    """A network was trained on scenes in which one of two marks tells the class; it must be shown to look at them.

    A mark is a small square of one of two colours at a random place; the scene tells nothing, nor do the ``decoys``,
    squares like it, each again of one of two colours, drawn anew for every picture. A third of the training pictures
    have no mark and the target ½, so that without a mark the logit is near 0 and both marks are evidence, one for the
    logit and one against. The pictures to explain all have one of the two marks, and one of two of each decoy: nothing
    that is seen in them, one by one or all together, tells the mark from a decoy. Only the network does.

    That the network decides by the mark is not assumed but verified, on 256 pictures that it was not trained on:
    exchanging the mark flips at least 95 % of the decisions; exchanging all else, scene and decoys, leaves at least
    95 %; taking the mark away takes more than half of the logit in at least 75 %. The pictures to explain are the first
    for which all three hold. Training, on one thread, takes seconds and is done once per seed and process.

    What ranks is ``contrast``, the ``energy`` of the squares alone: what of their magnitude is in the mark. That is
    what the interventions tell; they do not tell how much of the logit the scene moves. An answer without the model
    expects 0. To get 1 the decoys must have none; in a trained network they have a little: the Shapley values of the
    squares, measured in the network, get about 0.9 (``problem.truth["shapley"]``).

    The truth is the mark's pixels, and its contribution f(x) − f(x without the mark), the scene below it shown.

    Parameters
    ----------
    n
        Pictures to explain, from 4 to 64.
    size
        Their height and width, a multiple of 4, at least 16.
    mark
        Side of the marks, at most a sixth of ``size``.
    decoys
        How many squares of other colours each picture has, from 1 to 4.
    width
        Channels of the first convolution.
    examples
        Pictures to train on.
    steps
        Batches of 64 to train for.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    name = "trained-shortcut"
    says = "a network learned to decide by a small mark, verified by intervention: of all squares, it has the magnitude"
    heuristic_name = "colour contrast"
    measures = (CONTRAST, ENERGY, SIGN, MAGNITUDE, POINTING)

    def __init__(
        self,
        n: int = 16,
        size: int = 32,
        mark: int = 5,
        decoys: int = 2,
        width: int = 16,
        examples: int = 1024,
        steps: int = 400,
    ) -> None:
        if not 4 <= n <= HELD_OUT // 4:
            raise ValueError(f"n {n} must be from 4 to {HELD_OUT // 4}")
        if size < 16 or size % 4 or not 0 < 6 * mark <= size:
            raise ValueError(f"size {size} must be a multiple of 4, at least 16, and mark {mark} at most a sixth of it")
        if not 1 <= decoys <= 4:
            raise ValueError(f"decoys {decoys} must be from 1 to 4")
        if width < 1 or examples < 64 or steps < 1:
            raise ValueError(f"width {width} and steps {steps} must be at least 1, examples {examples} at least 64")
        self.n = n
        self.recipe = Recipe(size, mark, decoys, width, examples, steps)

    @one_thread()
    def problem(self, seed: int) -> Problem:
        """Train, or remember, the network of a seed, and choose pictures that it was verified on.

        Raises
        ------
        InputError
            If the network does not decide by the mark.
        """
        weights, verdict = learned(self.recipe, seed)
        verdict.check(self.recipe, seed)
        model = MarkNet(self.recipe.size, self.recipe.width, seed)
        model.load_state_dict(weights)
        model.eval()
        shown, kinds = held_out(self.recipe, seed)
        sound = verdict.flips & verdict.stays & verdict.falls
        rows = sound.nonzero()[: self.n, 0]
        squares = shown.squares()[rows]
        images, region = shown.with_(kinds)[rows], squares[:, 0]
        with torch.no_grad():
            without = model(shown.with_(torch.full_like(kinds, NEITHER))[rows])
            contribution = (model(images) - without)[:, 0].double()
        truth = {
            "map": region * (contribution / self.recipe.mark**2)[:, None, None],
            "region": region,
            "contribution": contribution,
            "squares": squares,
            "shapley": shapley(model, images, shown.scenes[rows], squares),
        }
        return Problem(model, Samples(images, value_range=(-1.0, 1.0)), 0, truth, seed=seed)

    def heuristic(self, problem: Problem) -> Attribution:
        """Answer with the contrast of colours."""
        assert problem.inputs is not None
        return contrast(problem.inputs, 0)

    def score(self, problem: Problem, answer: Attribution) -> dict[str, float]:
        """Judge maps."""
        assert problem.inputs is not None
        found, squares = finite(answer, problem.inputs), problem.truth["squares"]
        among = excess(found, problem.truth["region"], squares.any(1))
        return {"contrast": float(among.mean()), **super().score(problem, answer)}


@torch.no_grad()
def shapley(model: MarkNet, images: Tensor, scenes: Tensor, squares: Tensor) -> Tensor:
    """Return the Shapley values of squares ``[N, S]``, the players being shown or giving way to the scene below."""
    players = range(squares.shape[1])
    sets = [kept for size in range(len(players) + 1) for kept in itertools.combinations(players, size)]
    logits = {
        kept: model(torch.where(squares[:, list(kept)].any(1)[:, None], images, scenes))[:, 0].double() for kept in sets
    }
    values = torch.zeros(squares.shape[:2], dtype=torch.float64)
    for player, kept in itertools.product(players, sets):
        if player not in kept:
            weight = 1 / (len(players) * math.comb(len(players) - 1, len(kept)))
            values[:, player] += weight * (logits[tuple(sorted((*kept, player)))] - logits[kept])
    return values


@functools.lru_cache(maxsize=64)
@one_thread()
def learned(recipe: Recipe, seed: int) -> tuple[dict[str, Tensor], Verdict]:
    """Train a network and intervene on what it has not seen. Returns its weights, and what came out."""
    model = MarkNet(recipe.size, recipe.width, seed)
    shown = pictures(recipe, seed, 0, recipe.examples)
    kinds = draws.integers(seed, range(recipe.examples), 3, "bench/trained-shortcut.kinds")
    chances = torch.tensor([1.0, 0.0, 0.5])[kinds]
    train(model, shown.with_(kinds), chances, recipe.steps, seed)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return weights, intervened(model, recipe, seed)


@torch.no_grad()
def intervened(model: MarkNet, recipe: Recipe, seed: int) -> Verdict:
    """Exchange the mark, exchange all but the mark, and take the mark away, in held-out pictures."""
    shown, kinds = held_out(recipe, seed)
    before = model(shown.with_(kinds))[:, 0]
    exchanged = model(shown.with_(1 - kinds))[:, 0]
    without = model(shown.with_(torch.full_like(kinds, NEITHER)))[:, 0]
    other = pictures(recipe, seed, recipe.examples + HELD_OUT, HELD_OUT)
    mark = shown.squares()[:, :1]
    elsewhere = model(torch.where(mark, shown.with_(kinds), other.with_(torch.full_like(kinds, NEITHER))))[:, 0]
    right = (before > 0) == (kinds == FIRST)
    return Verdict(
        flips=right & ((exchanged > 0) == (kinds == SECOND)),
        stays=right & ((elsewhere > 0) == (before > 0)),
        falls=right & (without.abs() < before.abs() / 2),
    )


@functools.lru_cache(maxsize=8)
def held_out(recipe: Recipe, seed: int) -> tuple[Pictures, Tensor]:
    """Return pictures that are not trained on, and which mark each has, drawn as the decoys' colours are, ``[N]``."""
    return pictures(recipe, seed, recipe.examples, HELD_OUT), held_out_kinds(seed)


def held_out_kinds(seed: int) -> Tensor:
    """Return which mark each of them has, ``[N]``."""
    return draws.integers(seed, range(HELD_OUT), 2, "bench/trained-shortcut.held-out")


def pictures(recipe: Recipe, seed: int, start: int, count: int) -> Pictures:
    """Return pictures of a seed by number, each with places of its own, all with the same colours."""
    scenes = genxai_core.create("dataset/scenes", n=count, size=recipe.size, seed=seed, start=start)
    turn = float(draws.uniform(seed, [0], (), "bench/trained-shortcut.colours"))
    count_hues = 2 * (1 + recipe.decoys)  # evenly spaced, neighbours in pairs: a turn takes any pair to any other
    hues = 2 * math.pi * (turn + torch.arange(count_hues) / count_hues)
    colours = 0.9 * torch.stack([torch.cos(hues - shift * 2 * math.pi / 3) for shift in range(3)], 1).view(-1, 2, 3)
    places = torch.stack([_places(recipe, seed, start + i) for i in range(count)])
    picks = draws.uniform(seed, range(start, start + count), (recipe.decoys,), "bench/trained-shortcut.picks") < 0.5
    return Pictures(scenes[:count].images, places, colours, picks.long(), recipe.mark)


def _places(recipe: Recipe, seed: int, index: int) -> Tensor:
    """Draw places of squares that do not touch, ``[1 + decoys, 2]``."""
    draw = draws.generator(seed, index, "bench/trained-shortcut.places")
    places: list[tuple[int, int]] = []
    while len(places) < 1 + recipe.decoys:
        top, left = (int(v) for v in draw.integers(recipe.size - recipe.mark + 1, size=2))
        if all(max(abs(top - y), abs(left - x)) > recipe.mark for y, x in places):
            places.append((top, left))
    return torch.tensor(draw.permutation(places))  # the later, the narrower: in this order none is told by its place
