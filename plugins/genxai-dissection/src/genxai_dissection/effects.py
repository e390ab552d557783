"""The average causal effect of each unit, alone, on each concept."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from genxai_core import Explainer, Runtime, Segmenter, Spec, UnitScores, saving
from genxai_core.errors import InputError

from .checkpoint import Journal
from .layers import spatial_layers
from .paired import FIRST, K_IS, Level, Paired, built, check_level, given, interval


class UnitEffects(Explainer):
    """Average causal effect (ACE) of each unit of some layers, alone, on each concept.

    Unit u is switched off (x_a: r_u = 0) and put in (x_i: r_u = k) at the same places P of the same samples:

        δ_(u→c) = E_(z,P)[s_c(x_i)] − E_(z,P)[s_c(x_a)],

    s_c(x) the share of the pixels at P that show c (Bau et al., "GAN Dissection", ICLR 2019, eq. 3 and 4), k the unit's
    activation where c is, from samples of their own. 0 is no effect. The paper divides by E[s_c(x)]; here δ is in
    shares of pixels. Intervals are 95 % ones over per-sample differences, mean ± 1.96 s / √n.

    A unit that draws only a part of c has the smaller a mean there, the less of c it covers, and its δ may be 0 or
    below; with ``k: peak``, or without ``insert``, it is found. Of units that draw the same, none is found without
    ``insert``; `UnitIntervention` ablates them jointly. The pictures alone are segmented, never masks that a generator
    gives with its samples. The cost: (concepts + 1) · units · ``samples`` images for each layer; with ``concept``
    locations 2 · concepts · units · ``samples``; without ``insert`` units · ``samples``.

    With ``checkpoints`` in the Runtime the effects of each unit are written from time to time, and the work goes on
    from there.

    Parameters
    ----------
    segmenter
        Says where concepts are. They may overlap.
    layers
        Names of layers that return ``[N, U, h, w]`` or ``[N, U]``. None: of each resolution the last leaf module that
        returns maps of it, the picture itself left out.
    concepts
        Which of the segmenter's concepts. None: all that the samples for k show.
    samples
        How many, at least 2: the same ones in all runs.
    mean_samples
        How many others k comes from.
    locations
        P: ``all`` cells; one ``cell`` of each sample, drawn uniformly, as in the paper; or the cells that show the
        ``concept`` in the unedited sample, half of their pixels at least.
    insert
        Whether x_i has the unit put in, as in the paper. Else x_i is the unedited sample, and the effect is the drop
        when the unit is off.
    call
        Which call of a layer is edited where one image needs several: a diffusion model calls its U-Net once per
        timestep, from 0; k is of that call. None: each is edited, and k is of the last.
    k
        What is put in: ``mean``, the mean activation at a random pixel of the concept, as in the paper; or ``peak``,
        the mean over samples of the unit's largest activation where the concept is, which units that draw only a part
        of it need.

    Raises
    ------
    ValueError
        If a number is out of bounds, or something comes twice.
    """

    explains = "CanSample"
    accepts = "nothing"
    returns = UnitScores
    stochastic = True

    def __init__(
        self,
        segmenter: Segmenter | Spec,
        layers: tuple[str, ...] | None = None,
        concepts: tuple[str, ...] | None = None,
        samples: int = 64,
        mean_samples: int = 200,
        locations: Literal["all", "cell", "concept"] = "all",
        insert: bool = True,
        call: int | None = None,
        k: Level = "mean",
    ) -> None:
        if samples < 2 or mean_samples < 1:
            raise ValueError(f"samples {samples} must be at least 2, and mean_samples {mean_samples} at least 1")
        check_level(k, call)
        for name, given_names in (("layers", layers), ("concepts", concepts)):
            if given_names is not None and (not given_names or len(set(given_names)) < len(given_names)):
                raise ValueError(f"{name} {list(given_names)}: name at least one, each once")
        self.segmenter, self.layers, self.concepts = segmenter, layers, concepts
        if locations not in ("all", "cell", "concept"):
            raise ValueError(f"locations {locations!r} are not all, cell or concept")
        self.samples, self.mean_samples, self.locations, self.insert = samples, mean_samples, locations, insert
        self.call, self.k = call, k

    def _explain(self, model: Any, inputs: Any, target: int | None, runtime: Runtime | None = None) -> UnitScores:
        runtime = runtime or Runtime()
        segmenter = built(self.segmenter)
        layers = self.layers or spatial_layers(model, runtime.seed)
        journal = Journal("unit-effects", runtime, model, segmenter, {**vars(self), "layers": layers})
        with runtime.progress("means", self.mean_samples) as advance:
            of: dict[str, Any] = {"samples": self.mean_samples, "call": self.call, "k": self.k, "advance": advance}
            means, shares = journal.take(lambda: given(model, segmenter, layers, runtime, **of))
        columns = concept_columns(segmenter, self.concepts, shares, self.mean_samples)
        scores, ends = {}, {}
        for layer in layers:
            scores[layer], ends[layer] = self._layer(model, segmenter, layer, columns, means[layer], runtime, journal)
        unseen = [name for name, share in zip(segmenter.concepts, shares.tolist()) if share == 0]
        return UnitScores(
            scores,
            concepts=tuple(segmenter.concepts[c] for c in columns),
            intervals=ends,
            measure="ace" if self.insert else "drop",
            notes={
                "samples": self.samples,
                "samples for k": self.mean_samples,
                "k": K_IS[self.k],
                "compared": "inserted less ablated" if self.insert else "unedited less ablated",
                "locations": self.locations,
                "unit": "share of pixels",
                "intervals": "95%, normal, over differences within samples",
                "segmenter": saving.name_of(segmenter),
                **({} if self.call is None else {"edited in": f"call {self.call} of the layer"}),
                **({"never seen": ", ".join(unseen)} if unseen and self.concepts is None else {}),
            },
        )

    def _layer(
        self,
        model: Any,
        segmenter: Segmenter,
        layer: str,
        columns: list[int],
        means: Tensor,
        runtime: Runtime,
        journal: Journal,
    ) -> tuple[Tensor, Tensor]:
        """Return ``[U, concepts]`` and ``[U, concepts, 2]``."""

        def paired(column: int) -> Paired:
            at, n, first = self.locations, self.samples, FIRST + self.mean_samples
            return Paired(model, segmenter, layer, at, column, runtime, samples=n, first=first, call=self.call)

        own = self.locations == "concept"  # then every concept has places of its own
        pairs = [paired(c) for c in columns] if own else [paired(columns[0])] * len(columns)
        unedited = {id(pair): pair.shares() for pair in pairs} if not self.insert else {}

        def of_unit(unit: int) -> tuple[Tensor, Tensor]:
            ablated: dict[int, Tensor] = {}
            found, ends = torch.zeros(len(columns)).double(), torch.zeros(len(columns), 2).double()
            for at, (c, pair) in enumerate(zip(columns, pairs)):
                if id(pair) not in ablated:
                    ablated[id(pair)] = pair.shares([unit])
                k = means[unit, c : c + 1].float()
                shown = pair.shares([unit], value=k) if self.insert else unedited[id(pair)]
                found[at], ends[at] = interval(shown[:, c] - ablated[id(pair)][:, c])
            return found, ends

        rows = []
        with runtime.progress(f"effects {layer}", len(means)) as advance:
            for unit in range(len(means)):
                rows.append(journal.take(partial(of_unit, unit)))
                advance()
        return torch.stack([found for found, _ in rows]), torch.stack([ends for _, ends in rows])


def concept_columns(segmenter: Segmenter, wanted: tuple[str, ...] | None, shares: Tensor, samples: int) -> list[int]:
    """Return the indices of the concepts that are wanted, or of all that were seen.

    Raises
    ------
    InputError
        If one that is wanted is unknown, or was not seen; or none was.
    """
    names = list(segmenter.concepts)
    for name in wanted or ():
        if name not in names:
            raise InputError(f"there is no concept {name!r}; the segmenter knows {', '.join(names)}")
        if shares[names.index(name)] == 0:
            raise InputError(
                f"none of {samples} samples shows {name!r}, so its units' mean activation is unknown; take more "
                f"mean_samples, or another concept"
            )
    if wanted is not None:
        return [names.index(name) for name in wanted]
    found = [i for i, share in enumerate(shares.tolist()) if share > 0]
    if not found:
        raise InputError(f"none of {samples} samples shows any of the segmenter's concepts; take more mean_samples")
    return found
