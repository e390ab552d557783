"""Who says of which class an image is while a generator learns: the discriminator's head, or a frozen classifier."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Discriminator, Samples, draws, saving
from genxai_core.adapt.modules import rescale
from genxai_core.errors import InputError

ValueRange = tuple[float, float]


class Judge(ABC):
    """Gives the class logits of a training, and the discriminator's source logits beside them.

    Images are ``[N, C, H, W]`` in the generator's range, classes ``[N]``, source logits ``[N, 1]``.
    """

    num_classes: int
    class_names: tuple[str, ...]
    value_range: ValueRange = (-1.0, 1.0)
    """The generator's."""

    @abstractmethod
    def labels(self, batch: Samples, images: Tensor) -> Tensor:
        """Return the classes that real images are of."""

    @abstractmethod
    def sees(self, discriminator: nn.Module, images: Tensor) -> Tensor:
        """Return class logits ``[N, K]``."""

    @abstractmethod
    def source(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return source logits."""

    @abstractmethod
    def on_real(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return source logits, and the class loss that the discriminator minimises beside; None where it has none."""

    @abstractmethod
    def on_generated(
        self, discriminator: nn.Module, images: Tensor, target: Tensor, rows: range
    ) -> tuple[Tensor, Tensor]:
        """Return source logits, and the generator's class loss; ``rows`` number the images over the whole training."""


class OwnHead(Judge):
    """StarGAN: the class head of the discriminator, which learns the labels of real images.

    Parameters
    ----------
    class_names
        One per class.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names, self.num_classes = class_names, len(class_names)

    def labels(self, batch: Samples, images: Tensor) -> Tensor:
        """Return the labels.

        Raises
        ------
        InputError
            If there are none, or one is none of the classes.
        """
        if batch.labels is None:
            raise InputError("trainer/stargan needs labels, and these data have none; use a labelled dataset")
        low, high = int(batch.labels.min()), int(batch.labels.max())
        if low < 0 or high >= self.num_classes:
            raise InputError(f"trainer/stargan: label {low if low < 0 else high} is none of 0…{self.num_classes - 1}")
        return batch.labels.to(images.device)

    def sees(self, discriminator: nn.Module, images: Tensor) -> Tensor:
        """Return what the class head says."""
        return heads(discriminator, images)[1]

    def source(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return what the source head says, whatever the label."""
        return heads(discriminator, images)[0]

    def on_real(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return both heads' part, of one pass."""
        source, classes = heads(discriminator, images)
        return source, F.cross_entropy(classes, labels)

    def on_generated(
        self, discriminator: nn.Module, images: Tensor, target: Tensor, rows: range
    ) -> tuple[Tensor, Tensor]:
        """Return both heads' part, of one pass."""
        source, classes = heads(discriminator, images)
        return source, F.cross_entropy(classes, target)


class Frozen(Judge):
    """GANMEX: the classifier that is to be explained, which nothing here changes.

    Parameters
    ----------
    classifier
        In eval mode with ``requires_grad`` off; whoever calls guards it. One logit makes two classes.
    matched
        Whether the source is judged together with the class: s(x) + c_t(x) of the discriminator's two heads.
    shift, noise, seed
        Of the moved and noisy copy on which the class loss is taken, too; none where both are 0.
    """

    def __init__(
        self,
        classifier: Discriminator,
        *,
        matched: bool = False,
        shift: int = 0,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.classifier = classifier
        self.matched, self.shift, self.noise, self.seed = matched, shift, noise, seed
        self.class_names = two_names(tuple(classifier.class_names))
        self.num_classes = len(self.class_names)

    def labels(self, batch: Samples, images: Tensor) -> Tensor:
        """Return the classes that the classifier sees: it is what is explained, be it right or wrong."""
        with torch.no_grad():
            return self.classes_of(images).argmax(1)

    def sees(self, discriminator: nn.Module, images: Tensor) -> Tensor:
        """Return what the classifier says."""
        return self.classes_of(images)

    def classes_of(self, images: Tensor) -> Tensor:
        """Return the classifier's logits ``[N, K]``.

        Raises
        ------
        InputError
            If they are not one per class name.
        """
        logits = self.classifier(rescale(images, self.value_range, self.classifier.value_range))
        found = two_columns(logits.float())
        if found.shape != (len(images), self.num_classes):
            raise InputError(
                f"the classifier {saving.name_of(self.classifier)} returns {list(logits.shape)} for "
                f"{len(images)} images, and has {self.num_classes} classes; adapt it by genxai_core.adapt.discriminator"
            )
        return found

    def source(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the source logit, of the class too where the two are judged together."""
        if self.matched:
            source, classes = heads(discriminator, images)
            return source + classes.gather(1, labels[:, None])
        return one_logit(discriminator, images)

    def on_real(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return source logits; the classifier learns nothing."""
        return self.source(discriminator, images, labels), None

    def on_generated(
        self, discriminator: nn.Module, images: Tensor, target: Tensor, rows: range
    ) -> tuple[Tensor, Tensor]:
        """Return source logits, and the cross-entropy of the images, averaged with that of the copies if there are."""
        loss = F.cross_entropy(self.classes_of(images), target)
        if self.shift or self.noise:
            copies = moved(images, self.shift, self.noise, self.seed, rows, self.value_range)
            loss = (loss + F.cross_entropy(self.classes_of(copies), target)) / 2
        return self.source(discriminator, images, target), loss


def moved(images: Tensor, shift: int, noise: float, seed: int, rows: range, value_range: ValueRange) -> Tensor:
    """Return copies moved by up to ``shift`` pixels, borders repeated, with noise of ``noise`` times the range added.

    What an image gets depends on the seed and its row only.
    """
    if shift:
        n, _, height, width = images.shape
        by = torch.stack(
            [draws.integers(seed, rows, 2 * shift + 1, f"shift of {axis}") - shift for axis in ("rows", "columns")]
        ).to(images.device)
        y = (torch.arange(height, device=images.device) + by[0][:, None]).clamp(0, height - 1)
        x = (torch.arange(width, device=images.device) + by[1][:, None]).clamp(0, width - 1)
        at = torch.arange(n, device=images.device)[:, None, None]
        images = images.movedim(1, -1)[at, y[:, :, None], x[:, None, :]].movedim(-1, 1)
    if noise:
        drawn = draws.normal(seed, rows, images.shape[1:], "noise").to(images)
        images = images + noise * (value_range[1] - value_range[0]) * drawn
    return images


def two_columns(logits: Tensor) -> Tensor:
    """Return logits ``[N, K]``, a single one as ``[N, 2]``: 0 for class 0 and itself for class 1."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.ndim == 2 and logits.shape[1] == 1 else logits


def two_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return class names, a single one with its opposite before it."""
    return (f"not {names[0]}", names[0]) if len(names) == 1 else names


def one_logit(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Return source logits ``[N, 1]`` in float32.

    Raises
    ------
    InputError
        If there is not one per image.
    """
    logits: Tensor = discriminator(images)
    if logits.shape != (len(images), 1):
        raise InputError(
            f"adversarial training needs one logit per image, [{len(images)}, 1], and {saving.name_of(discriminator)} "
            f"gives {list(logits.shape)}; reduce it with genxai_core.adapt.discriminator"
        )
    return logits.float()


def heads(discriminator: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of both heads, ``[N, 1]`` and ``[N, K]``, in float32."""
    both: Any = discriminator
    source, classes = both.heads(images)
    return source.float(), classes.float()


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of a model's parameters and buffers: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):  # a module's own extra state
            found.update(f"{name} {value!r}".encode())
            continue
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
