"""Inception-v3 as an extractor, with weights from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as blocks

from genxai_core import Discriminator, storage
from genxai_core.errors import InputError, StorageError, one_line

SIDE = 299
FID_CLASSES = 1008
"""Outputs of the network of 2015 that the literature's FID is measured with; that of torchvision has 1000."""


class Inception(Discriminator):
    """Inception-v3 (Szegedy et al., CVPR 2016): 2048 features and K logits of images of any size. Downloads nothing.

    The weights decide the network. ``pt_inception-2015-12-05-6726825d.pth``, which pytorch-fid and torch-fidelity use
    (1008 logits), gives the network of the FID literature, whose pooling differs in nine blocks from the one of
    torchvision; any other number of logits gives torchvision's, such as ``inception_v3_google-0cc3c7bd.pth``. Figures
    of the two cannot be compared.

    Images ``[N, 1 or 3, H, W]`` in (-1, 1), gray ones repeated in three channels, are resized to 299×299 bilinearly
    without antialiasing, as pytorch-fid does.

    Parameters
    ----------
    weights
        File with the state dict: safetensors, or what ``torch.save`` wrote.
    bias
        Whether the logits have the last layer's bias. The literature's inception score leaves it out: ``false``.

    Raises
    ------
    StorageError
        If the file is missing, damaged, or holds the weights of something else.
    """

    value_range = (-1.0, 1.0)

    def __init__(self, weights: Path, bias: bool = True) -> None:
        super().__init__()
        state = {k: v for k, v in storage.load_weights(weights).items() if not k.startswith("AuxLogits.")}
        last = state.get("fc.weight")
        if last is None or last.ndim != 2:
            raise StorageError(f"{weights}: not the weights of an Inception-v3: it has no fc.weight [K, 2048]")
        with torch.device("meta"):  # all of it is in the file: draw nothing
            net = _network(len(last))
        try:
            net.load_state_dict(state, assign=True)
        except RuntimeError as error:
            problem = one_line(error)
            short = problem if len(problem) < 300 else problem[:297] + "..."
            raise StorageError(f"{weights}: not the weights of an Inception-v3: {short}") from None
        self.class_names = tuple(str(i) for i in range(len(last)))
        self.head: nn.Linear = net.fc
        net.fc = nn.Identity()
        self.net, self.bias = net, bias
        self.eval()

    def features(self, images: Tensor) -> Tensor:
        """Return ``[N, 2048]``, the last pooled activations.

        Raises
        ------
        InputError
            If the images have neither one channel nor three.
        """
        if images.shape[1] not in (1, 3):
            raise InputError(f"discriminator/inception takes images with 1 or 3 channels, not {images.shape[1]}")
        resized = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
        features: Tensor = self.net(resized.expand(-1, 3, -1, -1))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, K]``."""
        return F.linear(self.features(images), self.head.weight, self.head.bias if self.bias else None)


class _Pooled(nn.Module):
    """Exchanges the pooling of a block's last branch; a mixin before one of torchvision's blocks.

    TensorFlow's average does not count the padding; in the last block the network of 2015 takes the maximum.
    """

    pooling: ClassVar[nn.Module] = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    branch_pool: nn.Module
    _forward: Callable[[Tensor], list[Tensor]]

    def forward(self, x: Tensor) -> Tensor:
        *branches, _ = self._forward(x)
        return torch.cat([*branches, self.branch_pool(self.pooling(x))], 1)


class _A(_Pooled, blocks.InceptionA):  # type: ignore[misc]
    pass


class _C(_Pooled, blocks.InceptionC):  # type: ignore[misc]
    pass


class _E(_Pooled, blocks.InceptionE):  # type: ignore[misc]
    pass


class _LastE(_Pooled, blocks.InceptionE):  # type: ignore[misc]
    pooling = nn.MaxPool2d(3, stride=1, padding=1)


def _network(classes: int) -> Any:
    kinds = None
    if classes == FID_CLASSES:
        kinds = [blocks.BasicConv2d, _A, blocks.InceptionB, _C, blocks.InceptionD, _E, blocks.InceptionAux]
    net = blocks.Inception3(classes, aux_logits=False, inception_blocks=kinds, init_weights=False, dropout=0.0)
    if classes == FID_CLASSES:
        net.Mixed_7c = _LastE(2048)
    return net
