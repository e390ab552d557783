"""Switches artifact units off, in one layer or layer by layer, as strongly as held-out samples allow."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from genxai_core import Dataset, Discriminator, Explainer, Runtime, Samples, Spec, UnitEdits, units
from genxai_core.errors import GenxaiWarning, InputError
from genxai_core.guard import guard

from . import judging, strategies
from .choosing import HeldOut, Measured, best, split
from .correction import Correction
from .defects import artifact_thresholds
from .layers import default_layers
from .masks import GRADCAM, Masks, artifact_masks, named
from .proof_measures import fingerprint
from .scoring import STRAYED
from .strategies import Candidate


class CorrectUnits(Explainer):
    """Edit the units whose activity agrees with artifacts, so that fewer images are broken and no others change.

    Samples are divided. On the one part each unit u gets its defective score DS_u, the mean over broken samples of
    IoU(mask, activation above the unit's threshold) (Tousi et al., "Automatic Correction of Internal Units in
    Generative Neural Networks", CVPR 2021). Candidates are

    - ``one-layer``: the top n units of one layer, f_u ← λ f_u (λ = 0 switches them off);
    - ``sequential``: from layer 1 to a stopping layer ℓ, the top n units of each, f_u ← λ (1 − DS_u) f_u, where DS_u
      of a layer is taken anew with the layers before it corrected.

    The other part, which is held out, decides on n, λ and ℓ or the layer: of the candidates that change fine samples
    by no more than the ``bound`` on average, the one with the lowest artifact rate (the share that the classifier
    calls broken); of equal ones, and whose broken samples have an equal P(artifact) within 0.1, that with the least
    change, then the fewest units. If none lowers the rate, the result has no edits and says why.

    Broken are samples that are labelled ``artifact``, or else those with P(artifact) above ``above``. ``target`` of
    `explain` is the classifier's artifact class; without it, the class of that name.

    The result is edits (`UnitEdits`): ``generator/edited`` takes it. Whether it is a correction is for another judge to
    say, who has seen other labels: explainer/correction-proof.

    The cost, in images: candidates × held-out samples; for ``sequential`` layers × counts × strengths × broken samples
    for scores; and, if ``causal``, layers × ``checked`` × 2 × broken samples.

    Parameters
    ----------
    classifier
        Judges images; one of its classes is the artifact. See trainer/artifact-classifier.
    layers
        Names of layers that return ``[N, U, h, w]``, in any order. None: of each resolution the last one.
    strategy
        ``sequential`` or ``one-layer``.
    counts
        What to try for n: whole numbers of units, or shares of a layer's units, below 1.
    strengths
        What to try for λ, in [0, 1].
    masks
        Where broken samples are broken: ``given`` with the samples, or an attribution of the classifier's answer. None:
        the samples' masks, if one is named ``artifact``; else Grad-CAM.
    mask_threshold
        Share of a map's own maximum above which a pixel is in the mask.
    quantile
        Share of a unit's values below its threshold.
    causal
        Edit only units that cause artifacts, by ablation, and not those that coincide with them.
    checked
        How many of each layer's best units are ablated to find that out; no others are edited.
    conditional
        Edit only images that the classifier gives P(artifact) > ``above`` when they are unedited.
    above
        What counts as broken, in [0, 1).
    holdout
        Share of the samples that is held out.
    bound
        The largest mean absolute change of fine samples, as a share of the value range.
    examples
        How many held-out samples of either kind are kept as pictures: the first ones.

    Raises
    ------
    ValueError
        If a number is out of bounds.
    """

    explains = "HasLatents"
    accepts = "dataset"
    returns = Correction
    stochastic = True

    def __init__(
        self,
        classifier: Discriminator | Spec,
        layers: tuple[str, ...] | None = None,
        strategy: Literal["sequential", "one-layer"] = "sequential",
        counts: tuple[int | float, ...] = (1, 2, 3, 4, 6, 8),
        strengths: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9),
        masks: Masks | None = None,
        mask_threshold: float = 0.3,
        quantile: float = 0.995,
        causal: bool = True,
        checked: int = 16,
        conditional: bool = False,
        above: float = 0.5,
        holdout: float = 0.5,
        bound: float = 0.01,
        examples: int = 6,
    ) -> None:
        if layers is not None and (not layers or len(set(layers)) < len(layers)):
            raise ValueError(f"layers {list(layers)}: name at least one, each once")
        if strategy not in ("sequential", "one-layer"):
            raise ValueError(f"strategy {strategy!r} is not sequential or one-layer")
        if not counts or not all(c >= 1 if isinstance(c, int) else 0 < c < 1 for c in counts):
            raise ValueError(f"counts {list(counts)}: give whole numbers from 1 on, or shares between 0 and 1")
        if not strengths or not all(0 <= s <= 1 for s in strengths):
            raise ValueError(f"strengths {list(strengths)}: give at least one, each from 0 to 1")
        for name, value in (("mask_threshold", mask_threshold), ("above", above)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} {value} must be at least 0 and below 1")
        for name, value in (("quantile", quantile), ("holdout", holdout)):
            if not 0 < value < 1:
                raise ValueError(f"{name} {value} must be between 0 and 1")
        if checked < 1 or examples < 0 or not bound >= 0:
            raise ValueError(f"checked {checked} must be at least 1, examples {examples} and bound {bound} at least 0")
        self.classifier, self.layers, self.strategy = classifier, layers, strategy
        self.counts, self.strengths = tuple(counts), tuple(strengths)
        self.masks, self.mask_threshold, self.quantile = masks, mask_threshold, quantile
        self.causal, self.checked, self.conditional = causal, checked, conditional
        self.above, self.holdout, self.bound, self.examples = above, holdout, bound, examples

    def _explain(self, model: Any, inputs: Any, target: int | None, runtime: Runtime | None = None) -> Correction:
        runtime = runtime or Runtime()
        judge = judging.built(self.classifier)
        with guard(judge):
            judging.speaks_of_artifacts(judge, target)
            artifact = judging.artifact_class(judge, target)
            samples = self._samples(model, inputs)
            assert samples.latents is not None
            layers = self._ordered(model, samples.latents)
            broken = judging.broken(samples, judge, artifact, self.above)
            scored, held = split(broken, self.holdout, runtime.seed)
            condition = self.above if self.conditional else None
            proof = HeldOut(
                model,
                judge,
                artifact,
                samples.latents[held],
                broken[held],
                runtime,
                above=self.above,
                condition=condition,
            )
            self._same(samples.images[held], proof)
            notes = {
                "samples": f"{len(scored)} to score units, of which {int(broken[scored].sum())} are broken",
                "held out": f"{len(held)}, of which {int(broken[held].sum())} are broken",
                "masks": named(self._masks(samples)),
                "units": "those that cause artifacts" if self.causal else "by their scores alone",
                "layers": ", ".join(layers),
            }
            rest = samples[scored.tolist()], broken[scored]
            found = self._candidates(model, judge, artifact, *rest, layers, notes, runtime)
            with runtime.progress("candidates", len(found)) as advance:
                measured = []
                for each in found:
                    measured.append(proof.measure(each.edits, len(found)))
                    advance()
            numbers, strengths = [len(each.edits) for each in found], [each.strength for each in found]
            chosen = best(measured, numbers, strengths, self.bound, proof.rate[0])
            return self._result(proof, found, measured, chosen, artifact, notes)

    # -- what is given --------------------------------------------------------------------------------------------

    def _samples(self, model: Any, inputs: Samples | Dataset) -> Samples:
        samples = inputs if isinstance(inputs, Samples) else inputs[:]
        if not bool(torch.isfinite(samples.images).all()):
            raise InputError("explainer/correct-units: the images hold NaN or infinity; remove those samples")
        if samples.latents is None:
            raise InputError(
                "explainer/correct-units: these samples have no latents; sample them from the generator itself"
            )
        if not bool(torch.isfinite(samples.latents).all()):
            raise InputError("explainer/correct-units: the latents hold NaN or infinity; remove those samples")
        found, wanted = tuple(samples.latents.shape[1:]), tuple(model.latent_shape)
        if found != wanted:
            raise InputError(f"explainer/correct-units: latents are {found}, the model takes {wanted}")
        return samples

    def _same(self, given: Tensor, proof: HeldOut) -> None:
        """Warn if the generator does not make the samples' images of their latents."""
        made = proof.images
        if given.shape != made.shape:
            raise InputError(
                f"explainer/correct-units: the images are {list(given.shape[1:])}, the model makes "
                f"{list(made.shape[1:])} of their latents; give samples of this generator"
            )
        low, high = proof.value_range
        off = float((made - given.to(made)).abs().mean()) / (high - low)
        if off > STRAYED:
            warnings.warn(
                f"explainer/correct-units: the model makes other images of the samples' latents (they differ by "
                f"{off:.0%} of the range on average); what corrects it corrects none of these images",
                GenxaiWarning,
                stacklevel=2,
            )

    def _ordered(self, model: Any, latents: Tensor) -> tuple[str, ...]:
        """Return the layers in the order in which they run."""
        layers = default_layers(model, latents) if self.layers is None else self.layers
        like = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), latents)
        with torch.no_grad(), units.record(model, layers, detach=True) as seen:
            model(latents[:1].to(like))
        idle = [layer for layer in layers if layer not in seen]
        if idle:
            raise InputError(f"layer {idle[0]!r} takes no part when {type(model).__name__} makes an image of a latent")
        return tuple(seen)

    def _masks(self, samples: Samples) -> Masks:
        if self.masks is not None:
            return self.masks
        return "given" if samples.masks is not None and judging.ARTIFACT in samples.concepts else GRADCAM

    # -- candidates -----------------------------------------------------------------------------------------------

    def _candidates(
        self,
        model: Any,
        judge: Discriminator,
        target: int,
        samples: Samples,
        broken: Tensor,
        layers: Sequence[str],
        notes: dict[str, Any],
        runtime: Runtime,
    ) -> list[Candidate]:
        """Return all that is worth trying, each once; add to the notes how many masks are empty."""
        assert samples.latents is not None
        bad = samples[broken.nonzero()[:, 0].tolist()]
        assert bad.latents is not None
        masks = artifact_masks(self._masks(samples), judge, bad, target, self.mask_threshold, runtime)
        empty = int((~masks.flatten(1).any(1)).sum())
        if empty:
            notes["masks"] += f", empty for {empty} of {len(masks)} broken samples"
        if empty == len(masks):
            warnings.warn(
                f"explainer/correct-units: no mask ({named(self._masks(samples))}) marks anything, so every defective "
                f"score is 0 and says nothing; give other masks",
                GenxaiWarning,
                stacklevel=2,
            )
        thresholds = artifact_thresholds(model, samples.latents, layers, runtime, self.quantile)
        plain, score = strategies.scorer(model, bad.latents, masks, thresholds, runtime)
        allowed = None
        if self.causal:
            checked = {
                layer: strategies.ordered(plain[layer], range(len(plain[layer])), self.checked) for layer in layers
            }
            with runtime.progress("causes", sum(map(len, checked.values()))) as advance:
                allowed = strategies.causes(model, bad.latents, judge, target, checked, runtime, advance)
        found: dict[Any, Candidate] = {}
        made = strategies.sequential if self.strategy == "sequential" else strategies.one_layer
        with runtime.progress("scores", len(layers) * len(self.counts) * len(self.strengths)) as advance:
            for each in made(layers, score, allowed, self.counts, self.strengths):
                if each is not None:
                    found.setdefault(each.key, each)
                advance()
        return list(found.values())

    def _result(
        self,
        proof: HeldOut,
        found: Sequence[Candidate],
        measured: Sequence[Measured],
        chosen: int | None,
        target: int,
        notes: dict[str, Any],
    ) -> Correction:
        edits = UnitEdits.ablate({}) if chosen is None else found[chosen].edits
        pictures: dict[str, Any] = {}
        for (before, after), kind in ((("broken", "corrected"), ~proof.fine), (("fine", "kept"), proof.fine)):
            rows = kind.nonzero()[: self.examples, 0]
            if len(rows):
                pictures |= {before: proof.images[rows], after: proof.corrected(edits, rows)}

        def column(name: str) -> tuple[Tensor, Tensor]:
            figures = torch.tensor([getattr(each, name) for each in measured], dtype=torch.double).view(-1, 3)
            return figures[:, 0], figures[:, 1:]

        rates, falls, collaterals = map(column, ("rate", "fall", "collateral"))
        return Correction(
            edits.layers,
            edits.units,
            edits.factors,
            condition={"target": target, "above": self.above} if self.conditional else None,
            notes=notes,
            defects=torch.zeros(0).double() if chosen is None else found[chosen].defects,
            strategy=self.strategy,
            tried=tuple(tuple(dict.fromkeys(each.edits.layers)) for each in found),
            numbers=torch.tensor([len(each.edits) for each in found], dtype=torch.long),
            strengths=torch.tensor([each.strength for each in found], dtype=torch.double),
            rates=rates[0],
            rate_intervals=rates[1],
            falls=falls[0],
            fall_intervals=falls[1],
            probabilities=torch.tensor([each.probability for each in measured], dtype=torch.double),
            collaterals=collaterals[0],
            collateral_intervals=collaterals[1],
            unedited=proof.rate[0],
            unedited_interval=torch.tensor(proof.rate[1:], dtype=torch.double),
            bound=self.bound,
            chosen=chosen,
            selected_by=fingerprint(proof.classifier),
            value_range=proof.value_range,
            **pictures,
        )
