"""A small convolutional network that is trained, not constructed, and its training from a seed alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Discriminator, draws


class MarkNet(Discriminator):
    """Three convolutions with ReLU to a quarter of the side, the largest of each channel, and a linear layer.

    Parameters
    ----------
    size
        Height and width of the images.
    width
        Channels of the first convolution; the others have twice as many.
    seed
        What the first weights are drawn from: normal, with variance 2 / inputs (He et al., ICCV 2015).
    """

    class_names = ("first mark",)

    def __init__(self, size: int, width: int, seed: int) -> None:
        super().__init__()
        self.image_shape = (3, size, size)
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, device="meta"),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, device="meta"),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, device="meta"),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(2 * width, 1, device="meta")  # on meta, so that the global generator is not touched
        self.to_empty(device="cpu")
        with torch.no_grad():
            for index, weight in enumerate(self.parameters()):
                if weight.ndim == 1:
                    weight.zero_()
                else:
                    drawn = draws.normal(seed, [index], weight.shape, "bench/trained-shortcut.weights")[0]
                    weight.copy_(drawn * math.sqrt(2 / weight[0].numel()))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        logits: Tensor = self.head(self.pool(self.features(images)).flatten(1))
        return logits


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: sums that are split among threads round otherwise, and training makes much of that."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train(model: MarkNet, images: Tensor, chances: Tensor, steps: int, seed: int, batch: int = 64) -> None:
    """Fit the logit to how probable the first mark is said to be, by cross-entropy with Adam, in place.

    Parameters
    ----------
    model
        The network.
    images
        ``[N, 3, H, W]``.
    chances
        ``[N]``: 1, 0, or ½ where there is no telling.
    steps
        How many batches; the learning rate falls from 0.005 to 0 along a cosine.
    seed
        What the order of the images is drawn from.
    batch
        Images in a batch.
    """
    with torch.inference_mode(False), torch.enable_grad():
        model.train()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            rows = draws.batch_indices(seed, step, batch, len(images))
            loss = F.binary_cross_entropy_with_logits(model(images[rows])[:, 0], chances[rows])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    model.zero_grad(set_to_none=True)
    model.eval()
