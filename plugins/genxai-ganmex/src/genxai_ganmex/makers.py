"""Ways to make an image of another class: each from images and classes to images, whatever else it needs held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Discriminator, Samples, models
from genxai_core.adapt.modules import rescale
from genxai_core.errors import InputError

from .classes import log_odds
from .least import least_change

Name = Literal["gradient", "ganmex", "mdts", "class-mean", "vae"]

BY = "explainer/counterfactual"
ROWS = 512
"""Images that are read, or compared, at once."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Wish:
    """What is to be changed, into what, and who is to be convinced.

    Parameters
    ----------
    images
        ``[N, C, H, W]`` in ``value_range``.
    target
        ``[N]`` classes.
    model
        The classifier, of which images in ``value_range`` are expected.
    value_range
        Of the images, and of what is made.
    """

    images: Tensor
    target: Tensor
    model: Discriminator
    value_range: Range


class Maker(Protocol):
    """Makes images ``[N, C, H, W]``, each of which depends on nothing but its own row of the wish."""

    def __call__(self, wish: Wish) -> Tensor:
        """Return images in the wish's value range."""
        ...


class Translated:
    """One pass of a generator with ``translate(images, target)``, such as `trainer/ganmex` makes."""

    def __init__(self, generator: Any) -> None:
        self.generator = models.require(generator, models.Translates, by=f"{BY} with maker ganmex")

    @torch.no_grad()
    def __call__(self, wish: Wish) -> Tensor:
        """Return what the generator makes of the images and the classes."""
        own = _range_of(self.generator, wish.value_range)
        made: Tensor = self.generator.translate(rescale(wish.images, wish.value_range, own), wish.target)
        return rescale(made, own, wish.value_range)


class Nearest:
    """The nearest image of the target class among the data, by the root mean square over pixels: MDTS."""

    def __init__(self, data: Known) -> None:
        self.data = data

    def __call__(self, wish: Wish) -> Tensor:
        """Return one of the data for each image."""
        images = torch.empty_like(wish.images)
        for target in sorted(set(wish.target.tolist())):
            rows = wish.target == target
            known = self.data.of(target, wish)
            images[rows] = known[nearest(wish.images[rows], known)[1]]
        return images


class ClassMean:
    """The mean of the target class's images: the same for all images, far from each, and blurred."""

    def __init__(self, data: Known) -> None:
        self.data = data

    def __call__(self, wish: Wish) -> Tensor:
        """Return a mean for each image."""
        images = torch.empty_like(wish.images)
        for target in sorted(set(wish.target.tolist())):
            images[wish.target == target] = self.data.of(target, wish).mean(0)
        return images


@dataclass
class Least:
    """The least change of pixels that makes the target lead, by gradients; a term of realism may pull.

    Argmin ½|x̃ − x|² − λ log R(x̃) where log S_t / (1 − S_t) ≥ margin at x̃, within the value range: the paper's −log S_t
    has the weight, image by image, at which that just holds.
    """

    margin: float
    steps: int
    weight: float = 0.0
    realism: Callable[[Tensor, Range], Tensor] | None = None

    def __call__(self, wish: Wish) -> Tensor:
        """Return the least changes that were found."""
        low, high = wish.value_range
        realism, weight = self.realism, self.weight
        return least_change(
            wish.images,
            lambda images: _odds(wish, images) - self.margin,
            self.steps,
            bounds=wish.value_range,
            worth=None if realism is None else lambda images: weight * realism(images, wish.value_range).float(),
            width=(high - low) / 2,
        )


class Latent:
    """The least change of a latent that makes the target lead, from where the encoder has the image: of its images.

    Argmin ½|z − e(x)|² where log S_t / (1 − S_t) ≥ margin at G(z). What the generator does not reproduce of an image is
    lost, and is part of the change.
    """

    def __init__(self, generator: Any, margin: float, steps: int) -> None:
        self.generator = models.require(generator, models.HasEncoder, by=f"{BY} with maker vae")
        models.require(generator, models.HasLatents, by=f"{BY} with maker vae")
        self.margin, self.steps = margin, steps

    def __call__(self, wish: Wish) -> Tensor:
        """Return decoded latents."""
        own = _range_of(self.generator, wish.value_range)

        def decoded(latents: Tensor) -> Tensor:
            return rescale(self.generator(latents), own, wish.value_range)

        with torch.no_grad():
            start = self.generator.encode(rescale(wish.images, wish.value_range, own))
        found = least_change(start, lambda latents: _odds(wish, decoded(latents)) - self.margin, self.steps)
        with torch.no_grad():
            return decoded(found)


class Known:
    """Labelled images, read once, class by class.

    Raises
    ------
    InputError
        When read: if there are none, they have no labels, or are of another shape.
    """

    def __init__(self, data: Samples | Dataset) -> None:
        self.data = data
        self._read: Samples | None = None

    def of(self, target: int, wish: Wish) -> Tensor:
        """Return the images of a class ``[M, C, H, W]``, in the wish's value range, beside its images.

        Raises
        ------
        InputError
            If there are none.
        """
        labels = self._samples(wish.images).labels
        if labels is None:
            raise InputError(f"{BY}: the data have no labels, so which are of class {target} is not known; label them")
        found = self.all(wish.images, wish.value_range)[labels.to(wish.images.device) == target]
        if len(found) == 0:
            raise InputError(f"{BY}: no image of the data is of class {target}; give data that has all targets")
        return found

    def all(self, images: Tensor, value_range: Range) -> Tensor:
        """Return all images ``[M, C, H, W]`` in a value range, beside images."""
        samples = self._samples(images)
        low, high = samples.value_range
        return rescale(samples.images.to(images), (low, high), value_range)

    def _samples(self, images: Tensor) -> Samples:
        if self._read is None:
            self._read = self.data[:]
        if tuple(self._read.images.shape[1:]) != tuple(images.shape[1:]):
            raise InputError(
                f"{BY}: the data's images are {tuple(self._read.images.shape[1:])}, those to change "
                f"{tuple(images.shape[1:])}; bring them to one size"
            )
        return self._read


def nearest(images: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance ``[N]``, a root mean square over pixels, of the nearest of known images, and which it is."""
    flat, among = images.flatten(1), known.flatten(1)
    parts = [
        torch.cdist(rows, among, compute_mode="donot_use_mm_for_euclid_dist").min(1) for rows in torch.split(flat, ROWS)
    ]
    distance = torch.cat([part.values for part in parts]) / flat.shape[1] ** 0.5
    return distance, torch.cat([part.indices for part in parts])


def _odds(wish: Wish, images: Tensor) -> Tensor:
    return log_odds(wish.model(images.clone()).float(), wish.target)


def _range_of(model: nn.Module, otherwise: Range) -> Range:
    low, high = getattr(model, "value_range", otherwise)
    return float(low), float(high)
