"""The classifiers of torchvision, by name, as discriminators."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from genxai_core import Discriminator, storage
from genxai_core.adapt.modules import View
from genxai_core.errors import InputError, StorageError

from .local_folder import brief, needs

NAME = "discriminator/torchvision"

SIZED = {"vit_": "image_size", "maxvit_": "input_size"}
"""Architectures that are built for one size, and the parameter by which torchvision takes it."""

REFUSED = {
    "googlenet": "it has auxiliary heads",
    "inception_v3": "it has auxiliary heads; use discriminator/inception",
    "mnasnet": "its weights cannot be read without a version number that files do not keep",
    "squeezenet": "its last layer is no linear one, so there is no feature vector before it",
}

OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
"""``denselayer1.norm.1.weight`` of torchvision's own files is ``denselayer1.norm1.weight`` today."""


class TorchvisionClassifier(Discriminator):
    """Images ``[N, 1 or 3, H, W]`` in ``value_range`` to logits ``[N, num_classes]`` of a classifier of torchvision.

    Gray images are repeated in three channels; the mapping to (0, 1) and the normalisation happen inside. The layers
    have torchvision's names behind ``module.``; only the last linear layer stands apart, as ``head``, and what enters
    it are the features. Activations that would overwrite their input do not, so that a recorded layer is what it was.
    In eval mode there are neither batch statistics nor dropout. Nothing is downloaded.

    Parameters
    ----------
    architecture
        torchvision's name for it: ``resnet18``, ``vgg16``, ``mobilenet_v3_small``, ``efficientnet_b0``,
        ``densenet121``, ``convnext_tiny``, ``vit_b_16`` …
    num_classes
        Number of logits; 1000 are ImageNet's.
    weights
        Local file with the state dict: safetensors, or what ``torch.save`` wrote. None draws first weights, to train.
    class_names
        What the logits mean; default: their numbers.
    size
        Height and width of the images where it is to be fixed. Vision transformers are built for one size: 224 if it
        is not given.
    channels
        1 for gray, 3 for colour; matters where the size is fixed.
    value_range
        Smallest and largest pixel value.
    mean, std
        Of the pixels in (0, 1), per channel, that the weights were trained on; ImageNet's by default.

    Raises
    ------
    NotInstalled
        If torchvision is not installed.
    ValueError
        If there is no such classifier, it is one that cannot be adapted, or a number is out of its bounds.
    StorageError
        If the file is missing, damaged, or does not fit the architecture.
    """

    def __init__(
        self,
        architecture: str,
        num_classes: int = 1000,
        weights: Path | None = None,
        class_names: tuple[str, ...] = (),
        size: int | None = None,
        channels: int = 3,
        value_range: tuple[float, float] = (-1.0, 1.0),
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        if num_classes < 2 or (size is not None and size < 1) or channels not in (1, 3):
            raise ValueError(
                f"num_classes {num_classes}, size {size}, channels {channels}: they must be at least 2, at least 1, "
                f"and 1 or 3"
            )
        if class_names and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class_names for {num_classes} classes; give one per class, or none")
        sized = next((parameter for name, parameter in SIZED.items() if architecture.startswith(name)), None)
        size = size or (224 if sized else None)
        net = _network(
            architecture, num_classes, {sized: (size, size) if sized == "input_size" else size} if sized else {}
        )
        path, head = [(name, part) for name, part in net.named_modules() if not list(part.children())][-1]
        if not isinstance(head, nn.Linear):  # no classifier of torchvision 0.29 gets here
            raise ValueError(  # noqa: TRY004 - it is the name that is wrong
                f"architecture {architecture!r} cannot be adapted: it does not end in a linear layer"
            )
        if weights is not None:
            _load(net, weights, architecture, f"{path}.weight", num_classes)
        parent, _, name = path.rpartition(".")
        setattr(net.get_submodule(parent), name, nn.Identity())
        for part in net.modules():
            if getattr(part, "inplace", False):
                part.inplace = False  # type: ignore[assignment]
        self.module, self.head = net, head
        self.view = View.of(value_range, (0.0, 1.0), 3, (mean, std))
        self.value_range = self.view.value_range
        self.class_names = tuple(class_names) or tuple(str(i) for i in range(num_classes))
        self.image_shape = (channels, size, size) if size else None

    def features(self, images: Tensor) -> Tensor:
        """Return ``[N, F]``, what enters the last linear layer.

        Raises
        ------
        InputError
            If the images have another shape, or neither one channel nor three.
        """
        if self.image_shape and images.shape[1:] != self.image_shape:
            raise InputError(f"{NAME} takes images {['N', *self.image_shape]}, not {list(images.shape)}")
        found: Tensor = self.module(self.view(images))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _network(architecture: str, num_classes: int, options: dict[str, object]) -> nn.Module:
    """Build a classifier of torchvision without weights, from torch's global generator."""
    with needs("torchvision", NAME):
        from torchvision import models
    refused = next((why for name, why in REFUSED.items() if architecture.startswith(name)), None)
    if refused:
        raise ValueError(f"architecture {architecture!r} cannot be adapted: {refused}")
    known = models.list_models(module=models)
    if architecture not in known:
        offered = [name for name in known if not name.startswith(tuple(REFUSED))]
        raise ValueError(f"architecture {architecture!r} is no classifier of torchvision; one of {', '.join(offered)}")
    try:
        net: nn.Module = models.get_model(architecture, weights=None, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:  # a size that its patches or windows do not divide
        raise ValueError(f"{architecture} cannot be built with {options}: {brief(error)}") from error
    return net


def _load(net: nn.Module, weights: Path, architecture: str, last: str, num_classes: int) -> None:
    state: dict[str, torch.Tensor] = storage.load_weights(weights)
    if architecture.startswith("densenet"):
        state = {OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    if last in state and len(state[last]) != num_classes:
        raise StorageError(
            f"{weights}: has {len(state[last])} classes, num_classes says {num_classes}; make them equal"
        )
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise StorageError(f"{weights}: not the weights of a {architecture}: {brief(error)}") from None
