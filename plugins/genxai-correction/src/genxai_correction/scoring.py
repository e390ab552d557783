"""Which units of a generator go with artifacts, and which of these cause them."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from genxai_core import Dataset, Discriminator, Explainer, Runtime, Samples, Spec
from genxai_core.errors import GenxaiWarning, InputError

from . import judging
from .artifact_units import DEFECTS, RATE, ArtifactUnitScores
from .causal import ablation_effects
from .defects import artifact_thresholds, counts_of, forwards, mean_interval
from .layers import default_layers
from .masks import GRADCAM, Masks, artifact_masks, named

STRAYED = 0.05
"""Images that differ from those of their latents by more than this, on average and as a share of the range, are other
images; less may be rounding to bytes."""


class ArtifactUnits(Explainer):
    """Score each unit ``u`` of layers ``[N, U, h, w]`` by how well it goes with what is broken in images, and check it.

    With S_n the mask of broken sample n, and A_(n,u) the pixels in which the unit's activation, upsampled (bilinear,
    ``align_corners=False``), exceeds its threshold, the defective score is

        DS_u = mean over broken n of |A_(n,u) ∧ S_n| / |A_(n,u) ∨ S_n|

    (Tousi et al., "Automatic Correction of Internal Units in Generative Neural Networks", CVPR 2021), 0 for an empty
    union. Thresholds are an exact quantile of the unit's own values over the samples, as in a dissection. Intervals are
    95 % ones over broken samples, mean ± 1.96 s / √N.

    A unit may only coincide with artifacts. So each unit is also switched off, alone, in every broken sample: its
    effect is the mean change of the classifier's P(artifact), with its interval; below 0 it causes. Units that stand in
    for each other show no effect alone.

    ``low-activation`` needs no labels, masks or classifier: the score is 1 − the share of samples in which the unit is
    active anywhere. Choi et al., "Can We Find Neurons that Cause Unrealistic Images in Deep Generative Networks?",
    IJCAI 2022, find that rarely active neurons induce artifacts; they count single positions, here it is channels.

    Broken are samples that are labelled ``artifact``, or else those with P(artifact) above ``above``. ``target`` of
    `explain` is the classifier's artifact class; without it, the class of that name.

    The cost, in images: the samples for thresholds, the samples again for scores, masks of the broken ones, and for
    effects at most units · broken samples.

    Parameters
    ----------
    classifier
        Judges images; one of its classes is the artifact. See trainer/artifact-classifier. None: labels say which are
        broken, and masks are given.
    layers
        Names of layers that return ``[N, U, h, w]`` or ``[N, U]``. None: of each resolution the last leaf module that
        returns maps of it, the picture itself left out.
    masks
        Where broken samples are broken: ``given`` with the samples, or an attribution of the classifier's answer. None:
        the samples' masks, if one is named ``artifact``; else Grad-CAM.
    mask_threshold
        Share of a map's own maximum above which a pixel is in the mask.
    quantile
        Share of a unit's values below its threshold.
    threshold_samples
        How many of the samples the thresholds come from, the first ones. None: all.
    above
        What counts as broken where labels do not say it, in [0, 1).
    causal
        Whether units are switched off. Needs a classifier.
    causal_units
        How many of each layer's best units are switched off. None: all.
    method
        ``defects`` or ``low-activation``.
    examples
        How many broken samples are kept as pictures, the first ones.

    Raises
    ------
    ValueError
        If a number is out of bounds, a layer comes twice, or units are to be switched off without a classifier.
    """

    explains = "HasLatents"
    accepts = "dataset"
    returns = ArtifactUnitScores

    def __init__(
        self,
        classifier: Discriminator | Spec | None = None,
        layers: tuple[str, ...] | None = None,
        masks: Masks | None = None,
        mask_threshold: float = 0.3,
        quantile: float = 0.995,
        threshold_samples: int | None = None,
        above: float = 0.5,
        causal: bool = True,
        causal_units: int | None = None,
        method: Literal["defects", "low-activation"] = "defects",
        examples: int = 8,
    ) -> None:
        if layers is not None and (not layers or len(set(layers)) < len(layers)):
            raise ValueError(f"layers {list(layers)}: name at least one, each once")
        for name, share in (("mask_threshold", mask_threshold), ("above", above)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} {share} must be at least 0 and below 1")
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1, such as 0.995 for the top 0.5 %")
        for name, number in (("threshold_samples", threshold_samples), ("causal_units", causal_units)):
            if number is not None and number < 1:
                raise ValueError(f"{name} {number} must be at least 1")
        if examples < 0:
            raise ValueError(f"examples {examples} cannot be negative")
        if method not in ("defects", "low-activation"):
            raise ValueError(f"method {method!r} is not defects or low-activation")
        if causal and classifier is None and method == "defects":
            raise ValueError("to switch units off, give a classifier that says what it does; or causal: false")
        self.classifier, self.layers, self.masks, self.mask_threshold = classifier, layers, masks, mask_threshold
        self.quantile, self.threshold_samples, self.above = quantile, threshold_samples, above
        self.causal, self.causal_units, self.method, self.examples = causal, causal_units, method, examples

    def _explain(
        self, model: Any, inputs: Any, target: int | None, runtime: Runtime | None = None
    ) -> ArtifactUnitScores:
        runtime = runtime or Runtime()
        samples = self._samples(model, inputs)
        judge = None if self.classifier is None else judging.built(self.classifier)
        return _Work(self, model, samples, judge, target, runtime).result()

    def _samples(self, model: Any, inputs: Samples | Dataset) -> Samples:
        samples = inputs if isinstance(inputs, Samples) else inputs[:]
        if samples.latents is None:
            raise InputError(
                "explainer/artifact-units: these samples have no latents, so their units cannot be seen; sample them "
                "from the generator, such as by dataset/generated"
            )
        if not bool(samples.images.isfinite().all()) or not bool(samples.latents.isfinite().all()):
            raise InputError("explainer/artifact-units: images or latents hold NaN or infinity; remove those samples")
        found, wanted = tuple(samples.latents.shape[1:]), tuple(model.latent_shape)
        if found != wanted:
            raise InputError(f"explainer/artifact-units: latents are {found}, the model takes {wanted}")
        return samples


class _Work:
    """One scoring of one model."""

    def __init__(
        self,
        method: ArtifactUnits,
        model: Any,
        samples: Samples,
        judge: Discriminator | None,
        target: int | None,
        runtime: Runtime,
    ) -> None:
        assert samples.latents is not None
        self.method, self.model, self.samples, self.latents = method, model, samples, samples.latents
        self.judge, self.runtime = judge, runtime
        if judge is None and target is not None:
            raise InputError(f"explainer/artifact-units: target {target} is a class of no classifier; give one")
        if judge is not None:
            judging.speaks_of_artifacts(judge, target)
        self.target = None if judge is None else judging.artifact_class(judge, target)
        self.layers = method.layers or default_layers(model, samples.latents)
        self.defects = method.method == "defects"

    def result(self) -> ArtifactUnitScores:
        method = self.method
        checks = method.causal and self.judge is not None
        broken = torch.zeros(len(self.samples), dtype=torch.bool)
        masks: Tensor | None = None
        if self.defects or checks:
            broken = judging.broken(self.samples, self.judge, self.target, method.above)
            if not bool(broken.any()):
                raise InputError(
                    f"explainer/artifact-units: none of {len(broken)} samples is broken; take more, label some, or "
                    f"lower above ({method.above})"
                )
        rows = broken.nonzero()[:, 0]
        some = self.samples[rows.tolist()]
        if self.defects:
            masks = artifact_masks(
                self._masks(), self.judge, some, self.target, method.mask_threshold, self.runtime
            ).cpu()
            if not bool(masks.any()):
                raise InputError(
                    "explainer/artifact-units: the masks of all broken samples are empty; give others: masks"
                )
        few = self.latents[: method.threshold_samples]
        thresholds = artifact_thresholds(self.model, few, self.layers, self.runtime, method.quantile)
        scores, ends, rates = self._scored(thresholds, broken, masks)
        effects, effect_ends, checked = self._effects(scores, rows) if checks else ({}, {}, {})
        kept = 0 if masks is None else method.examples
        return ArtifactUnitScores(
            {layer: values[:, None] for layer, values in scores.items()},
            thresholds=thresholds,
            concepts=(judging.ARTIFACT,),
            intervals={layer: values[:, None] for layer, values in ends.items()},
            measure=DEFECTS if self.defects else RATE,
            notes=self._notes(broken, masks, len(few)),
            effects=effects,
            effect_intervals=effect_ends,
            checked=checked,
            rates=rates,
            images=some.images[:kept].clone() if kept else None,
            masks=masks[:kept].clone() if masks is not None and kept else None,
            value_range=self.samples.value_range,
        )

    def _masks(self) -> Masks:
        if self.method.masks is not None:
            return self.method.masks
        own = self.samples.masks is not None and judging.ARTIFACT in self.samples.concepts
        return "given" if own else GRADCAM

    def _scored(
        self, thresholds: dict[str, Tensor], broken: Tensor, masks: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Return scores ``[U]``, their intervals ``[U, 2]``, and activation rates ``[U]``, from one forward each."""
        height, width = self.samples.images.shape[2:]
        everywhere = torch.zeros(len(broken), 1, height, width, dtype=torch.bool)
        if masks is not None:
            everywhere[broken] = masks
        ious: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        active: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        strayed = 0.0
        for rows, images, maps in forwards(self.model, self.latents, self.layers, self.runtime, said="scores"):
            strayed += self._strayed(images, rows)
            area = everywhere[rows].flatten(1).sum(1)[:, None]
            for layer, (both, each) in counts_of(maps, everywhere[rows], thresholds).items():
                ious[layer].append((both.double() / (each + area - both).clamp(min=1))[broken[rows]])
                active[layer].append((each > 0).double())
        self._same(strayed / len(broken))
        rates = {layer: torch.cat(parts) for layer, parts in active.items()}
        found = {
            layer: mean_interval(torch.cat(ious[layer]) if self.defects else 1 - rates[layer], 0.0, 1.0)
            for layer in self.layers
        }
        scores, ends = ({layer: pair[k] for layer, pair in found.items()} for k in (0, 1))
        return scores, ends, {layer: values.mean(0) for layer, values in rates.items()}

    def _strayed(self, images: Tensor, rows: slice) -> float:
        """Return how far the samples' images are from those of their latents, in shares of the range, summed."""
        given = self.samples.images[rows]
        if images.shape != given.shape:
            raise InputError(
                f"explainer/artifact-units: the images are {list(given.shape[1:])}, the model makes "
                f"{list(images.shape[1:])} of their latents; give samples of this generator"
            )
        low, high = self.samples.value_range
        return float((images.to(given) - given).abs().mean()) / (high - low) * len(given)

    @staticmethod
    def _same(off: float) -> None:
        """Warn if the generator does not make the samples' images of their latents."""
        if off > STRAYED:
            warnings.warn(
                f"explainer/artifact-units: the model makes other images of the samples' latents (they differ by "
                f"{off:.0%} of the range on average); its units are not those of these images",
                GenxaiWarning,
                stacklevel=2,
            )

    def _effects(
        self, scores: dict[str, Tensor], rows: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Return effects ``[U]``, their intervals ``[U, 2]``, and which units were switched off ``[U]``, by layer."""
        assert self.judge is not None
        assert self.target is not None
        effects, ends, checked = {}, {}, {}
        for layer, values in scores.items():
            best = values.argsort(descending=True, stable=True)[: self.method.causal_units].sort().values
            changes = ablation_effects(
                self.model,
                self.latents[rows.to(self.latents.device)],
                self.judge,
                self.target,
                layer,
                self.runtime,
                units=best.tolist(),
                said=f"effects {layer}",
            )
            effects[layer] = torch.zeros_like(values)
            ends[layer] = torch.zeros(len(values), 2, dtype=values.dtype)
            checked[layer] = torch.zeros(len(values), dtype=torch.bool)
            checked[layer][best] = True
            effects[layer][best], ends[layer][best] = mean_interval(changes.T, -1.0, 1.0)
        return effects, ends, checked

    def _notes(self, broken: Tensor, masks: Tensor | None, few: int) -> dict[str, Any]:
        labelled = judging.labelled_broken(self.samples) is not None
        who = "by their labels" if labelled else f"P(artifact) > {self.method.above}"
        seen = bool(broken.any())
        empty = 0 if masks is None else int((~masks.flatten(1).any(1)).sum())
        return {
            "samples": len(self.samples),
            "broken samples": int(broken.sum()) if seen else "not asked",
            "broken": who if seen else "not asked",
            "masks": "none" if masks is None else named(self._masks()),
            "threshold": f"top {1 - self.method.quantile:.4g} of upsampled values of {few} samples",
            "intervals": "95%, normal, over broken samples" if self.defects else "95%, normal, over samples",
            **({"mask threshold": self.method.mask_threshold} if masks is not None else {}),
            **({"empty masks": f"{empty} of {int(broken.sum())}"} if empty else {}),
        }
