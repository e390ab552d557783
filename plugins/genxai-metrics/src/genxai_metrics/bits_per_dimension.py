"""Bits per dimension: how many bits a model's density needs for each number of an image."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Metric, Runtime, Samples, draws, models
from genxai_core.errors import InputError
from genxai_core.guard import guard

from .bootstrap import Estimate

BY = "metric/bits-per-dimension"


@dataclass(frozen=True)
class Space:
    """What a density is one of: of how many numbers, whether the model brings images there, and their levels' width.

    ``step`` is 0 where log p is taken as it is, and ``zero`` is where the lowest level lies.
    """

    dimensions: int
    brought: bool
    levels: int
    step: float
    zero: float


class BitsPerDimension(Metric):
    """``−E[log₂ p(x)] / D`` over real images: bits per dimension, lower is better.

    What D is and what p is a density of, the model states by attributes that it may have:

    - ``native_shape``: the shape of v, what the density is of, so that D is its product; else that of the images;
    - ``to_native(images)`` and ``density(v)``: v, and log p of it; else the images, and ``log_prob``;
    - ``levels``: how many values a number of v has, in which v is counted (0, 1, …);
    - ``likelihood``: ``bernoulli`` where log p is a log probability, which is taken as it is.

    **Quantised images** of a continuous density are dequantised: with u uniform on ±1/2 level of width w,

        bits_per_dimension = −E_x E_u[log₂ p(v + u)] / D − log₂ w,

    which is at least, and for a good model hardly more than, the bits of the best lossless code of the discrete images
    by ∫ p(v + u) du (Theis, van den Oord, Bethge, "A Note on the Evaluation of Generative Models", ICLR 2016). w is 1
    where v is counted in the model's ``levels``, and the value range / (levels − 1) where p is one of pixel values and
    ``levels`` says what the pixels have. Without either, log p is taken as it is: a log probability (a Bernoulli VAE's)
    gives bits; a density of pixel values gives *differential* bits, which may be below 0, and which another unit of the
    pixels shifts. Of a VAE log p is bounded from below, so that its bits are an upper bound.

    Known weaknesses: it says next to nothing of how samples look; and numbers compare only where D, the levels and the
    images are the same: 8 px of digits are another task than their 16 px.

    Each figure has its standard error ``…_se`` and the 95 % bootstrap interval ``…_low`` to ``…_high`` over images.

    Parameters
    ----------
    levels
        How many equally spaced values a pixel has, for densities of pixel values: 256 for files of 8 bits. 0 if they
        are continuous, or the model states its own.
    samples
        Draws of u for each image; they depend on the seed and on the image.

    Raises
    ------
    ValueError
        If a number is out of its bounds.
    """

    needs = frozenset({"real", "model"})
    higher_is_better = {
        "bits_per_dimension": False,
        "bits_per_dimension_se": None,
        "bits_per_dimension_low": None,
        "bits_per_dimension_high": None,
    }

    _kept: list[Tensor]
    _space: Space | None

    def __init__(self, levels: int = 0, samples: int = 8) -> None:
        if levels < 0 or levels == 1 or samples < 1:
            raise ValueError(f"levels {levels} must be 0 or at least 2, and samples {samples} at least 1")
        self.levels, self.samples = levels, samples
        self.reset()

    def update(self, *, real: Samples | Dataset, model: nn.Module) -> None:  # type: ignore[override]
        """Take in more images, of a model whose space is that of the images so far.

        Raises
        ------
        MissingCapability
            If the model has no ``log_prob``.
        InputError
            If the images are none, not finite, of another range or shape than the model's, or not of their levels; if
            log p is not finite; or the space is another one.
        """
        models.require(model, models.HasDensity, by=BY)
        space = self._space_of(real, model)
        if self._space not in (None, space):
            raise InputError(f"{BY}: has seen images of another space ({self._space}, not {space}); reset it first")
        runtime = self.runtime or Runtime()
        held = [model] if isinstance(model, nn.Module) else []
        tensors = [t for m in held for t in (*m.parameters(), *m.buffers()) if t.is_floating_point()]
        like = tensors[0] if tensors else torch.zeros((), device=runtime.torch_device)
        found = []
        with guard(*held), torch.no_grad():
            for start in range(0, len(real), runtime.batch_size):
                images = real[start : start + runtime.batch_size].images
                if not bool(images.isfinite().all()):
                    raise InputError(f"{BY}: the images hold NaN or infinity; remove those")
                found.append(self._bits(model, images.to(like), space, runtime.seed))
        self._space = space
        self._kept.extend(found)  # all of them, or none

    def _space_of(self, real: Any, model: Any) -> Space:
        """Return what the density is one of, after checking that the images are of it."""
        if not isinstance(real, Samples | Dataset) or len(real) == 0:
            raise InputError(f"{BY}: real must be Samples or a Dataset, and not empty")
        for name in ("value_range", "image_shape"):
            wanted, given = getattr(model, name, None), tuple(getattr(real, name))
            if wanted is not None and tuple(wanted) != given:
                raise InputError(f"{BY}: {name} of the images is {given}, the model's is {tuple(wanted)}")
        levels = int(getattr(model, "levels", 0) or 0)
        if levels and self.levels not in (0, levels):
            raise InputError(f"{BY}: the model counts {levels} levels, not {self.levels}; leave the metric's out")
        if self.levels and getattr(model, "likelihood", None) == "bernoulli":
            raise InputError(
                f"{BY}: log p of a Bernoulli model is a log probability already, of no levels; leave the metric's out"
            )
        shape = tuple(getattr(model, "native_shape", None) or real.image_shape)
        brought = hasattr(model, "to_native") and hasattr(model, "density")
        if self.levels and not brought and shape != tuple(real.image_shape):
            raise InputError(
                f"{BY}: the density is of {shape}, the images are {tuple(real.image_shape)}, and without to_native and "
                f"density the model's pixels cannot be dequantised; leave levels out"
            )
        low, high = real.value_range
        if levels:  # what log_prob alone says of levels is a log probability already
            return Space(math.prod(shape), brought, levels, 1.0 if brought else 0.0, 0.0)
        return Space(
            math.prod(shape), brought, self.levels, (high - low) / (self.levels - 1) if self.levels else 0.0, low
        )

    def _bits(self, model: Any, images: Tensor, space: Space, seed: int) -> Tensor:
        """Return bits per dimension ``[N]``, float64, on the CPU."""
        if not space.step:
            return -_finite(model.log_prob(images), len(images)) / (space.dimensions * math.log(2))
        v, density = (model.to_native(images), model.density) if space.brought else (images, model.log_prob)
        counted = (v - space.zero) / space.step
        off = float((counted - counted.round()).abs().max())
        if off > 0.05:
            raise InputError(
                f"{BY}: pixels are not of {space.levels} levels (off by {off:.2g} of one); give the images as they "
                f"were quantised, or the levels that they have"
            )
        places, total = [_address(image) for image in images], torch.zeros(len(images), dtype=torch.float64)
        for k in range(self.samples):
            noise = draws.uniform(seed, places, v.shape[1:], stream=f"dequantisation-{k}").to(v) - 0.5
            total += _finite(density(v + space.step * noise), len(images))
        return -total / (self.samples * space.dimensions * math.log(2)) - math.log2(space.step)

    def compute(self) -> dict[str, float]:
        """Return ``bits_per_dimension``, its standard error and the ends of its interval.

        Raises
        ------
        InputError
            If fewer than two images were seen.
        """
        count = sum(map(len, self._kept))
        if count < 2:
            raise InputError(f"{BY} needs at least 2 images, and has seen {count}")
        values = torch.cat(self._kept)
        return Estimate(float(values.mean()), (values - values.mean(),)).named("bits_per_dimension")

    def merge(self, other: Self) -> None:
        """Take in what another instance has seen.

        Raises
        ------
        InputError
            If it is another metric, or has seen images of another space.
        """
        if type(other) is not type(self):
            raise InputError(f"{BY}: cannot merge with a {type(other).__name__}; merge metrics of one kind")
        if None not in (self._space, other._space) and self._space != other._space:
            raise InputError(f"{BY}: cannot merge bits of the space {other._space} with those of {self._space}")
        self._space = self._space or other._space
        self._kept.extend(other._kept)

    def reset(self) -> None:
        """Forget all images."""
        self._kept = []
        self._space = None


def _finite(found: Any, n: int) -> Tensor:
    if not isinstance(found, Tensor) or found.shape != (n,) or not bool(found.isfinite().all()):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"{BY}: log p of {n} images is {shape}, or not finite; it must be a number for each image")
    return found.to("cpu", torch.float64)


def _address(image: Tensor) -> int:
    """Return a number from an image's pixels: what is drawn for it depends on the image, not on its place."""
    row = image.detach().to("cpu", torch.float32).contiguous().numpy()
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=7).digest(), "little")
