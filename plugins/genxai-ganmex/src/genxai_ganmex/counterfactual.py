"""`explainer/counterfactual`: images of another class, made in several ways, and what is wrong with each."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from genxai_core import Counterfactual, Dataset, Discriminator, Explainer, ImageScores, Runtime, Samples, Spec, saving
from genxai_core.adapt.modules import rescale
from genxai_core.errors import GenxaiWarning, InputError
from genxai_core.guard import guard

from .classes import best_other, count, lead, seen
from .makers import BY, ClassMean, Known, Latent, Least, Maker, Name, Nearest, Translated, Wish, nearest
from .realism import Realism

ALREADY = "is the target already"
COLLAPSED = "no visible change"
INVISIBLE = "flips without a visible change"
DECEIVED = "flips this classifier only"
NOT_FLIPPED = "no flip"

_NEEDS = {"ganmex": "generator", "vae": "generator", "mdts": "data", "class-mean": "data"}
_ADVICE = {
    "ganmex": ": a model with translate(images, target), such as trainer/ganmex makes",
    "vae": ": a model with an encoder, such as trainer/vae makes",
    "mdts": ": labelled images, such as the training set",
    "class-mean": ": labelled images, such as the training set",
}


class Counterfactuals(Explainer):
    """Images x̃ = B_t(x) ``[N, C, H, W]`` near images x of the same shape, which the classifier takes for a class t.

    What is wanted is argmin_x̃ |x − x̃| − log R(x̃) − log S_t(x̃): near, realistic, of the target class; R is the odds
    of being real, S_t the classifier's probability. Nothing but the paper's generator is trained for all three, and the
    others are here to compare:

    - ``gradient``: the least change of pixels, by the classifier's gradient, without realism or with it (``realism``,
      ``realism_weight``). Exact for classifiers linear in the pixels; of deep ones it is adversarial: it convinces and
      looks like nothing.
    - ``ganmex``: one pass of a ``generator`` with ``translate(images, target)``, of `trainer/ganmex`.
    - ``mdts``: the nearest image of the class among labelled ``data`` (minimum distance training sample).
    - ``class-mean``: the mean of that class's ``data``.
    - ``vae``: the least change of a latent of a ``generator`` with an encoder.

    The result has validity (S_t before and after), distances, sparsity and realism of each, and says what failed:
    *no flip*; *no visible change*, where there is no flip either (a collapse to the identity); *flips without a visible
    change*, and *flips this classifier only*, where a ``witness`` sees no target: both adversarial; and *is the target
    already*. The target of `explain` is t; where it is None, each image's is the class of its second largest logit.
    Of a single logit, images of either class are changed to the opposite one.

    As a ``baseline`` of attributions, `baseline` makes the references, for ``toward`` and ``classifier``.

    Parameters
    ----------
    maker
        One of the five.
    generator
        Of ``ganmex`` and ``vae``: a model, or its ``{use: …}``.
    data
        Labelled images of ``mdts`` and ``class-mean``; of the others, what realism is measured by if no model does.
    classifier
        For `baseline` only: the classifier explained.
    toward
        For `baseline` only: the target; None is each image's second class.
    witness
        An independent classifier of the same classes, which no maker uses, to tell who is deceived.
    realism
        A model with ``log_prob(images)``, or a discriminator of a single logit: its value is the result's realism.
        Without one, realism is minus the distance to the nearest of the ``data`` (root mean square, share of the value
        range).
    realism_weight
        λ of ``gradient``: squared pixels per nat. 0 leaves realism out, and measures it only.
    margin
        What log S_t / (1 − S_t) must reach in ``gradient`` and ``vae``; 0 is S_t = ½, of two classes their boundary.
    steps
        Of ``gradient`` and ``vae``, each a forward and a backward pass.
    visible
        What the largest change of a pixel must exceed, as a share of the value range.

    Raises
    ------
    ValueError
        If what a maker needs is missing, what it does not use is given, or a number is out of range.

    References
    ----------
    S.-M. Shih, P.-J. Tien, Z. Karnin, "GANMEX: One-vs-One Attributions using GAN-based Model Explainability", ICML 2021
    (arXiv:2011.06015).
    """

    explains, accepts, returns = "discriminator", "images", Counterfactual

    def __init__(
        self,
        maker: Name = "gradient",
        generator: nn.Module | Spec | None = None,
        data: Samples | Dataset | None = None,
        classifier: Discriminator | Spec | None = None,
        toward: int | None = None,
        witness: Discriminator | Spec | None = None,
        realism: nn.Module | Spec | None = None,
        realism_weight: float = 0.0,
        margin: float = 0.0,
        steps: int = 40,
        visible: float = 0.02,
    ) -> None:
        if maker not in get_args(Name):
            raise ValueError(f"maker {maker!r} is not one of {', '.join(get_args(Name))}")
        given = {"generator": generator, "data": data}
        wanted = _NEEDS.get(maker)
        if wanted and given[wanted] is None:
            raise ValueError(f"maker {maker} needs {wanted}" + _ADVICE[maker])
        if generator is not None and wanted != "generator":
            raise ValueError(f"maker {maker} uses no generator; say maker: ganmex or vae, or leave it out")
        if steps < 1 or margin < 0 or realism_weight < 0 or not 0 <= visible < 1:
            raise ValueError(
                f"steps {steps} must be at least 1, margin {margin} and realism_weight {realism_weight} not negative, "
                f"visible {visible} at least 0 and below 1"
            )
        if realism_weight and (maker != "gradient" or realism is None):
            raise ValueError("realism_weight belongs to maker gradient with a model for realism")
        self.maker: str = maker
        self.toward, self.margin, self.steps, self.visible = toward, margin, steps, visible
        self._own: list[nn.Module] = []
        self.generator, self.classifier = self._built(generator), self._discriminator("classifier", classifier)
        self.witness, self.realism = self._discriminator("witness", witness), self._built(realism)
        self.realism_weight = realism_weight
        self._known = None if data is None else Known(data)
        self._realism = None if self.realism is None else Realism(self.realism)
        self._make = self._chosen()

    # -- for explanations -----------------------------------------------------------------------------------------

    def explain(
        self,
        model: Any = None,
        inputs: Any = None,
        *,
        target: int | Sequence[int] | Tensor | None = None,
        runtime: Runtime | None = None,
    ) -> Counterfactual:
        """Change images until the model takes them for the target; None is each image's second class.

        See `genxai_core.Explainer.explain` for the parameters and errors.
        """
        if target is None and isinstance(model, Discriminator) and len(model.class_names) > 1:
            second = SecondClass()
            saving.stamp(second, saving.name_of(self), {})  # what it refuses, it refuses in this one's name
            target = second.explain(model, inputs, target=0, runtime=runtime).scores.long()
        result: Counterfactual = super().explain(model, inputs, target=target, runtime=runtime)
        return result

    def _explain(self, model: Discriminator, images: Tensor, target: int | None) -> Counterfactual:
        with torch.no_grad():
            before = model(images).float()
        source = seen(before)
        goal = 1 - source if before.shape[1] == 1 else torch.full_like(source, int(target or 0))
        made = self.make(model, images, goal)
        with torch.no_grad():
            after = model(made).float()
        realism, unit = self._measured(made, _range(model))
        notes = {"maker": self.maker}
        if unit:
            notes["realism"] = unit + (", which made them too" if self.realism_weight else "")
        if self.witness is not None:
            notes["witness"] = type(self.witness).__name__
        return Counterfactual(
            images=images,
            counterfactuals=made,
            target=goal,
            source=source,
            logits_before=before,
            logits_after=after,
            realism=realism,
            failures=self.failures(model, images, made, goal),
            value_range=_range(model),
            class_names=tuple(model.class_names) if len(model.class_names) == before.shape[1] else (),
            notes=notes,
        )

    # -- for attributions -----------------------------------------------------------------------------------------

    def baseline(self, images: Tensor) -> Tensor:
        """Return references ``[N, C, H, W]`` for images of the classifier's value range, models left as they were.

        What fails is warned of, since an attribution has no place for it.

        Raises
        ------
        InputError
            If no classifier was given.
        """
        model = self._classifier("baseline")
        self._place(images.device)
        with guard(*self._held()):
            with torch.no_grad():
                logits = model(images)
            if self.toward is None or logits.shape[1] == 1:
                goal = best_other(logits, seen(logits))
            else:
                goal = torch.full((len(images),), self.toward, dtype=torch.long, device=images.device)
            made = self.make(model, images, goal)
            failed = Counter(filter(None, self.failures(model, images, made, goal)))
        if failed:
            told = ", ".join(f"{reason}: {n}" for reason, n in failed.items())
            warnings.warn(f"{BY}: of {len(images)} baselines failed {told}", GenxaiWarning, stacklevel=2)
        return made

    def all_targets(self, images: Tensor) -> Tensor:
        """Return ``[N, K, C, H, W]``: each image as each class of the classifier's, in one pass of all N·K.

        Raises
        ------
        InputError
            If no classifier was given.
        """
        model = self._classifier("all_targets")
        self._place(images.device)
        with guard(*self._held()):
            with torch.no_grad():
                classes = count(model(images[:1]))
            goal = torch.arange(classes, device=images.device).repeat(len(images))
            made = self.make(model, images.repeat_interleave(classes, 0), goal)
        return made.view(len(images), classes, *images.shape[1:])

    def make(self, model: Discriminator, images: Tensor, target: Tensor) -> Tensor:
        """Return counterfactuals ``[N, C, H, W]`` for the classes ``[N]``, detached; models are not guarded.

        Raises
        ------
        InputError
            If a class is out of range for the classifier, or what is made has another shape, or is not finite.
        """
        self._place(images.device)
        with torch.no_grad():
            classes = count(model(images[:1]))
        if len(target) and not 0 <= int(target.min()) <= int(target.max()) < classes:
            raise InputError(f"{BY}: target {int(target.max())} is outside the classes 0…{classes - 1}")
        made: Any = self._make(Wish(images.detach(), target, model, _range(model)))
        if not isinstance(made, Tensor) or made.shape != images.shape:
            shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"{BY}: {self.maker} made {shape} of images {list(images.shape)}")
        if not bool(made.isfinite().all()):
            raise InputError(f"{BY}: {self.maker} made NaN or infinity; check the generator's weights")
        return made.detach().to(images.dtype)

    @torch.no_grad()
    def failures(self, model: Discriminator, images: Tensor, made: Tensor, target: Tensor) -> tuple[str, ...]:
        """Return what is wrong with each counterfactual, ``""`` where nothing is."""
        low, high = _range(model)
        before, after = model(images), model(made)
        flipped, already = lead(after, target) > 0, seen(before) == target
        shown = (made - images).abs().flatten(1).amax(1) > self.visible * (high - low)
        believed = torch.ones_like(flipped)
        if self.witness is not None:
            judged = self.witness(rescale(made, (low, high), _range(self.witness)))
            if judged.shape[1] != after.shape[1]:
                raise InputError(
                    f"{BY}: the witness has {judged.shape[1]} outputs, the model {after.shape[1]}; it must know the "
                    f"same classes"
                )
            believed = lead(judged, target) > 0
        return tuple(_reason(*row) for row in torch.stack([already, flipped, shown, believed], 1).tolist())

    # -- inside ---------------------------------------------------------------------------------------------------

    def _chosen(self) -> Maker:
        if self.maker == "ganmex":
            return Translated(self.generator)
        if self.maker == "vae":
            return Latent(self.generator, self.margin, self.steps)
        if self.maker == "gradient":
            pulled = self._realism if self.realism_weight else None
            return Least(self.margin, self.steps, self.realism_weight, pulled)
        assert self._known is not None  # the constructor checked
        return Nearest(self._known) if self.maker == "mdts" else ClassMean(self._known)

    def _measured(self, made: Tensor, value_range: tuple[float, float]) -> tuple[Tensor | None, str]:
        with torch.no_grad():
            if self._realism is not None:
                return self._realism(made, value_range).float(), self._realism.unit
            if self._known is not None:
                known = self._known.all(made, value_range)
                away = nearest(made, known)[0] / (value_range[1] - value_range[0])
                return -away, "minus the distance to the nearest of the data, as a share of the range"
        return None, ""

    def _built(self, given: nn.Module | Spec | None) -> Any:
        """Return a model; one that is made from its recipe goes where the images are."""
        if not isinstance(given, Spec):
            return given
        with guard():  # building may draw random numbers
            made = given.build()
        if not isinstance(made, nn.Module):
            raise InputError(f"{BY}: {given.use} makes a {type(made).__name__}, not a model")
        self._own.append(made.eval())
        return made

    def _discriminator(self, role: str, given: Discriminator | Spec | None) -> Discriminator | None:
        made = self._built(given)
        if made is None or isinstance(made, Discriminator):
            return made
        raise ValueError(f"{role}: a {type(made).__name__} is no classifier; wrap it: genxai_core.adapt.discriminator")

    def _classifier(self, method: str) -> Discriminator:
        if self.classifier is None:
            raise InputError(f"{BY}: {method}(images) needs the classifier that is explained; give classifier")
        return self.classifier

    def _held(self) -> list[nn.Module]:
        held = [self.generator, self.classifier, self.witness, self.realism]
        return [model for model in held if isinstance(model, nn.Module)]

    def _place(self, device: torch.device) -> None:
        for model in self._own:
            model.to(device)


class SecondClass(Explainer):
    """The class of the second largest logit of images ``[N, C, H, W]``: scores ``[N]`` are class indices."""

    explains, accepts, returns = "discriminator", "images", ImageScores

    def _explain(self, model: Discriminator, images: Tensor, target: int | None) -> ImageScores:
        with torch.no_grad():
            logits = model(images)
        second = best_other(logits, seen(logits)) if logits.shape[1] > 1 else torch.zeros(len(images))
        return ImageScores(second.float(), images, _range(model), {})


def _reason(already: bool, flipped: bool, shown: bool, believed: bool) -> str:
    if already:
        return ALREADY
    if not shown:
        return INVISIBLE if flipped else COLLAPSED
    if not flipped:
        return NOT_FLIPPED
    return "" if believed else DECEIVED


def _range(model: Any) -> tuple[float, float]:
    low, high = model.value_range
    return float(low), float(high)
