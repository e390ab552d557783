"""The edits that a correction may consist of: of one layer, or of one layer after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genxai_core import Discriminator, Runtime, UnitEdits

from .causal import ablation_effects
from .defects import defective_scores, forwards, mean_interval, sample_ious
from .judging import probabilities

LEAST = 1e-3
"""A unit that lowers P(artifact) by less, when it is off, does not cause the artifact."""

Unit = tuple[str, int]
Score = Callable[[str, UnitEdits | None], Tensor]


class Candidate(NamedTuple):
    """Edits, the strength that they come from, and the defective scores ``[E]`` of their units."""

    edits: UnitEdits
    strength: float
    defects: Tensor

    @property
    def key(self) -> tuple[Any, ...]:
        """What two candidates share that do the same."""
        return self.edits.layers, tuple(self.edits.units.tolist()), tuple(self.edits.factors.tolist())


def scorer(
    model: Any, latents: Tensor, masks: Tensor, thresholds: Mapping[str, Tensor], runtime: Runtime
) -> tuple[dict[str, Tensor], Score]:
    """Return the defective scores ``[U]`` by layer without edits, and a function that scores a layer under edits.

    Parameters
    ----------
    model, latents, masks, thresholds, runtime
        As in `sample_ious`.
    """
    plain, _ = defective_scores(sample_ious(model, latents, masks, thresholds, runtime))

    def score(layer: str, edits: UnitEdits | None) -> Tensor:
        if edits is None:
            return plain[layer]
        found = sample_ious(model, latents, masks, {layer: thresholds[layer]}, runtime, edits)
        return defective_scores(found)[0][layer]

    return plain, score


def ordered(scores: Tensor, allowed: Sequence[int] | None, count: int | float) -> list[int]:
    """Return the units with the highest scores, the highest first, of equal ones the first.

    Parameters
    ----------
    scores
        ``[U]``.
    allowed
        The units that may be chosen, whatever their score: masks that are smaller than the artifact may miss a unit
        that causes it. None: all whose score is above 0.
    count
        How many; or, below 1, which share of the layer's U units, rounded up.
    """
    most = count if isinstance(count, int) else math.ceil(round(count * len(scores), 6))
    able = [u for u in range(len(scores)) if scores[u] > 0] if allowed is None else sorted(allowed)
    return sorted(able, key=lambda u: -float(scores[u]))[:most]


def edits_of(layer: str, units: Sequence[int], factors: Tensor) -> UnitEdits:
    """Return edits that multiply units of one layer."""
    return UnitEdits((layer,) * len(units), torch.tensor(units, dtype=torch.long), factors)


def one_layer(
    layers: Sequence[str],
    score: Score,
    allowed: Mapping[str, Sequence[int]] | None,
    counts: Sequence[int | float],
    strengths: Sequence[float],
) -> Iterator[Candidate | None]:
    """Yield, for each layer, count and strength λ, f_u ← λ·f_u for the top units; None where there are no units."""
    for layer in layers:
        defects = score(layer, None)
        for count in counts:
            units = ordered(defects, None if allowed is None else allowed[layer], count)
            for strength in strengths:
                edits = edits_of(layer, units, torch.full((len(units),), float(strength)))
                yield Candidate(edits, strength, defects[units]) if units else None


def sequential(
    layers: Sequence[str],
    score: Score,
    allowed: Mapping[str, Sequence[int]] | None,
    counts: Sequence[int | float],
    strengths: Sequence[float],
) -> Iterator[Candidate | None]:
    """Yield, for each count, strength λ and stopping layer ℓ, the sequential correction; None where it adds nothing.

    For l = 1 … ℓ, the DS_u of layer l are those of a generator in which the layers before l are corrected already, and
    its top units become f_u ← λ (1 − DS_u) f_u (Tousi et al., CVPR 2021).

    Parameters
    ----------
    layers
        In the order in which they run.
    score
        Scores a layer under the edits of those before it.
    allowed
        By layer, the units that may be edited. None: all.
    counts
        Units of each layer, as in `ordered`.
    strengths
        λ, each in [0, 1].
    """
    for count in counts:
        for strength in strengths:
            parts: list[UnitEdits] = []
            scores: list[Tensor] = []
            for layer in layers:
                defects = score(layer, UnitEdits.concat(parts) if parts else None)
                units = ordered(defects, None if allowed is None else allowed[layer], count)
                if not units:
                    yield None
                    continue
                parts.append(edits_of(layer, units, (strength * (1 - defects[units])).float()))
                scores.append(defects[units])
                yield Candidate(UnitEdits.concat(parts), strength, torch.cat(scores))


def causes(
    model: Any,
    latents: Tensor,
    classifier: Discriminator,
    target: int,
    checked: Mapping[str, Sequence[int]],
    runtime: Runtime,
    advance: Callable[..., None] = lambda n=1: None,
) -> dict[str, list[int]]:
    """Return, by layer, the units that cause artifacts, rather than coincide with them.

    A unit causes if P(artifact) falls when it alone is switched off; or, since units may stand in for each other, if it
    rises when of all that are checked, in all layers, only this one is left on. Falls and rises are means over the
    broken samples, of at least `LEAST`, whose 95 % interval does not reach 0.

    Parameters
    ----------
    model
        A generator with latents.
    latents
        ``[N, …]``, of broken samples.
    classifier, target
        Whose P(artifact).
    checked
        Units by layer.
    runtime
        Its batch size bounds memory.
    advance
        Is called once per unit.
    """
    every: list[Unit] = [(layer, unit) for layer, units in checked.items() for unit in units]

    def judged(off: Sequence[Unit]) -> Tensor:
        found = forwards(model, latents, (), runtime, _ablated(off))
        low, high = model.value_range
        parts = [probabilities(classifier, images, (low, high), target, runtime.batch_size) for _, images, _ in found]
        return torch.cat(parts)

    all_off = judged(every)
    found: dict[str, list[int]] = {}
    for layer, units in checked.items():
        alone = ablation_effects(model, latents, classifier, target, layer, runtime, units) if units else ()
        found[layer] = []
        for unit, effect in zip(units, alone):
            rest = all_off - judged([other for other in every if other != (layer, unit)])
            if _falls(effect) or _falls(rest):
                found[layer].append(unit)
            advance()
    return found


def _falls(effect: Tensor) -> bool:
    mean, ends = mean_interval(effect[:, None], -1.0, 1.0)
    return float(mean) <= -LEAST and float(ends[0, 1]) < 0


def _ablated(units: Sequence[Unit]) -> UnitEdits:
    by_layer: dict[str, list[int]] = {}
    for layer, unit in units:
        by_layer.setdefault(layer, []).append(unit)
    return UnitEdits.ablate(by_layer)
