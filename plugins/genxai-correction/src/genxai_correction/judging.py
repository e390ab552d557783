"""What a judge of broken images says: which of its classes is the artifact, and how probable that is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genxai_core import Discriminator, Samples, Spec
from genxai_core.adapt.modules import rescale
from genxai_core.errors import InputError
from genxai_core.guard import guard

ARTIFACT = "artifact"
"""The class's name."""

REAL = "real"
"""What the logit of a GAN's discriminator is called, which says the contrary of what an artifact's does."""


def artifact_class(judge: Discriminator, target: int | None = None) -> int:
    """Return the index of the artifact class: the one asked for, the one of that name, or a single logit's 0.

    Raises
    ------
    InputError
        If there is no such class, or which one it is must be said.
    """
    names = tuple(judge.class_names)
    if target is not None:
        if not 0 <= target < len(names):
            raise InputError(f"target {target} is none of the judge's classes 0…{len(names) - 1}: {', '.join(names)}")
        return target
    if ARTIFACT in names:
        return names.index(ARTIFACT)
    if len(names) == 1:
        return 0
    raise InputError(f"none of the judge's classes ({', '.join(names)}) is named {ARTIFACT!r}; say which: target")


def speaks_of_artifacts(judge: Discriminator, target: int | None = None) -> None:
    """Refuse a judge whose one logit is named ``real``, unless it is asked for: a GAN's discriminator.

    Raises
    ------
    InputError
        If it is one.
    """
    if target is None and tuple(judge.class_names) == (REAL,):
        raise InputError(
            f"the judge's only logit is named {REAL!r}, so it is high where nothing is broken; name it {ARTIFACT!r} "
            f"in class_names if it is the artifact's, or use a judge of trainer/artifact-classifier"
        )


def built(judge: Discriminator | Spec) -> Discriminator:
    """Return the judge, in eval mode, made from its recipe if it is one.

    Raises
    ------
    InputError
        If it is no discriminator.
    """
    made: Any = judge.build() if isinstance(judge, Spec) else judge
    if not isinstance(made, Discriminator):
        raise InputError(f"the judge is a {type(made).__name__}, not a Discriminator; see trainer/artifact-classifier")
    return made


@torch.no_grad()
def probabilities(
    judge: Discriminator, images: Tensor, value_range: tuple[float, float], target: int, batch: int = 256
) -> Tensor:
    """Return P(artifact) ``[N]`` float64 on the CPU: the sigmoid of a single logit, else the softmax.

    Parameters
    ----------
    judge
        In eval mode; whoever calls guards it.
    images
        ``[N, C, H, W]`` in ``value_range``, which is brought to the judge's.
    target
        Its artifact class; see `artifact_class`.
    batch
        Images judged at a time.

    Raises
    ------
    InputError
        If the images are not of its size, or it returns no logits of that class, or NaN.
    """
    shape = getattr(judge, "image_shape", None)
    if shape is not None and tuple(images.shape[1:]) != tuple(shape):
        raise InputError(f"the images are {tuple(images.shape[1:])}, the judge takes {tuple(shape)}; use one for them")
    like = next((t for t in (*judge.parameters(), *judge.buffers()) if t.is_floating_point()), images)
    found = []
    low, high = judge.value_range
    for part in torch.split(images, batch):
        logits = judge(rescale(part, value_range, (low, high)).to(like)).float()
        if logits.ndim != 2 or not target < logits.shape[1]:
            raise InputError(f"the judge returns {list(logits.shape)}, not logits [N, K] with a class {target}")
        found.append((logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1))[:, target].double().cpu())
    joined = torch.cat(found) if found else torch.zeros(0, dtype=torch.double)
    if bool(joined.isnan().any()):
        raise InputError("the judge returns NaN; check its weights")
    return joined


def broken(inputs: Samples, classifier: Discriminator | None, target: int | None, above: float = 0.5) -> Tensor:
    """Return which samples are broken, bool ``[N]`` on the CPU.

    Those labelled so, if one of ``class_names`` is ``artifact``, or if labels without names are 0 and 1 (broken). Else
    those that the classifier gives a probability above a limit.

    Parameters
    ----------
    inputs
        Samples.
    classifier
        Asked if labels do not say it. It is left as found.
    target
        Its artifact class; see `artifact_class`.
    above
        The limit.

    Raises
    ------
    InputError
        If there is neither a label nor a classifier that tells.
    """
    labelled = labelled_broken(inputs)
    if labelled is not None:
        return labelled
    if classifier is None:
        said = "have no labels" if inputs.labels is None else f"have labels of which none is {ARTIFACT!r}"
        raise InputError(f"these samples {said}, so a classifier must say which are broken; give one")
    with guard(classifier):
        found = probabilities(classifier, inputs.images, inputs.value_range, artifact_class(classifier, target))
    return found > above


def labelled_broken(inputs: Samples) -> Tensor | None:
    """Return which samples are labelled as broken, bool ``[N]``; None if labels do not say it. See `broken`."""
    labels = None if inputs.labels is None else inputs.labels.cpu()
    if labels is not None and ARTIFACT in inputs.class_names:
        return labels == inputs.class_names.index(ARTIFACT)
    if labels is not None and not inputs.class_names and bool(((labels == 0) | (labels == 1)).all()):
        return labels == 1
    return None
