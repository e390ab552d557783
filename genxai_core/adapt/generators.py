"""Any ``nn.Module`` that maps latents to images as a Generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .. import draws
from ..errors import InputError
from ..models import Generator, ValueRange
from ..samples import Samples
from .modules import Output, checked_module, checked_range, checked_tensor, pick, rescale, shown

Distribution = Literal["normal", "uniform"]

_WHO = "adapt.generator"


def generator(
    module: nn.Module,
    *,
    latent_shape: Sequence[int],
    distribution: Distribution = "normal",
    output: Output = None,
    value_range: ValueRange = (-1.0, 1.0),
    module_range: ValueRange | None = None,
) -> AdaptedGenerator:
    """Make a Generator of any module that maps latents to images. It can sample, and has latents.

    Parameters
    ----------
    module
        Takes latents ``[N, *latent_shape]``, returns images ``[N, C, H, W]``. It is not copied.
    latent_shape
        Shape of one latent as the module takes it: ``(64,)``, or ``(64, 1, 1)`` for a convolutional generator.
    distribution
        What the module was trained on: ``normal`` (standard), or ``uniform`` on [-1, 1).
    output
        Which output of a module that returns several: a position, a key (or attribute), or a function of them all.
    value_range
        The range of the images that the adapted model returns.
    module_range
        The range of the module's own images, such as (0, 1) after a sigmoid. None: ``value_range``.

    Raises
    ------
    InputError
        If it is not a module.
    ValueError
        If an argument has no meaning.
    """
    return AdaptedGenerator(checked_module(module, _WHO), latent_shape, distribution, output, value_range, module_range)


class AdaptedGenerator(Generator):
    """A module read as a generator; made by `generator`.

    Attributes
    ----------
    module
        What was adapted. Its layers are named ``module.…``.
    """

    def __init__(
        self,
        module: nn.Module,
        latent_shape: Sequence[int],
        distribution: Distribution,
        output: Output,
        value_range: ValueRange,
        module_range: ValueRange | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.latent_shape = tuple(latent_shape)
        if not self.latent_shape or any(type(size) is not int or size < 1 for size in self.latent_shape):
            raise ValueError(f"latent_shape={latent_shape!r} is not a shape without the batch axis, such as (64,)")
        if distribution not in ("normal", "uniform"):
            raise ValueError(f"distribution={distribution!r} is not 'normal' or 'uniform'")
        self.distribution, self.output = distribution, output
        self.value_range = checked_range(value_range, "value_range")
        self.module_range = self.value_range if module_range is None else checked_range(module_range, "module_range")
        self.training = module.training

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw latents ``[n, *latent_shape]`` on the CPU; latent i depends on ``(seed, start + i)`` only."""
        rows = range(start, start + n)
        if self.distribution == "normal":
            return draws.normal(seed, rows, self.latent_shape)
        return draws.uniform(seed, rows, self.latent_shape, "latents") * 2 - 1

    def forward(self, latents: Tensor) -> Tensor:
        """Return images ``[N, C, H, W]`` in ``value_range``, differentiably, in the mode that the module is in.

        Raises
        ------
        InputError
            If latents or images have the wrong shape, or an image is not finite.
        """
        return rescale(self._images(latents), self.module_range, self.value_range)

    def _images(self, latents: Tensor) -> Tensor:
        """Return the module's images in its own range."""
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise InputError(
                f"{_WHO}: latents must be [N, {', '.join(map(str, self.latent_shape))}], not {shown(latents)}"
            )
        images = checked_tensor(pick(self.module(latents), self.output, _WHO), _WHO)
        if images.ndim != 4 or len(images) != len(latents):
            raise InputError(
                f"{_WHO}: {len(latents)} latents gave {shown(images)}, not images [{len(latents)}, C, H, W]; "
                f"bring them to that shape with output=lambda out: …"
            )
        return images

    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images in eval mode, without gradients. Image i depends on ``(seed, start + i)`` only.

        Raises
        ------
        InputError
            If labels are given, the module draws random numbers of its own, or its images are far outside
            ``module_range``.
        """
        if labels is not None:
            raise InputError(f"{_WHO}: the adapted generator takes no labels; write a Generator for a conditional one")
        like = next((p for p in self.module.parameters()), torch.empty(0))
        latents = self.sample_latents(n, seed, start).to(like.device)
        with _evaluating(self), torch.no_grad():
            before = _random_state(like.device)
            images = self._images(latents.to(like.dtype))
            if not torch.equal(before, _random_state(like.device)):
                raise InputError(
                    f"{_WHO}: the module draws random numbers while it makes images, so that they would depend on "
                    f"their neighbours; switch its noise off or make it an output of the latents"
                )
        low, high = self.module_range
        slack = (high - low) / 2
        if n and (float(images.min()) < low - slack or float(images.max()) > high + slack):
            raise InputError(
                f"{_WHO}: the module's pixels reach from {float(images.min()):.3g} to {float(images.max()):.3g}, "
                f"not {self.module_range}; give its range as module_range"
            )
        images = rescale(images, self.module_range, self.value_range)
        return Samples(images.float(), latents, value_range=self.value_range)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and every part of it back. In eval mode nothing else of it changes."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


def _random_state(device: torch.device) -> Tensor:
    """State of the generators that a module on this device may draw from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)
