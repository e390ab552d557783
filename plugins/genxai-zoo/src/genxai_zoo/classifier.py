"""A small convolutional classifier, and the trainer that fits it to labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Dataset, Discriminator, Runtime, Samples, Spec, Trained, Trainer, draws, saving
from genxai_core.errors import InputError
from genxai_core.training import Loop

from .holdout import channels_and_side, split

_DEFAULT = Spec("discriminator/classifier")


class Classifier(Discriminator):
    """Images ``[N, channels, size, size]`` in (-1, 1) to logits ``[N, num_classes]``, with features on the way.

    Strided 3×3 convolutions with group normalisation (Wu and He, ECCV 2018; 8 groups) and ReLU halve the image to 4×4
    or less; a linear layer and a layer norm make the features, a linear layer the logits. There are neither batch
    statistics nor dropout, so a logit depends on its own image only.

    Parameters
    ----------
    size
        Height and width of the images, at least 8.
    channels
        1 for gray, 3 for colour.
    num_classes
        Number of logits, at least 2.
    width
        Units of the first convolution, a multiple of 8; each following one has twice as many, up to four times.
    feature_size
        Numbers in a feature vector, at least 3: the layer norm makes of one always 0, and of two always ±1.
    class_names
        What the logits mean; default: their numbers.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If a number is out of these bounds, or there is not one name per class.
    """

    value_range = (-1.0, 1.0)
    pretrained_folder: ClassVar[Path] = Path(__file__).parent / "pretrained" / "classifier"
    pretrained_free: ClassVar[tuple[str, ...]] = ("class_names",)

    def __init__(
        self,
        size: int,
        channels: int = 1,
        num_classes: int = 10,
        width: int = 32,
        feature_size: int = 64,
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if size < 8 or channels < 1 or num_classes < 2 or feature_size < 3:
            raise ValueError(
                f"size {size}, channels {channels}, num_classes {num_classes}, feature_size {feature_size}: "
                f"they must be at least 8, 1, 2 and 3"
            )
        if width < 8 or width % 8:
            raise ValueError(f"width {width} must be a multiple of 8")
        if class_names and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class_names for {num_classes} classes; give one per class, or none")
        self.class_names = tuple(class_names) or tuple(str(i) for i in range(num_classes))
        self.image_shape = (channels, size, size)
        layers: list[nn.Module] = []
        inside, side = channels, size
        while side > 4:
            outside = width * min(4, 2 ** len(layers))
            layers.append(
                nn.Sequential(nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.GroupNorm(8, outside), nn.ReLU())
            )
            inside, side = outside, (side + 1) // 2
        self.layers = nn.Sequential(*layers)
        self.embed = nn.Linear(inside * side**2, feature_size)
        self.head = nn.Linear(feature_size, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return ``[N, feature_size]``, each row with mean 0 and mean square 1, which keeps kernels on them bounded."""
        embedded = self.embed(self.layers(images).flatten(1))
        return F.layer_norm(embedded, embedded.shape[1:])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]``."""
        logits: Tensor = self.head(self.features(images))
        return logits


class ClassifierTrainer(Trainer):
    """Fits a classifier to labelled images by cross-entropy and Adam, and measures it on images that it never saw.

    Which images are held out and the order of the others depend on the seed only. Each process of several takes an
    equal share of every batch.

    Parameters
    ----------
    model
        The classifier: any discriminator over K classes.
    steps
        Number of training steps.
    batch
        Images per step, over all processes together.
    lr
        Adam's learning rate at the start; it falls linearly to zero.
    holdout
        Share of the images that is kept out of training, to measure the accuracy on; 0 keeps none.

    Raises
    ------
    ValueError
        If a number is out of its bounds.
    """

    produces = {"classifier": "discriminator"}

    def __init__(
        self, model: Spec = _DEFAULT, steps: int = 400, batch: int = 64, lr: float = 2e-3, holdout: float = 0.2
    ) -> None:
        if steps < 1 or batch < 1 or not lr > 0:
            raise ValueError(f"steps ({steps}), batch ({batch}) and lr ({lr}) must be positive")
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout {holdout} must be at least 0 and below 1")
        self.model, self.steps, self.batch, self.lr, self.holdout = model, steps, batch, lr, holdout

    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        train, held = split(len(data), self.holdout, runtime.seed, "trainer/classifier")
        share = runtime.shard(self.batch)
        model = self._build(data).to(runtime.torch_device).train()
        adam = torch.optim.Adam(model.parameters(), lr=self.lr)
        loop = Loop(
            "classifier",
            models={"classifier": model},
            optimizers={"classifier": adam},
            steps=self.steps,
            runtime=runtime,
            config=[saving.describe(self.model), self.batch, self.lr, self.holdout],
            data=data,
        )

        def step(i: int) -> dict[str, Tensor]:
            chosen = draws.batch_indices(runtime.seed, i, self.batch, len(train))[share]
            images, labels = _labelled(data, [train[j] for j in chosen], runtime.torch_device)
            adam.param_groups[0]["lr"] = self.lr * (1 - i / self.steps)
            with runtime.autocast():
                logits = model(images)
            _check_labels(labels, logits.shape[1])
            loss = F.cross_entropy(logits.float(), labels)
            loop.update("classifier", loss)
            return {"loss": loss.detach(), "accuracy": (logits.argmax(1) == labels).float().mean()}

        history = loop.run(step)
        model.eval()
        info: dict[str, float] = {
            "steps": self.steps,
            "batch": self.batch,
            "trained_on": len(train),
            "held_out": len(held),
        }
        if held:
            info["held_out_accuracy"] = _accuracy(model, data, held, runtime)
        return Trained({"classifier": model.cpu()}, history, info)

    def _build(self, data: Samples | Dataset) -> Discriminator:
        """Build the classifier for the images and classes of the data, after checking that they have both."""
        channels, side = channels_and_side(data, "trainer/classifier")
        names = data.class_names
        if not names:
            _, labels = _labelled(data, list(range(len(data))), torch.device("cpu"))
            names = tuple(str(i) for i in range(int(labels.max()) + 1))
        decided = {"size": side, "channels": channels, "num_classes": len(names), "class_names": names}
        model: Discriminator = self.model.build(**decided)
        if tuple(model.value_range) != tuple(data.value_range):
            raise InputError(
                f"trainer/classifier: the images are in {tuple(data.value_range)}, the model expects "
                f"{tuple(model.value_range)}; use samples.rescale({tuple(model.value_range)})"
            )
        return model


def _labelled(data: Samples | Dataset, rows: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    samples = data[rows]
    if samples.labels is None:
        raise InputError("trainer/classifier needs labels, and these data have none; use a labelled dataset")
    return samples.images.to(device), samples.labels.to(device)


def _check_labels(labels: Tensor, classes: int) -> None:
    """Refuse what cross-entropy would ignore (-100), or report as an index out of bounds."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"trainer/classifier: label {low if low < 0 else high} is none of the model's classes 0…{classes - 1}; "
            f"correct the labels, the data's class_names or num_classes"
        )


@torch.no_grad()
def _accuracy(model: Discriminator, data: Samples | Dataset, rows: list[int], runtime: Runtime) -> float:
    """Share of rows whose largest logit is their label's."""
    right = 0
    for start in range(0, len(rows), runtime.batch_size):
        images, labels = _labelled(data, rows[start : start + runtime.batch_size], runtime.torch_device)
        with runtime.autocast():
            right += int((model(images).argmax(1) == labels).sum())
    return right / len(rows)
