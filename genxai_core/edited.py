"""``generator/edited``: a generator whose units are edited whenever it makes an image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import units
from .adapt.generators import _evaluating
from .adapt.modules import rescale
from .errors import InputError
from .guard import guard
from .models import CanSample, Conditional, Denoises, Discriminator, Generator, HasLatents
from .results import UnitEdits
from .samples import Samples
from .units.editing import built_in

KEPT = ("sample_latents", "encode", "features", "embed_images", "embed_texts")
"""Methods of capabilities that read rather than make images: the base's own, without edits."""

KNOWN = ("latent_shape", "num_classes", "image_shape", "class_names")
"""What is known of a generator and does not change when it is edited."""


_judging = threading.RLock()
"""Two threads must not put one judge in eval mode and back."""


def edited(base: Generator, edits: UnitEdits, judge: Discriminator | None = None) -> Edited:
    """Return a generator that makes images ``[N, C, H, W]`` as another one does, with its units edited.

    It offers what its base offers: images are sampled, made of latents, translated or denoised with the edits; latents
    are drawn, images encoded and embedded without them. Densities are not offered: those of the base would be wrong.

    Parameters
    ----------
    base
        The generator. It is neither copied nor changed.
    edits
        Layers are named as in the base. Under a condition ``{"target": k, "above": p}`` each image is made unedited
        first, and only if the judge's probability for its class k is above p, it is made again with the edits.
    judge
        What the condition asks: the sigmoid of a single logit, which is class 0, else the softmax. It takes images of
        its own ``value_range`` and precision, always in eval mode. Only given where there is a condition.

    Raises
    ------
    ValueError
        If the base has no such layer or unit, a layer takes no part in making an image, locations do not fit, or the
        judge does not fit the condition.
    InputError
        If an argument has another type.
    """
    return Edited(base, edits, judge)


class Edited(Generator):
    """A generator with edits; made by `edited`.

    Attributes
    ----------
    base
        What is edited. Its layers are named ``base.…``; what is recorded of them is edited.
    edits
        What is done.
    judge
        Who says of which images, if there is a condition.
    """

    def __init__(self, base: Generator, edits: UnitEdits, judge: Discriminator | None = None) -> None:
        super().__init__()
        _check_judge(base, edits, judge)
        image = _check_edits(base, edits)
        self.base, self.edits, self.judge = base, edits, judge
        self.value_range = base.value_range
        self.training = base.training
        if judge is not None and image is not None:
            try:
                with guard(judge):
                    self._chosen(image)
            except InputError as error:
                raise ValueError(str(error)) from error
        # A capability is offered by having its methods. What the base lacks must be lacking here, so none of them is a
        # method of this class; and `isinstance` looks for them without __getattr__ from Python 3.12 on.
        offered = {name: getattr(base, name) for name in (*KEPT, *KNOWN) if hasattr(base, name)}
        made: dict[str, Callable[..., Any]] = {"sample": self._sample, "translate": self._translate}
        if edits.condition is None:  # a judge of images has nothing to say of a noise
            made["predict"] = self._predict
        offered |= {name: method for name, method in made.items() if hasattr(base, name)}
        self.__dict__.update(offered)  # where a module called features is not taken for another part of this one

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return images of what the base takes, differentiably; under reentrant checkpointing that is refused."""
        return self._images(lambda: self.base(*inputs, **named))

    def _sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images; image i depends on ``(seed, start + i)`` only."""

        def draw() -> Samples:
            drawn: Samples = self.base.sample(n, seed, labels=labels, start=start)  # type: ignore[operator]
            return drawn

        if self.judge is None:
            with built_in(self.base, self.edits):
                return draw()
        plain = draw()
        with built_in(self.base, self.edits):
            changed = draw()
        rows = [i + n * chosen for i, chosen in enumerate(self._chosen(plain.images).tolist())]
        return Samples.concat([plain, changed])[rows]

    def _translate(self, images: Tensor, target: Tensor) -> Tensor:
        """Return images of the target classes."""
        return self._images(lambda: self.base.translate(images, target))  # type: ignore[operator]

    def _predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction at timesteps t ``[N]``."""
        return self._images(lambda: self.base.predict(x_t, t))  # type: ignore[operator]

    def _images(self, make: Callable[[], Tensor]) -> Tensor:
        if self.judge is None:
            with built_in(self.base, self.edits):
                return make()
        plain = make()
        with built_in(self.base, self.edits):
            changed = make()
        return torch.where(self._chosen(plain)[:, None, None, None], changed, plain)

    @torch.no_grad()
    def _chosen(self, images: Tensor) -> Tensor:
        """Return bool ``[N]``: the images that the judge gives more than the condition asks for."""
        judge, condition = self.judge, self.edits.condition
        if judge is None or condition is None:
            raise InputError("generator/edited: edits under a condition need a judge")
        like = next((p for p in judge.parameters() if p.is_floating_point()), images)
        with _judging, _evaluating(judge):
            logits = judge(rescale(images, self.value_range, judge.value_range).to(like.dtype))
        if logits.ndim != 2 or not condition["target"] < logits.shape[1]:
            raise InputError(
                f"generator/edited: the judge returns {list(logits.shape)}, not logits [N, K] with a class "
                f"{condition['target']} (a single logit is class 0)"
            )
        probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
        chosen: Tensor = probabilities[:, condition["target"]] > condition["above"]
        return chosen

    def extra_repr(self) -> str:
        """Say how many edits there are."""
        return f"{len(self.edits)} edits"


def _check_judge(base: Generator, edits: UnitEdits, judge: Discriminator | None) -> None:
    if not isinstance(base, Generator):
        raise InputError(f"base is a {type(base).__name__}, not a Generator; wrap it: genxai_core.adapt.generator(…)")
    if not isinstance(edits, UnitEdits):
        raise InputError(f"edits are a {type(edits).__name__}, not UnitEdits; see UnitEdits.ablate({{layer: units}})")
    if judge is not None and not isinstance(judge, Discriminator):
        raise InputError(
            f"judge is a {type(judge).__name__}, not a Discriminator; wrap it: genxai_core.adapt.discriminator(…)"
        )
    if (edits.condition is None) != (judge is None):
        if judge is None:
            raise ValueError(f"these edits are under the condition {dict(edits.condition or {})}, so give a judge")
        raise ValueError("these edits are under no condition, so a judge would not be asked; leave it out")
    if judge is None or edits.condition is None:
        return
    target, names = edits.condition["target"], judge.class_names
    if target >= len(names):
        raise ValueError(f"the condition is about class {target}; the judge's classes are 0…{len(names) - 1}: {names}")
    shapes = [getattr(model, "image_shape", None) for model in (base, judge)]
    if None not in shapes and tuple(shapes[0]) != tuple(shapes[1]):  # type: ignore[arg-type]
        raise ValueError(f"the judge takes images {tuple(shapes[1])}, the base makes {tuple(shapes[0])}")  # type: ignore[arg-type]


def _check_edits(base: Generator, edits: UnitEdits) -> Tensor | None:
    """Make one image with the edits, so that what does not fit is told at once. The base is left as it was."""
    layers = edits.by_layer()
    try:
        with guard(base), torch.no_grad(), units.record(base, layers, detach=True) as seen, built_in(base, edits):
            every, image = _make_one(base)
    except InputError as error:
        raise ValueError(str(error)) from error
    idle = [layer for layer in layers if layer not in seen]
    if every and idle:
        raise ValueError(f"layer {idle[0]!r} takes no part when {type(base).__name__} makes an image; edit another")
    return image


def _make_one(base: Any) -> tuple[bool, Tensor | None]:
    """Run a generator once; return whether each layer that makes images has run then, and an image, if there is one."""
    like = next((p for p in base.parameters() if p.is_floating_point()), torch.empty(0))
    if isinstance(base, Denoises) and getattr(base, "image_shape", None) is not None:
        noise = like.new_zeros(1, *base.image_shape)  # type: ignore[attr-defined]
        base.predict(noise, like.new_zeros(1).long())
        return True, noise
    if isinstance(base, Conditional):  # other classes may use other layers
        labels = torch.zeros(1, dtype=torch.long)
        return False, base.sample(1, 0, labels=labels).images if isinstance(base, CanSample) else None
    if isinstance(base, HasLatents):
        return True, base(base.sample_latents(1, 0).to(like))  # type: ignore[operator]
    if isinstance(base, CanSample):
        return True, base.sample(1, 0).images
    return False, None
