"""Fits one density to the images of each class, and joins them to a classifier."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Runtime, Samples, Spec, Trained, Trainer, create, models, saving, storage
from genxai_core.errors import InputError, StorageError

from .generative_classifier import GenerativeClassifier
from .holdout import split

Priors = Literal["data", "equal"]
BY = "trainer/generative-classifier"
_DEFAULT = Spec(
    "trainer/flow",
    {
        "model": Spec("generator/flow", {"transforms": 1, "hidden": 32}),
        "steps": 100,
        "holdout": 0.0,
        "whiten": True,
    },
)


class GenerativeClassifierTrainer(Trainer):
    """Fits a density to the images of each class, by any trainer of one, and joins them to a classifier.

    The classifier is ``discriminator/generative-classifier``. No step of its training compares classes: each density
    sees the images of its own. What `log p(x)` the classifier expects at least, its ``floor``, is the quantile
    ``outliers`` over images that are held out, which are those of ``trainer/classifier`` at the same ``holdout``.

    Parameters
    ----------
    density
        A trainer of one model with ``log_prob``, such as ``trainer/flow`` or ``trainer/vae``. By default a flow that is
        small, since a class has few images, and whitened. What it holds out itself is lost to the class.
    priors
        p(y): ``data``, the shares of the classes among the training images, or ``equal``.
    holdout
        Share of the images that is kept out of training, to measure on; 0 keeps none, and then there is no floor.
    outliers
        Share of the held-out images that the floor leaves below it.

    Raises
    ------
    ValueError
        If a number is out of its bounds, or the density's trainer trains no generator.
    """

    produces = {"classifier": "discriminator"}

    def __init__(
        self, density: Spec = _DEFAULT, priors: Priors = "data", holdout: float = 0.2, outliers: float = 0.01
    ) -> None:
        if priors not in get_args(Priors):
            raise ValueError(f"priors {priors!r} is not one of {', '.join(get_args(Priors))}")
        if not 0 <= holdout < 1 or not 0 <= outliers < 1:
            raise ValueError(f"holdout {holdout} and outliers {outliers} must be at least 0 and below 1")
        if not density.use.startswith("trainer/"):
            raise ValueError(f"density must be a trainer, such as trainer/flow, not {density.use}")
        self.density, self.priors, self.holdout, self.outliers = density, priors, holdout, outliers

    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        train, held = split(len(data), self.holdout, runtime.seed, BY)
        labels, names = _labels(data, runtime)
        rows = [[i for i in train if labels[i] == c] for c in range(len(names))]
        for name, own in zip(names, rows):
            if not own:
                raise InputError(f"{BY}: class {name!r} has no images to train on; give some, or leave the class out")
        fitted = []
        for c, own in enumerate(rows):
            try:
                fitted.append(self._one(_Rows(data, own), runtime, c))
            except InputError as error:
                raise InputError(f"{BY}: class {names[c]!r}: {error}") from error
        classifier: GenerativeClassifier = create(
            "discriminator/generative-classifier",
            densities=[_density(trained, self.density.use) for trained in fitted],
            priors=[float(len(own)) for own in rows] if self.priors == "data" else [],
            class_names=names,
        )
        classifier.to(runtime.torch_device).eval()
        info: dict[str, Any] = {"trained_on": len(train), "held_out": len(held)}
        if held:
            info |= self._measure(classifier, data, held, labels, runtime)
        return Trained({"classifier": classifier.cpu()}, _mean([trained.history for trained in fitted]), info)

    def _one(self, data: Dataset, runtime: Runtime, c: int) -> Trained:
        """Fit the density of a class, or read what an earlier run on the same images has fitted."""
        if runtime.checkpoints is None:
            return self._train(data, runtime)
        config = [saving.describe(self.density), runtime.precision, self.holdout, data.value_range, data.image_shape]
        made_of = storage.digest([c, runtime.seed, *config, _content(data, runtime)])
        folder = Path(runtime.checkpoints) / "generative-classifier" / f"class-{c}"
        # named by its content: the density's own checkpoint knows how many images of which shape, not which they are
        done, begun = folder / "fitted", folder / f"training-{made_of[:12]}"
        trained: Trained | None = saving.load_result(done) if storage.recover(done) else None
        if trained is not None and trained.info.get("made_of") == made_of:
            return trained
        others = [done] if trained is not None else [path for path in folder.glob("training*") if path != begun]
        if others:
            raise StorageError(
                f"{others[0]}: is of another training; delete {folder.parent} or use another checkpoint folder"
            )
        trained = self._train(data, runtime.with_(checkpoints=begun))
        if runtime.is_main:
            saving.save_result(Trained(trained.models, trained.history, {"made_of": made_of}), done)
        return trained

    def _train(self, data: Dataset, runtime: Runtime) -> Trained:
        trained: Trained = self.density.build().fit(data, runtime)
        return trained

    @torch.no_grad()
    def _measure(
        self,
        classifier: GenerativeClassifier,
        data: Samples | Dataset,
        rows: list[int],
        labels: Tensor,
        runtime: Runtime,
    ) -> dict[str, float]:
        """Set the floor by the held-out images, and return the accuracy and the mean log p(x) on them."""
        parts = [
            classifier(data[rows[start : start + runtime.batch_size]].images.to(runtime.torch_device)).cpu()
            for start in range(0, len(rows), runtime.batch_size)
        ]
        logits = torch.cat(parts)
        found = torch.logsumexp(logits, 1)
        classifier.floor.fill_(torch.quantile(found, self.outliers, interpolation="lower"))
        return {
            "held_out_accuracy": float((logits.argmax(1) == labels[rows]).float().mean()),
            "held_out_log_prob": float(found.double().mean()),
            "floor": float(classifier.floor),
        }


class _Rows(Dataset):
    """Some images of a dataset, read when they are wanted."""

    def __init__(self, data: Samples | Dataset, rows: list[int]) -> None:
        self.data, self.rows = data, rows
        self.value_range, self.image_shape = data.value_range, data.image_shape
        self.class_names = tuple(data.class_names)

    def __len__(self) -> int:
        return len(self.rows)

    def _samples(self, rows: list[int]) -> Samples:
        samples = self.data[[self.rows[i] for i in rows]]
        if not bool(torch.isfinite(samples.images).all()):
            raise InputError("the images hold NaN or infinity; remove those")
        return samples


def _content(data: Dataset, runtime: Runtime) -> str:
    """SHA-256 of all images in their order."""
    found = hashlib.sha256()
    for start in range(0, len(data), runtime.batch_size):
        found.update(data[start : start + runtime.batch_size].images.cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()


def _labels(data: Samples | Dataset, runtime: Runtime) -> tuple[Tensor, tuple[str, ...]]:
    """Return each image's label ``[N]``, and what the labels mean."""
    parts = []
    for start in range(0, len(data), runtime.batch_size):
        labels = data[start : start + runtime.batch_size].labels
        if labels is None:
            raise InputError(f"{BY} needs labels, and these data have none; use a labelled dataset")
        parts.append(labels.cpu())
    found = torch.cat(parts)
    low, high = int(found.min()), int(found.max())
    names = tuple(data.class_names) or tuple(str(i) for i in range(high + 1))
    if low < 0 or high >= len(names):
        raise InputError(
            f"{BY}: label {low if low < 0 else high} is none of the classes 0…{len(names) - 1}; correct the labels or "
            f"the data's class_names"
        )
    return found, names


def _density(trained: Trained, use: str) -> nn.Module:
    able = [model for model in trained.models.values() if isinstance(model, models.HasDensity)]
    if len(able) != 1:
        raise InputError(
            f"{BY}: {use} trained {len(able)} models with log_prob, not one; use trainer/flow or trainer/vae"
        )
    return able[0]


def _mean(histories: list[Any]) -> dict[str, list[float]]:
    """Average each series over the classes, step by step, as far as all of them went."""
    names = [name for name in histories[0] if all(name in history for history in histories)]
    return {name: [sum(v) / len(v) for v in zip(*(history[name] for history in histories))] for name in names}
