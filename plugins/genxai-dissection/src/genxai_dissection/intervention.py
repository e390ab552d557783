"""What units cause: they are switched off, and put in, at the same places of the same samples."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from genxai_core import Explainer, Runtime, Segmenter, Spec, UnitScores, saving
from genxai_core.errors import InputError

from .alpha import check_searchable, optimised, start_of
from .checkpoint import Journal
from .curves import MOST_DRAWS, ablation_curve, joint_ablation, random_orders
from .effects import concept_columns
from .intervened import Intervention
from .paired import (
    FIRST,
    K_IS,
    Level,
    Locations,
    Paired,
    built,
    check_level,
    check_locations,
    given,
    interval,
    of_one,
)

HANDED_ON = "generator/edited edits in every call"


class UnitIntervention(Explainer):
    """Switch a set U of units off and put it in: its average causal effect, its dose curves, and edits to hand on.

    With r the activation at units U and places P, a the ``amount`` and k the units' activations where the concept is
    (``k``; from samples of their own), x_a = f((1 − a) r), x_i = f((1 − a) r + a k), and all else as it was:

        δ_(U→c) = E_(z,P)[s_c(x_i)] − E_(z,P)[s_c(x_a)]

    for every concept c, s_c(x) the share of the pixels at P that show c (Bau et al., "GAN Dissection", ICLR 2019, eq.
    3 and 4; there divided by E[s_c(x)]). Both images of a sample are edited at the same P, and read there. Intervals
    are 95 % ones over per-sample differences, mean ± 1.96 s / √n. The pictures alone are segmented, never masks that a
    generator gives with its samples.

    With ``steps`` the vector α ∈ [0, 1]^U of all the layer's units is optimised (eq. 5 and 6; see `alpha.optimised`),
    which takes a differentiable generator and a segmenter with a method ``probabilities``, such as segmenter/unet.

    With ``checkpoints`` in the Runtime what each edit does is written from time to time, and the work goes on from
    there; a search for α that was not complete begins anew.

    The result is the edits of the units (`UnitEdits`), with all that was measured: ``generator/edited`` takes it.

    The cost, in images: 3 · ``samples`` for δ; (orders + ``draws``) · ``count`` · ``samples`` for curves; with
    ``pairs`` count · (count + 1) / 2 · ``samples``; and 2 · ``steps`` · ``batch`` with gradients for α.

    Parameters
    ----------
    segmenter
        Says where concepts are. They may overlap.
    concept
        The one that the units are to cause.
    layer
        Whose units. None: of the layers of ``scores`` the one with the best unit for the concept.
    units
        The set, in the order of the curve. None: the first ``count`` units in an ``order``.
    scores
        Scores of units, such as the IoU of a dissection: an order, and where α starts.
    count
        How many units are in the set, and in the other curves, at most: units whose score, or α, is not above 0 are
        left out (but all scores count where lower is better), and the summary says so.
    order
        ``scores``, ``alpha`` or ``random``. None: alpha where there are ``steps``, else scores.
    act
        What the edits that are handed on do: ``ablate`` or ``insert``.
    amount
        a, above 0, at most 1.
    locations
        P: ``all`` cells; one ``cell`` of each sample, drawn uniformly, as in the paper; the cells that show the
        ``concept`` in the unedited sample, half of their pixels at least; or a box (top, left, bottom, right) in shares
        of the picture. The edits that are handed on act in the box, else everywhere.
    samples
        How many, at least 2: the same ones in all runs.
    mean_samples
        How many others k comes from.
    steps
        Of Adam, for α. 0: no α.
    alpha_samples
        How many others α is found on.
    batch
        How many of them there are in a step.
    rate
        Adam's.
    penalty
        λ in −δ(α) / E[s_c] + λ‖α‖².
    draws
        How many random orders of all the layer's units are ablated, as a control: 0, or 2 to 20.
    pairs
        Ablate the set's units one by one and two by two as well, which finds units that stand in for each other.
    examples
        How many samples are kept as pictures: those that show most of the concept.
    call
        Which call of the layer is edited where one image needs several: a diffusion model calls its U-Net once per
        timestep, from 0; k is of that call. None: each is edited, and k is of the last. The edits that are handed on
        know no calls: ``generator/edited`` edits in each.
    k
        What is put in: ``mean``, the mean activation at a random pixel of the concept, as in the paper; or ``peak``,
        the mean over samples of the unit's largest activation where the concept is, which units that draw only a part
        of it need.

    Raises
    ------
    ValueError
        If a number is out of bounds, or parameters contradict each other.
    """

    explains = "CanSample"
    accepts = "nothing"
    returns = Intervention
    stochastic = True

    def __init__(
        self,
        segmenter: Segmenter | Spec,
        concept: str,
        layer: str | None = None,
        units: tuple[int, ...] | None = None,
        scores: UnitScores | None = None,
        count: int = 8,
        order: Literal["scores", "alpha", "random"] | None = None,
        act: Literal["ablate", "insert"] = "ablate",
        amount: float = 1.0,
        locations: Locations = "all",
        samples: int = 100,
        mean_samples: int = 200,
        steps: int = 0,
        alpha_samples: int = 100,
        batch: int = 16,
        rate: float = 0.05,
        penalty: float = 0.005,
        draws: int = 4,
        pairs: bool = False,
        examples: int = 6,
        call: int | None = None,
        k: Level = "mean",
    ) -> None:
        least = {"count": 1, "samples": 2, "mean_samples": 1, "steps": 0, "alpha_samples": 2, "batch": 1, "examples": 0}
        found = [count, samples, mean_samples, steps, alpha_samples, batch, examples]
        for (name, bound), value in zip(least.items(), found):
            if value < bound:
                raise ValueError(f"{name} {value} must be at least {bound}")
        check_level(k, call)
        if draws == 1 or not 0 <= draws <= MOST_DRAWS:
            raise ValueError(f"draws {draws} must be 0, or 2 to {MOST_DRAWS}, since an interval needs two")
        if not 0 < amount <= 1:
            raise ValueError(f"amount {amount} must be above 0, at most 1")
        if not (0 < rate < math.inf and 0 <= penalty < math.inf):
            raise ValueError(f"rate {rate} must be positive, and penalty {penalty} not negative")
        check_locations(locations)
        self.order = order or ("alpha" if steps else "scores")
        if units is not None:
            if not units or len(set(units)) < len(units) or min(units) < 0:
                raise ValueError(f"units {list(units)}: give channel numbers, at least one, each once")
            if order is not None:
                raise ValueError(f"units are given, so there is no order {order!r} to choose them by; leave one out")
            if layer is None:
                raise ValueError("units are given without a layer; name it")
        elif self.order == "scores" and scores is None:
            raise ValueError("say which units: units, or scores such as those of a dissection, or steps to find alpha")
        elif self.order == "alpha" and not steps:
            raise ValueError("order alpha needs steps above 0")
        if layer is None and scores is None:
            raise ValueError("name the layer, or give scores, whose best layer is taken")
        if act not in ("ablate", "insert"):
            raise ValueError(f"act {act!r} is not ablate or insert")
        self.segmenter, self.concept, self.layer, self.units, self.scores = segmenter, concept, layer, units, scores
        self.count, self.act, self.amount, self.locations = count, act, amount, locations
        self.samples, self.mean_samples, self.steps, self.alpha_samples = samples, mean_samples, steps, alpha_samples
        self.batch, self.rate, self.penalty = batch, rate, penalty
        self.draws, self.pairs, self.examples = draws, pairs, examples
        self.call, self.k = call, k

    def _explain(self, model: Any, inputs: Any, target: int | None, runtime: Runtime | None = None) -> Intervention:
        runtime = runtime or Runtime()
        segmenter = built(self.segmenter)
        layer, scores = self._layer()
        if self.steps:
            check_searchable(model, segmenter, runtime)
        self._check(layer, scores, of_one(model, layer, runtime, call=self.call).shape[1])
        journal = Journal("unit-intervention", runtime, model, segmenter, vars(self))
        with runtime.progress("means", self.mean_samples) as advance:
            of: dict[str, Any] = {"samples": self.mean_samples, "call": self.call, "k": self.k, "advance": advance}
            means, shares = journal.take(lambda: given(model, segmenter, [layer], runtime, **of))
        (concept,) = concept_columns(segmenter, (self.concept,), shares, self.mean_samples)
        k = means[layer][:, concept].float()
        first = FIRST + self.mean_samples

        def paired(start: int, n: int, journal: Journal | None = None) -> Paired:
            of: dict[str, Any] = {"samples": n, "first": start, "call": self.call, "journal": journal}
            return Paired(model, segmenter, layer, self.locations, concept, runtime, **of)

        alpha, by_alpha, history = None, None, None
        if self.steps:
            with runtime.progress("alpha", self.steps) as advance:
                how: dict[str, Any] = {"steps": self.steps, "batch": self.batch, "rate": self.rate}
                how |= {"penalty": self.penalty, "advance": advance}
                trained, start = paired(first, self.alpha_samples), start_of(scores, len(k))
                alpha, by_alpha, history = journal.take(lambda: optimised(trained, concept, k, start, **how))
        orders = self._orders(scores, alpha, by_alpha, len(k), runtime.seed)
        chosen = orders[self._named()][0].tolist()
        pair = paired(first + self.alpha_samples, self.samples, journal)
        return self._result(pair, concept, chosen, k, orders, {"alpha": alpha, "history": history})

    # -- which units ----------------------------------------------------------------------------------------------

    def _layer(self) -> tuple[str, Tensor | None]:
        """Return the layer, and the scores of its units for the concept."""
        if self.scores is None:
            assert self.layer is not None
            return self.layer, None
        found = self.scores.ranking(self.concept, self.layer)
        layer = found[0].layer
        values = self.scores.scores[layer][:, self.scores.concepts.index(self.concept)]
        decide = self.layer is None or (self.units is None and self.order == "scores")
        # where lower is better 0 may be the best, so only scores that are all alike tell nothing
        best = values.max() > 0 if self.scores.higher_is_better else len(values) == 1 or values.min() < values.max()
        if decide and not best:
            what = (
                f"is above 0 for {self.concept!r}" if self.scores.higher_is_better else f"differs for {self.concept!r}"
            )
            raise InputError(
                f"no {self.scores.measure} of a unit of layer {layer!r} {what}, so the scores choose none; name units, "
                f"or a layer and steps to find alpha, or give other scores"
            )
        return layer, values if self.scores.higher_is_better else -values

    def _check(self, layer: str, scores: Tensor | None, units: int) -> None:
        if scores is not None and len(scores) != units:
            raise InputError(f"the scores are of {len(scores)} units of layer {layer!r}, which has {units}")
        if self.units is not None and max(self.units) >= units:
            raise InputError(f"layer {layer!r} has {units} units; unit {max(self.units)} is none of them")

    def _named(self) -> str:
        """Return the name of the order that the set comes from."""
        if self.units is not None:
            return "given"
        return self.scores.measure if self.order == "scores" and self.scores is not None else self.order

    def _orders(
        self, scores: Tensor | None, alpha: Tensor | None, by_alpha: Tensor | None, units: int, seed: int
    ) -> dict[str, Tensor]:
        """Return ``[D, n]`` by name: the set's own, those by scores and by α, and random ones."""
        n, named = min(self.count if self.units is None else len(self.units), units), self._named()
        ranked: dict[str, Tensor] = {}
        if scores is not None:
            assert self.scores is not None
            order = scores.argsort(descending=True, stable=True)
            ranked[self.scores.measure] = order[scores[order] > 0] if self.scores.higher_is_better else order
        if alpha is not None:
            assert by_alpha is not None
            ranked["alpha"] = by_alpha[alpha[by_alpha] > 0]
        if named in ranked:
            n = min(n, len(ranked[named]))
            if n == 0:  # scores that are not above 0 were refused before
                raise InputError(
                    f"alpha is 0 for all {units} units after {self.steps} steps, so it chooses none; lower penalty or "
                    f"rate, or choose units by scores"
                )
        found = {} if self.units is None else {"given": torch.tensor([self.units])}
        found |= {name: order[None, :n] for name, order in ranked.items() if len(order)}
        if self.draws or self.order == "random":
            found["random"] = random_orders(seed, max(self.draws, 1), units, n)
        return found

    def _fewer(self, chosen: list[int], units: int) -> dict[str, str]:
        """Return a note if the set has fewer units than were asked for."""
        if self.units is not None or len(chosen) == self.count:
            return {}
        why = "the layer has no more" if len(chosen) == units else f"no other {self._named()} is above 0"
        return {"fewer units": f"{len(chosen)} of {self.count}: {why}"}

    # -- what they do ---------------------------------------------------------------------------------------------

    def _result(
        self,
        pair: Paired,
        concept: int,
        chosen: list[int],
        k: Tensor,
        orders: dict[str, Tensor],
        found: dict[str, Any],
    ) -> Intervention:
        factor, value = 1 - self.amount, self.amount * k[chosen]
        curves, ends = {}, {}
        joint: dict[str, Any] = {}
        pairs = self.pairs and len(chosen) > 1
        edits = 3 + sum(order.numel() for order in orders.values())
        edits += len(chosen) * (len(chosen) + 1) // 2 if pairs else 0
        with pair.runtime.progress("effects", edits) as advance:
            before = pair.shares()
            off, put = pair.shares(chosen, factor), pair.shares(chosen, factor, value)
            advance(3)
            for name, order in orders.items():
                curves[name], ends[name] = ablation_curve(pair, order, before, advance)
            if pairs:
                joint = dict(joint_ablation(pair, chosen, concept, before, advance))
        effects, effect_intervals = interval(put - off)
        shares = [interval(shown) for shown in (before, off, put)]
        best = before[:, concept].argsort(descending=True, stable=True)[: self.examples]
        rows = pair.kept[best].tolist()
        pictures: dict[str, Any] = {}
        if rows:
            pictures = {
                "before": pair.images(rows),
                "ablated": pair.images(rows, chosen, factor),
                "inserted": pair.images(rows, chosen, factor, value),
                "value_range": tuple(pair.model.value_range),
            }
        size = len(chosen)
        return Intervention(
            (pair.layer,) * size,
            torch.tensor(chosen),
            torch.full((size,), factor),
            values=value if self.act == "insert" else None,
            locations=None if pair.box is None else pair.box.expand(size, -1, -1).clone(),
            notes={
                "units by": self._named(),
                **self._fewer(chosen, len(k)),
                "locations": self.locations if isinstance(self.locations, str) else str(tuple(self.locations)),
                "samples": f"{len(pair.kept)} of {pair.samples}",
                "samples for k": self.mean_samples,
                "k": K_IS[self.k],
                "unit of effects": "share of pixels",
                "intervals": "95%, normal, over differences within samples",
                "segmenter": saving.name_of(pair.segmenter),
                **({} if self.call is None else {"edited in": f"call {self.call} of the layer; {HANDED_ON}"}),
            },
            layer=pair.layer,
            chosen=torch.tensor(chosen),
            concept=self.concept,
            concepts=tuple(pair.segmenter.concepts),
            shares=torch.stack([s[0] for s in shares]),
            share_intervals=torch.stack([s[1] for s in shares]),
            effects=effects,
            effect_intervals=effect_intervals,
            means=k,
            orders=orders,
            curves=curves,
            curve_intervals=ends,
            **found,
            **joint,
            **pictures,
        )
