"""Fits a judge of broken images to few labels, of which still fewer are of broken ones."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Dataset, Discriminator, Runtime, Samples, Spec, Trained, Trainer, draws, saving
from genxai_core.errors import InputError
from genxai_core.training import Loop

from . import judging, reliability

NAME = "trainer/artifact-classifier"
_DEFAULT = Spec("discriminator/classifier")

_LEAST = 2
"""Images of each class that are held out, and that are trained on, at least."""


class ArtifactClassifierTrainer(Trainer):
    """Fits a classifier to images with labels of which one is ``artifact``, and says how far to trust it.

    The data are what ``dataset/artifact-labels`` gives, or any labelled images ``[N, C, H, W]`` with a class of that
    name, such as a folder with the subfolders ``artifact`` and ``normal``. Trained by Adam on cross-entropy in which
    image i of class c counts N/(K·N_c), over N images of K classes: so each class weighs the same, however few images
    it has. Which images are held out (of each class the share ``holdout``, at least two), the order of the others and
    which are mirrored depend on the seed only. Each process of several takes an equal share of every batch.

    ``info`` states its reliability on the images that were held out: accuracy, balanced accuracy, and the AUC of
    P(artifact) with its 95 % interval (see `genxai_correction.reliability`), in numbers and in words. **It is that of
    the labels**: where these come from a score, it says how well the classifier repeats the score, and nothing of what
    a person would say. A judge that is to prove a correction must be trained on other labels, images and another seed
    than the one by which the correction was found.

    Parameters
    ----------
    model
        The classifier: any discriminator that takes ``class_names``.
    steps
        Number of training steps.
    batch
        Images per step, over all processes together.
    lr
        Adam's learning rate at the start; it falls linearly to zero.
    flip
        Whether half of the training images, another half each time, are mirrored left to right. Leave it out where
        left and right differ in meaning, as in writing.
    holdout
        Share of each class that is kept out of training, to measure on.

    Raises
    ------
    ValueError
        If a number is out of its bounds.
    """

    produces = {"classifier": "discriminator"}

    def __init__(
        self,
        model: Spec = _DEFAULT,
        steps: int = 200,
        batch: int = 64,
        lr: float = 2e-3,
        flip: bool = True,
        holdout: float = 0.25,
    ) -> None:
        if steps < 1 or batch < 1 or not lr > 0:
            raise ValueError(f"steps ({steps}), batch ({batch}) and lr ({lr}) must be positive")
        if not 0 < holdout < 1:
            raise ValueError(f"holdout {holdout} must be between 0 and 1: the judge's reliability is measured on it")
        self.model, self.steps, self.batch, self.lr, self.flip, self.holdout = model, steps, batch, lr, flip, holdout

    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        names = tuple(data.class_names)
        if judging.ARTIFACT not in names or len(names) < 2:
            raise InputError(
                f"{NAME} needs a class {judging.ARTIFACT!r} and another one, and the classes of these images are "
                f"{', '.join(names) or 'not known'}; label them with dataset/artifact-labels"
            )
        if len(set(names)) < len(names):
            raise InputError(f"{NAME}: a class comes twice in {', '.join(names)}; name each class once")
        labels, content = _survey(data, len(names), runtime)
        train, held = _split(labels, names, self.holdout, runtime.seed)
        share = runtime.shard(self.batch)
        model = self._build(data).to(runtime.torch_device).train()
        counts = labels[train].bincount(minlength=len(names))
        weights = (len(train) / (len(names) * counts)).float().to(runtime.torch_device)
        adam = torch.optim.Adam(model.parameters(), lr=self.lr)
        said = [saving.describe(self.model), self.batch, self.lr, self.flip, self.holdout]
        loop = Loop(
            "artifact-classifier",
            models={"classifier": model},
            optimizers={"classifier": adam},
            steps=self.steps,
            runtime=runtime,
            config=[*said, names, content],
        )

        def step(i: int) -> dict[str, Tensor]:
            chosen = draws.batch_indices(runtime.seed, i, self.batch, len(train))[share]
            images = self._mirrored(data[[train[j] for j in chosen]].images, i, runtime)
            target = labels[[train[j] for j in chosen]].to(runtime.torch_device)
            adam.param_groups[0]["lr"] = self.lr * (1 - i / self.steps)
            with runtime.autocast():
                logits = model(images.to(runtime.torch_device))
            each = F.cross_entropy(logits.float(), target, reduction="none")
            loss = (weights[target] * each).mean()  # not over the sum of the batch's weights, which would undo them
            loop.update("classifier", loss)
            return {"loss": loss.detach(), "accuracy": (logits.argmax(1) == target).float().mean()}

        history = loop.run(step)
        model.eval()
        info: dict[str, Any] = {
            "steps": self.steps,
            "batch": self.batch,
            "labels": {name: int(n) for name, n in zip(names, labels.bincount(minlength=len(names)))},
            "trained_on": len(train),
            "held_out": len(held),
        }
        return Trained({"classifier": model.cpu()}, history, {**info, **_measure(model, data, labels, held, runtime)})

    def _mirrored(self, images: Tensor, step: int, runtime: Runtime) -> Tensor:
        """Mirror half of a batch, as its images' places in the training decide."""
        if not self.flip:
            return images
        places = range(step * self.batch, (step + 1) * self.batch)[runtime.shard(self.batch)]
        flipped = draws.uniform(runtime.seed, places, (), stream="artifact-flip") < 0.5
        return torch.where(flipped[:, None, None, None].to(images.device), images.flip(3), images)

    def _build(self, data: Samples | Dataset) -> Discriminator:
        channels, height, width = data.image_shape
        if height != width:
            raise InputError(f"{NAME} takes square images, not {height}×{width}; crop or resize them")
        names = tuple(data.class_names)
        model = self.model.build(size=height, channels=channels, num_classes=len(names), class_names=names)
        if not isinstance(model, Discriminator) or tuple(model.class_names) != names:
            raise InputError(
                f"{NAME}: {self.model.use} is no discriminator of the classes {', '.join(names)}; "
                f"use one that takes class_names, such as discriminator/classifier"
            )
        if tuple(model.value_range) != tuple(data.value_range):
            raise InputError(
                f"{NAME}: the images are in {tuple(data.value_range)}, the model expects {tuple(model.value_range)}; "
                f"use samples.rescale({tuple(model.value_range)})"
            )
        return model


def _survey(data: Samples | Dataset, classes: int, runtime: Runtime) -> tuple[Tensor, str]:
    """Return all labels ``[N]``, and a hash of them and the images, by which a checkpoint knows its data."""
    found, parts = hashlib.sha256(), []
    bottom, top = map(float, data.value_range)
    slack = (top - bottom) / 2
    for start in range(0, len(data), runtime.batch_size):
        samples = data[start : start + runtime.batch_size]
        if samples.labels is None:
            raise InputError(f"{NAME} needs labels, and these images have none; see dataset/artifact-labels")
        images = samples.images
        if not bool(torch.isfinite(images).all()):
            raise InputError(f"{NAME}: the images hold NaN or infinity; remove those")
        if float(images.min()) < bottom - slack or float(images.max()) > top + slack:
            raise InputError(f"{NAME}: pixels lie far outside {(bottom, top)}; rescale the images")
        parts.append(samples.labels.cpu().long())
        for tensor in (images.cpu().float(), parts[-1]):
            found.update(tensor.contiguous().numpy().tobytes())
    labels = torch.cat(parts)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise InputError(f"{NAME}: label {wrong} is none of the classes 0…{classes - 1}; correct labels or class_names")
    return labels, found.hexdigest()


def _split(labels: Tensor, names: tuple[str, ...], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the rows to train on and those held out, the same share of each class."""
    train: list[int] = []
    held: list[int] = []
    for k, name in enumerate(names):
        rows = (labels == k).nonzero().flatten().tolist()
        count = max(_LEAST, round(len(rows) * share))
        if len(rows) - count < _LEAST:
            raise InputError(
                f"{NAME}: {len(rows)} images are labelled {name!r}: too few to hold out {count} and train on "
                f"{_LEAST} or more; label more, or lower holdout"
            )
        order = draws.permutation(seed, k, len(rows), stream="artifact-holdout").tolist()
        held += [rows[i] for i in order[:count]]
        train += [rows[i] for i in order[count:]]
    return sorted(train), sorted(held)


@torch.no_grad()
def _measure(
    model: Discriminator, data: Samples | Dataset, labels: Tensor, rows: list[int], runtime: Runtime
) -> dict[str, Any]:
    """Measure the judge on the rows that were held out."""
    parts = []
    for start in range(0, len(rows), runtime.batch_size):
        images = data[rows[start : start + runtime.batch_size]].images.to(runtime.torch_device)
        with runtime.autocast():
            parts.append(model(images).double().cpu())
    logits = torch.cat(parts)
    if not bool(torch.isfinite(logits).all()):
        raise InputError(f"{NAME}: the classifier returns NaN or infinity for images that were held out; check those")
    artifact = judging.artifact_class(model)
    scores = logits.softmax(1)[:, artifact]
    return reliability.figures(scores, logits.argmax(1), labels[rows], model.class_names, artifact)
