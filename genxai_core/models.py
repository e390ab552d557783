"""Generator, Discriminator, and the capabilities that a method may ask a model for."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from .errors import MissingCapability
from .samples import Samples

ValueRange = tuple[float, float]


class Generator(nn.Module):
    """A model that makes images ``[N, C, H, W]`` in its ``value_range``.

    Only ``value_range`` is required. What else it can do it says by having the methods of a capability below.

    Attributes
    ----------
    value_range
        Smallest and largest pixel value, such as ``(-1.0, 1.0)``.
    """

    value_range: ValueRange


class Discriminator(nn.Module, ABC):
    """A model that judges images: ``forward(images [N, C, H, W]) -> logits [N, K]``.

    ``K = 1`` is real/fake, a logit above zero means real. A classifier is a discriminator over K classes.

    Attributes
    ----------
    class_names
        K names; for K = 1 the name of the positive class.
    value_range
        The pixel range that it expects.
    image_shape
        ``(C, H, W)`` where it is fixed, else None. Inputs are checked against it.
    """

    class_names: tuple[str, ...] = ("real",)
    value_range: ValueRange = (-1.0, 1.0)
    image_shape: tuple[int, int, int] | None = None

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, K]`` for images ``[N, C, H, W]``."""


# -- capabilities -----------------------------------------------------------------------------------------------


@runtime_checkable
class CanSample(Protocol):
    """Draws images. Image i depends on ``(seed, start + i)`` only, whatever the batch."""

    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images."""
        ...


@runtime_checkable
class HasLatents(Protocol):
    """Maps latents ``[N, *latent_shape]`` to images, differentiably."""

    latent_shape: tuple[int, ...]

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw latents; latent i depends on ``(seed, start + i)`` only."""
        ...

    def forward(self, latents: Tensor) -> Tensor:
        """Return images."""
        ...


@runtime_checkable
class HasEncoder(Protocol):
    """Maps images back to latents."""

    def encode(self, images: Tensor) -> Tensor:
        """Return latents."""
        ...


@runtime_checkable
class HasDensity(Protocol):
    """Knows log p(x)."""

    def log_prob(self, images: Tensor) -> Tensor:
        """Return ``[N]`` log densities, in nats, in the space that the model states."""
        ...


@runtime_checkable
class Translates(Protocol):
    """Changes an image into one of another class."""

    def translate(self, images: Tensor, target: Tensor) -> Tensor:
        """Return images of the target classes."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """Predicts the noise (or x0, or v) in a noised image."""

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction at timesteps t ``[N]``."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """Is conditioned on a class."""

    num_classes: int


@runtime_checkable
class HasFeatures(Protocol):
    """Offers a feature vector for each image."""

    def features(self, images: Tensor) -> Tensor:
        """Return ``[N, F]`` features."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """Embeds images and texts in one space."""

    def embed_images(self, images: Tensor) -> Tensor:
        """Return ``[N, E]``."""
        ...

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Return ``[N, E]``."""
        ...


class _Advice:
    """What to use instead, per capability: the second half of the refusal."""

    of: ClassVar[dict[str, str]] = {
        "CanSample": "use a model with sample(n, seed), or wrap yours with genxai_core.adapt.generator(latent_shape=…)",
        "HasLatents": "use a generator with latents (a GAN, a VAE's decoder, a flow), or genxai_core.adapt.generator",
        "HasEncoder": "use a model with an encoder (a VAE or a flow), or invert the generator instead",
        "HasDensity": "use a model with log_prob(images), such as a flow",
        "Translates": "use a model with translate(images, target), such as a StarGAN",
        "Denoises": "use a diffusion model",
        "Conditional": "use a class-conditional model (one with num_classes), or leave the labels out",
        "HasFeatures": "use a model with features(images), such as what trainer/classifier trains",
        "Embeds": "use a text–image model",
    }


def methods(capability: type) -> list[str]:
    """Return the names of the methods that a capability consists of."""
    return [name for name, member in vars(capability).items() if inspect.isfunction(member) and name[0] != "_"]


def require(model: Any, capability: type, *, by: str) -> Any:
    """Return the model if it has a capability, else refuse.

    Parameters
    ----------
    model
        The model asked.
    capability
        One of the protocols of this module.
    by
        Who asks, for the message: ``"metric/kid"``.

    Raises
    ------
    MissingCapability
        Naming the capability, the model and what to use instead.
    """
    if isinstance(model, capability):
        return model
    name = capability.__name__
    advice = _Advice.of.get(name, f"use a model that offers {name}")
    raise MissingCapability(f"{by} needs the capability {name}, which {type(model).__name__} does not have: {advice}")
