"""A correction before a judge that had no part in it: what it changes, what it costs, and what controls do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Discriminator, Explainer, Runtime, Samples, Spec, UnitEdits, create, units
from genxai_core.errors import InputError

from .correction import Correction
from .judging import artifact_class, built, probabilities, speaks_of_artifacts
from .masks import Masks, artifact_masks, named
from .proof import CORRECTED, MORE_IS_BETTER, MOST_ACTIVE, RATE, UNCORRECTED, Proof
from .proof_controls import edited_units, in_common, mean_activity, most_active, random_units
from .proof_intervals import Figure, of_difference, of_mean, of_share
from .proof_measures import NAME, Extractor, drawn, fingerprint, mean_outside, quality, same_weights

START = 5_000_000
"""Proofs use the samples from this one on: none that a correction, or a dissection, takes by itself."""

ACTIVITY_SAMPLES = 256
"""At most as many samples, which follow the proof's own, tell the most active units."""


class CorrectionProof(Explainer):
    """Hold a correction against an independent judge, beside the uncorrected generator and two kinds of control.

    The same ``samples`` latents, which the selection must not have used, are made into images ``[N, C, H, W]`` in every
    arm: uncorrected; corrected; with the same edits (factors, values, places, condition) of as many units per layer
    drawn at random, in several draws; and of the units most active overall (mean |activation| of other samples).
    A sample is broken if the judge's P(artifact) exceeds ``above``. Measured of every arm, with 95 % intervals:

    - ``artifact rate``, the share of broken samples (Wilson), and its paired difference to the uncorrected and of the
      corrected to every control (Agresti and Min 2005);
    - ``newly broken``: of the samples that were fine uncorrected, the share that is broken (Wilson);
    - with ``real`` and ``features``: ``kid``, ``fid``, ``precision``, ``recall``, ``density``, ``coverage``, as
      ``metric/kid``, ``metric/fid`` and ``metric/precision-recall`` have them, on at most as many real images;
    - of the samples that were fine: ``feature change``, the mean distance in the features divided by the mean distance
      of two different samples, and ``pixel change``, the mean |change| as a share of the value range;
    - with ``masks``: ``change outside masks``, the same of the samples that were broken, where their masks are not;
      those whose mask is empty, or the whole image, are left out.

    The result says whether the correction lowers the artifact rate more than *every* control, each draw by itself.

    Parameters
    ----------
    edits
        The correction.
    judge
        Trained on other labels, with another seed, on other images than what selected the units. Its artifact class is
        the one named ``artifact``, a single logit's 0, or ``target``.
    selected_by
        The classifier that selected the units. A judge with the same weights is refused. What explainer/correct-units
        returns knows its classifier by itself; of other edits it is taken on trust, and the notes say so.
    condition_judge
        What the edits' condition asks, if they have one. A judge with the same weights is refused.
    real
        Real images, for quality and diversity. Of more than ``samples``, that many are taken, evenly spaced.
    features
        A model with ``features(images)``, such as what ``trainer/classifier`` trains, or ``discriminator/inception``.
    masks
        Where broken samples are broken: an attribution such as ``explainer/cam`` of the judge's artifact class; or
        ``given``, the masks that come with the samples.
    mask_threshold
        Share of a map's own maximum above which it is the mask.
    samples
        How many, at least 10.
    start
        The number of the first, away from those that the selection used.
    draws
        How many random controls, at least 1.
    above
        In (0, 1).
    pairs
        How many pairs of images are kept: the first broken ones.

    Raises
    ------
    ValueError
        If a number is out of bounds, or parameters do not go together.
    """

    explains = "CanSample"
    accepts = "nothing"
    returns = Proof
    stochastic = True

    def __init__(
        self,
        edits: UnitEdits,
        judge: Discriminator | Spec,
        selected_by: Discriminator | Spec | None = None,
        condition_judge: Discriminator | Spec | None = None,
        real: Samples | Dataset | None = None,
        features: nn.Module | Spec | None = None,
        masks: Masks | None = None,
        mask_threshold: float = 0.3,
        samples: int = 500,
        start: int = START,
        draws: int = 3,
        above: float = 0.5,
        pairs: int = 20,
    ) -> None:
        if samples < 10 or start < 0 or draws < 1 or pairs < 0:
            raise ValueError(
                f"samples {samples}, start {start}, draws {draws}, pairs {pairs}: they must be at least 10, 0, 1 and 0"
            )
        if not 0 < above < 1 or not 0 <= mask_threshold < 1:
            raise ValueError(f"above {above} must lie in (0, 1), and mask_threshold {mask_threshold} in [0, 1)")
        if real is not None and features is None:
            raise ValueError("real images are compared by their features; give features, such as a trained classifier")
        if isinstance(masks, str) and masks != "given":
            raise ValueError(f"masks {masks!r} is not given, or an attribution such as {{use: explainer/cam}}")
        self.edits, self.judge, self.selected_by, self.condition_judge = edits, judge, selected_by, condition_judge
        self.real, self.features, self.masks, self.mask_threshold = real, features, masks, mask_threshold
        self.samples, self.start, self.draws, self.above, self.pairs = samples, start, draws, above, pairs

    def _explain(self, model: Any, inputs: Any, target: int | None, runtime: Runtime | None = None) -> Proof:
        runtime = runtime or Runtime()
        if not isinstance(self.edits, UnitEdits):
            raise InputError(f"{NAME}: edits are a {type(self.edits).__name__}, not UnitEdits; see correct-units")
        judge, condition_judge = built(self.judge).eval(), self._condition_judge()
        speaks_of_artifacts(judge, target)
        target = artifact_class(judge, target)
        known = isinstance(self.edits, Correction) and self.edits.selected_by
        refused = {
            "selected the units": (known and known == fingerprint(judge)) or self._is(judge, self.selected_by),
            "the condition asks": self._is(judge, condition_judge),
        }
        for role in (role for role, same in refused.items() if same):
            raise InputError(
                f"{NAME}: the judge has the weights of the classifier that {role}; the score that made the labels "
                f"must not judge the repair: train another one on other labels, images and seed"
            )
        if len(self.edits):  # where nothing helped there are none
            create("generator/edited", base=model, edits=self.edits, judge=condition_judge)  # tells what does not fit
        extractor = None if self.features is None else Extractor(self.features)
        trial = _Trial(model, self._arms(model, runtime), judge, target, condition_judge, extractor, runtime)
        seen = _Seen(list(trial.arms))
        with runtime.progress("proof", self.samples * len(trial.arms)) as advance:
            for first in range(0, self.samples, runtime.batch_size):
                n = min(runtime.batch_size, self.samples - first)
                self._batch(trial, seen, self.start + first, n)
                advance(n * len(trial.arms))
        real = None if self.real is None or extractor is None else self._real(extractor, seen, runtime)
        return self._proof(seen, real, trial)

    def _is(self, judge: Discriminator, other: Discriminator | Spec | None) -> bool:
        return other is not None and same_weights(judge, built(other))

    def _condition_judge(self) -> Discriminator | None:
        return None if self.condition_judge is None else built(self.condition_judge).eval()

    def _arms(self, model: Any, runtime: Runtime) -> dict[str, UnitEdits]:
        """Return the edits of every arm; those of the uncorrected are none."""
        layers = list(edited_units(self.edits))
        others, first = min(ACTIVITY_SAMPLES, self.samples), self.start + self.samples
        activity = mean_activity(model, layers, runtime.seed, first, others, runtime.batch_size)
        widths = {layer: len(found) for layer, found in activity.items()}
        arms = {UNCORRECTED: self.edits[:0], CORRECTED: self.edits}
        for draw in range(self.draws):
            arms[f"random {draw + 1}"] = random_units(self.edits, widths, runtime.seed, draw)
        arms[MOST_ACTIVE] = most_active(self.edits, activity)
        return arms

    def _batch(self, trial: _Trial, seen: _Seen, first: int, n: int) -> None:
        """Make n samples from a number on in every arm, and keep what is measured of them; of the images only pairs."""
        model, seed = trial.model, trial.runtime.seed
        plain = drawn(model, n, seed, first)
        span = plain.value_range[1] - plain.value_range[0]
        condition, chosen = self.edits.condition, None
        if condition is not None and trial.condition_judge is not None:
            asked = probabilities(trial.condition_judge, plain.images, plain.value_range, condition["target"])
            chosen = (asked > condition["above"]).to(plain.images.device)
        inside: Tensor | None = None
        for arm, edits in trial.arms.items():
            if len(edits):
                with units.applied(model, dataclasses.replace(edits, condition=None)):
                    made = drawn(model, n, seed, first).images
                images = made if chosen is None else torch.where(chosen[:, None, None, None], made, plain.images)
            else:
                images = plain.images
            found = probabilities(trial.judge, images, plain.value_range, trial.target)
            if arm == UNCORRECTED:
                broken = found > self.above
                inside = self._inside(plain, broken, trial)
            change = (images - plain.images).abs().double().cpu() / span
            seen.probabilities[arm].append(found)
            seen.changes[arm].append(change.flatten(1).mean(1))
            if inside is not None:
                seen.outside[arm].append(mean_outside(change[broken], inside))
            if trial.extractor is not None:
                seen.features[arm].append(trial.extractor(images, plain.value_range))
            if arm == CORRECTED:
                seen.keep(plain, images, broken, first, self.pairs)

    def _inside(self, plain: Samples, broken: Tensor, trial: _Trial) -> Tensor | None:
        """Return bool ``[B, 1, H, W]``: where the B broken samples are broken; None if nobody asks."""
        rows = broken.nonzero()[:, 0].tolist()
        if self.masks is None:
            return None
        if not rows:
            return torch.zeros(0, 1, *plain.images.shape[2:], dtype=torch.bool)
        samples, threshold = plain[rows], self.mask_threshold
        return artifact_masks(self.masks, trial.judge, samples, trial.target, threshold, trial.runtime).cpu()

    def _real(self, extractor: Extractor, seen: _Seen, runtime: Runtime) -> Tensor:
        """Return the features of the real images, or of evenly spaced ones of them."""
        real = self.real
        assert real is not None
        if tuple(real.image_shape) != seen.image_shape:
            raise InputError(
                f"{NAME}: real images are {tuple(real.image_shape)}, those of the generator {seen.image_shape}; bring "
                f"them to one size"
            )
        count = min(len(real), self.samples)
        rows = [i * len(real) // count for i in range(count)]
        batches = (real[rows[i : i + runtime.batch_size]] for i in range(0, count, runtime.batch_size))
        return torch.cat([extractor(batch.images, real.value_range) for batch in batches])

    # -- the figures ----------------------------------------------------------------------------------------------

    def _proof(self, seen: _Seen, real: Tensor | None, trial: _Trial) -> Proof:
        found = torch.stack([torch.cat(parts) for parts in seen.probabilities.values()])
        broken = found > self.above
        fine = ~broken[0]
        missing: dict[str, str] = {}
        measured: dict[str, list[Figure]] = {RATE: [of_share(row) for row in broken]}
        if bool(fine.any()):
            measured["newly broken"] = [of_share(row[fine]) for row in broken]
        if real is not None:
            measured |= quality(seen.features, real, missing, trial.runtime)
        else:
            missing["quality and diversity"] = "give real and features"
        measured |= self._collateral(seen, fine, missing)
        outside = [torch.cat(parts) for parts in seen.outside.values() if parts]
        if not outside:
            missing["change outside masks"] = "give masks"
        elif len(outside[0]) < 2:
            missing["change outside masks"] = "fewer than two samples were broken and have a mask"
        else:
            measured["change outside masks"] = [of_mean(rows) for rows in outside]
        names = [name for name in MORE_IS_BETTER if name in measured]
        table = torch.tensor([[measured[name][i] for name in names] for i in range(len(found))], dtype=torch.double)
        changes = torch.tensor([of_difference(row, broken[0]) for row in broken], dtype=torch.double)
        against = torch.tensor([of_difference(broken[1], row) for row in broken], dtype=torch.double)
        return Proof(
            tuple(seen.probabilities),
            tuple(names),
            table[..., 0],
            table[..., 1:],
            changes[:, 0],
            changes[:, 1:],
            against[:, 0],
            against[:, 1:],
            found,
            self.above,
            sum(map(len, edited_units(self.edits).values())),
            value_range=seen.value_range,
            notes={
                **self._notes(fine, real, len(outside[0]) if outside else 0),
                "units that controls share with it": ", ".join(
                    f"{arm} {in_common(self.edits, edits)}" for arm, edits in list(trial.arms.items())[2:]
                ),
                **{f"not measured: {name}": why for name, why in missing.items()},
            },
            **seen.pairs(),
        )

    def _collateral(self, seen: _Seen, fine: Tensor, missing: dict[str, str]) -> dict[str, list[Figure]]:
        """Return what changed of the samples that were fine."""
        if int(fine.sum()) < 2:
            missing |= dict.fromkeys(("feature change", "pixel change"), "fewer than two samples were fine")
            return {}
        measured = {"pixel change": [of_mean(torch.cat(parts)[fine]) for parts in seen.changes.values()]}
        if not seen.features[UNCORRECTED]:
            missing["feature change"] = "give features"
            return measured
        rows = {arm: torch.cat(parts).double()[fine] for arm, parts in seen.features.items()}
        plain = rows[UNCORRECTED]
        apart = float((plain - plain.roll(1, 0)).norm(dim=1).mean())
        if apart == 0:
            missing["feature change"] = "all fine samples have the same features"
        else:
            measured["feature change"] = [of_mean((found - plain).norm(dim=1) / apart) for found in rows.values()]
        return measured

    def _notes(self, fine: Tensor, real: Tensor | None, masked: int) -> dict[str, Any]:
        told = self.selected_by is not None or (isinstance(self.edits, Correction) and self.edits.selected_by)
        trusted = "not the weights of what selected the units" if told else "taken on trust: give selected_by"
        last = self.start + self.samples - 1
        condition = self.edits.condition
        return {
            "samples": f"{self.samples}, numbers {self.start} to {last}; {int(fine.sum())} fine uncorrected",
            "judge": trusted,
            **({} if real is None else {"real images": len(real)}),
            **({} if self.masks is None else {"masks": f"{named(self.masks)}, of {masked} broken samples"}),
            **({} if condition is None else {"condition": f"class {condition['target']} above {condition['above']:g}"}),
            "intervals": "95%: Wilson; paired, Agresti and Min; means, normal; quality, BCa of its metric",
        }


@dataclass(frozen=True)
class _Trial:
    """What every batch needs."""

    model: Any
    arms: dict[str, UnitEdits]
    judge: Discriminator
    target: int
    condition_judge: Discriminator | None
    extractor: Extractor | None
    runtime: Runtime


class _Seen:
    """What is kept of all batches, by arm: numbers of each sample, and the images of a few."""

    def __init__(self, arms: Sequence[str]) -> None:
        self.probabilities: dict[str, list[Tensor]] = {arm: [] for arm in arms}
        self.changes: dict[str, list[Tensor]] = {arm: [] for arm in arms}
        self.outside: dict[str, list[Tensor]] = {arm: [] for arm in arms}
        self.features: dict[str, list[Tensor]] = {arm: [] for arm in arms}
        self.value_range = (-1.0, 1.0)
        self.image_shape: tuple[int, ...] = ()
        self._numbers: list[int] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    def keep(self, plain: Samples, corrected: Tensor, broken: Tensor, first: int, most: int) -> None:
        """Keep the pairs of the first broken samples, and what all images have in common."""
        self.value_range, self.image_shape = plain.value_range, tuple(plain.image_shape)
        rows = broken.nonzero()[:, 0].tolist()[: most - len(self._numbers)]
        self._numbers += [first + row for row in rows]
        self._kept += [(plain.images[row].cpu().clone(), corrected[row].cpu().clone()) for row in rows]

    def pairs(self) -> dict[str, Any]:
        """Return the fields of the result, or none."""
        if not self._numbers:
            return {}
        before, after = (torch.stack(images) for images in zip(*self._kept))
        return {"numbers": torch.tensor(self._numbers), "before": before, "after": after}
