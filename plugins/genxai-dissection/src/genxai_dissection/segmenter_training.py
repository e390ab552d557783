"""Fits a segmenter to images with masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Dataset, Runtime, Samples, Segmenter, Spec, Trained, Trainer, draws, saving
from genxai_core.errors import InputError
from genxai_core.training import Loop

from .degrading import degrade
from .fingerprint import fingerprint

_DEFAULT = Spec("segmenter/unet")
_NAME = "trainer/segmenter"


class SegmenterTrainer(Trainer):
    """Fits a segmenter to images ``[N, C, H, W]`` with masks ``[N, concepts, H, W]`` by Adam.

    The loss is the mean binary cross-entropy of every concept at every pixel plus 1 − D, with the soft Dice coefficient
    D = (2 Σpg + 1) / (Σp + Σg + 1) of probabilities p and masks g, averaged over the concepts. Its sums run over the
    pixels of a whole batch: over single images, of which most lack a concept, it teaches to see none.

    A generator's images are less clean than those that have masks, so training images are made worse on their way:
    colours, contrast, sharpness and noise (see `genxai_dissection.degrading.degrade`). Which images are held out, the
    order of the others and what is done to them depend on the seed only. Each process of several takes an equal share
    of every batch, and D's sums run over its share.

    ``info`` has, of the images that were held out, as they are: ``held_out_iou``, for each concept
    Σ|A∧S| / Σ|A∨S| over all pixels of all images (None where neither has any), its mean over the concepts, and
    ``held_out_pixel_accuracy``, the share of pixels at which every concept is right.

    Parameters
    ----------
    segmenter
        The network; concepts, channels, value range and sizes are the data's.
    steps
        Number of training steps.
    batch
        Images per step, over all processes together.
    lr
        Adam's learning rate at the start; it falls linearly to zero.
    degrade
        How much worse training images are made; 0 leaves them as they are.
    holdout
        Share of the images that is kept out of training, to measure on; 0 keeps none.

    Raises
    ------
    ValueError
        If a number is out of its bounds.
    """

    produces = {"segmenter": "segmenter"}

    def __init__(
        self,
        segmenter: Spec = _DEFAULT,
        steps: int = 1000,
        batch: int = 16,
        lr: float = 5e-3,
        degrade: float = 1.0,
        holdout: float = 0.1,
    ) -> None:
        if steps < 1 or batch < 1 or not lr > 0:
            raise ValueError(f"steps ({steps}), batch ({batch}) and lr ({lr}) must be positive")
        if not 0 <= degrade <= 1:
            raise ValueError(f"degrade {degrade} must be between 0 and 1")
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout {holdout} must be at least 0 and below 1")
        self.segmenter, self.steps, self.batch, self.lr = segmenter, steps, batch, lr
        self.degrade, self.holdout = degrade, holdout

    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        train, held = self._split(len(data), runtime.seed)
        share = runtime.shard(self.batch)
        model = self._build(data).to(runtime.torch_device).train()
        adam = torch.optim.Adam(model.parameters(), lr=self.lr)
        said = [saving.describe(self.segmenter), self.batch, self.lr, self.degrade, self.holdout]
        loop = Loop(
            "segmenter",
            models={"segmenter": model},
            optimizers={"segmenter": adam},
            steps=self.steps,
            runtime=runtime,
            config=[*said, len(data), *data.image_shape, *model.concepts, _content(data, model.concepts)],
        )

        def step(i: int) -> dict[str, Tensor]:
            chosen = draws.batch_indices(runtime.seed, i, self.batch, len(train))[share]
            batch = _masked(data, [train[j] for j in chosen], model.concepts)
            rows = range(i * self.batch, (i + 1) * self.batch)[share]
            batch = degrade(batch, runtime.seed, rows, self.degrade).to(runtime.torch_device)
            adam.param_groups[0]["lr"] = self.lr * (1 - i / self.steps)
            with runtime.autocast():
                logits = model(batch.images)
            masks = _masks(batch).float()
            entropy = F.binary_cross_entropy_with_logits(logits.float(), masks)
            overlap = dice(logits.float().sigmoid(), masks).mean()
            loop.update("segmenter", entropy + 1 - overlap)
            return {"cross_entropy": entropy.detach(), "dice": overlap.detach()}

        history = loop.run(step)
        model.eval()
        info = {"steps": self.steps, "batch": self.batch, "trained_on": len(train), "held_out": len(held)}
        measured = measure(model, data, held, runtime) if held else {}
        return Trained({"segmenter": model.cpu()}, history, {**info, **measured})

    def _split(self, n: int, seed: int) -> tuple[list[int], list[int]]:
        """Rows to train on, and rows held out."""
        order = [int(i) for i in draws.permutation(seed, 0, n, stream="holdout")]
        count = round(n * self.holdout)
        if count == n:
            raise InputError(f"{_NAME}: {n} images with holdout {self.holdout} leave none to train on")
        return order[count:], order[:count]

    def _build(self, data: Samples | Dataset) -> Any:
        first = _masked(data, [0])
        side = min(first.image_shape[1:])
        model: Any = self.segmenter.build(
            concepts=first.concepts,
            channels=first.image_shape[0],
            value_range=first.value_range,
            sizes=(side, side),
        )
        trainable = isinstance(model, nn.Module) and isinstance(model, Segmenter)
        if not trainable:
            raise InputError(f"{_NAME}: {self.segmenter.use} is not a network that can be trained; use segmenter/unet")
        if tuple(model.value_range) != first.value_range:
            raise InputError(
                f"{_NAME}: the images are in {first.value_range}, the network expects {tuple(model.value_range)}; "
                f"leave value_range out, or use samples.rescale({tuple(model.value_range)})"
            )
        return model


def dice(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Return the soft Dice coefficient of each concept over a batch ``[N, concepts, H, W]``, in [0, 1]."""
    both = (probabilities * masks).sum((0, 2, 3))
    return (2 * both + 1) / (probabilities.sum((0, 2, 3)) + masks.sum((0, 2, 3)) + 1)


def measure(segmenter: Segmenter, data: Samples | Dataset, rows: Sequence[int], runtime: Runtime) -> dict[str, object]:
    """Compare a segmenter's masks with exact ones.

    Returns
    -------
    dict
        ``held_out_iou`` by concept, ``held_out_mean_iou`` and ``held_out_pixel_accuracy``.
    """
    both = torch.zeros(len(segmenter.concepts), dtype=torch.long)
    either, right, pixels = torch.zeros_like(both), 0, 0
    for start in range(0, len(rows), runtime.batch_size):
        batch = _masked(data, list(rows[start : start + runtime.batch_size]), segmenter.concepts)
        exact = _masks(batch)
        images = Samples(batch.images.to(runtime.torch_device), value_range=batch.value_range)
        with runtime.autocast():
            found = segmenter.segment(images, runtime).cpu()
        both += (found & exact).sum((0, 2, 3))
        either += (found | exact).sum((0, 2, 3))
        right += int((found == exact).all(1).sum())
        pixels += exact[:, 0].numel()
    iou = {c: int(b) / int(e) if e else None for c, b, e in zip(segmenter.concepts, both, either)}
    known = [value for value in iou.values() if value is not None]
    return {
        "held_out_iou": iou,
        "held_out_mean_iou": sum(known) / len(known) if known else None,
        "held_out_pixel_accuracy": right / pixels,
    }


def _masked(data: Samples | Dataset, rows: list[int], concepts: tuple[str, ...] = ()) -> Samples:
    """Read rows with the masks of some concepts; of all that there are where none is named."""
    samples = data[rows]
    if samples.masks is None or not samples.concepts:
        raise InputError(f"{_NAME} needs masks with the names of their concepts, and these data have none")
    concepts = concepts or samples.concepts
    missing = [c for c in concepts if c not in samples.concepts]
    if missing:
        raise InputError(
            f"{_NAME}: the data have no masks of {', '.join(missing)}, but of {', '.join(samples.concepts)}"
        )
    chosen = [samples.concepts.index(c) for c in concepts]
    return Samples(samples.images, masks=samples.masks[:, chosen], value_range=samples.value_range, concepts=concepts)


def _content(data: Samples | Dataset, concepts: tuple[str, ...]) -> str:
    """Return a hash of up to 64 images from all over the data with their masks, so that a checkpoint knows its data."""
    rows = sorted({i * len(data) // 64 for i in range(64)})
    samples = _masked(data, rows, concepts)
    return fingerprint([samples.images, samples.masks, samples.value_range])


def _masks(samples: Samples) -> Tensor:
    assert samples.masks is not None  # _masked saw to it
    return samples.masks
