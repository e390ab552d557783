"""What the adapters share: checking a module, choosing one of its outputs, mapping value ranges and channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import ValueRange

Output = int | str | Callable[[Any], Any] | None
Normalisation = tuple[Sequence[float], Sequence[float]]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey of an RGB image (ITU-R BT.601). They sum to one, so any range is kept."""


def checked_module(module: Any, who: str) -> nn.Module:
    """Return the module if it is one."""
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise InputError(f"{who} takes a built module, not the class {module.__name__}; write {module.__name__}(…)")
    if not isinstance(module, nn.Module):
        raise InputError(f"{who} takes a torch.nn.Module, not a {type(module).__name__}; wrap a function in one")
    return module


def checked_range(value_range: Any, name: str) -> ValueRange:
    """Return a range as a tuple of two floats, the first the smaller."""
    try:
        low, high = (float(v) for v in value_range)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value_range!r} is not (smallest, largest), such as (-1.0, 1.0)") from None
    if not low < high:
        raise ValueError(f"{name}={value_range!r} is empty; give (smallest, largest), such as (-1.0, 1.0)")
    return low, high


def rescale(images: Tensor, old: ValueRange, new: ValueRange) -> Tensor:
    """Map values linearly from one range to another."""
    if old == new:
        return images
    (a, b), (c, d) = old, new
    return (images - a) * ((d - c) / (b - a)) + c


def pick(outputs: Any, output: Output, who: str) -> Any:
    """Choose one of a module's outputs, by position, by key or attribute, or by a function.

    Raises
    ------
    InputError
        If there is no such output.
    """
    if output is None:
        return outputs
    if callable(output):
        return output(outputs)
    try:
        if isinstance(output, str) and not isinstance(outputs, Mapping):
            return getattr(outputs, output)
        if isinstance(output, int) and not isinstance(outputs, tuple | list):
            raise TypeError
        return outputs[output]
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{who}: output={output!r}, but the module returns {shown(outputs)}") from None


def checked_tensor(value: Any, who: str, remedy: str = "") -> Tensor:
    """Return the value if it is a floating-point tensor without NaN or infinity."""
    if not isinstance(value, Tensor):
        chosen = remedy or "choose the tensor with output=<position or key>, or a function: output=lambda out: …"
        raise InputError(f"{who}: the module returns {shown(value)}, not a tensor; {chosen}")
    if not value.is_floating_point():
        raise InputError(f"{who}: the module returns {value.dtype}; it must return floating-point values")
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"{who}: the module returns NaN or infinity; check its weights and the range of its inputs")
    return value


def shown(value: Any) -> str:
    """Describe an output for a message."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(repr, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {', '.join(shown(v) for v in value)}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True)
class View:
    """Turns images as the user has them into images as a module was trained on them: range, channels, normalisation.

    It is no ``nn.Module``, so that no explainer takes it for a layer.

    Parameters
    ----------
    value_range
        Of the images that come in.
    module_range
        Of the images that the module takes.
    module_channels
        Channels that the module takes: 1 turns RGB into luma, 3 repeats grey; None: as they come.
    normalize
        ``(mean, std)`` per channel, applied last, to values in ``module_range``.
    """

    value_range: ValueRange
    module_range: ValueRange
    module_channels: int | None = None
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @classmethod
    def of(
        cls,
        value_range: ValueRange,
        module_range: ValueRange | None,
        module_channels: int | None,
        normalize: Normalisation | None,
    ) -> View:
        """Check a user's arguments."""
        checked_channels(module_channels, "module_channels")
        if normalize is not None and module_range is None:
            raise ValueError("normalize needs module_range, the range that mean and std refer to; usually (0, 1)")
        low_high = checked_range(value_range, "value_range")
        inner = low_high if module_range is None else checked_range(module_range, "module_range")
        if normalize is None:
            return cls(low_high, inner, module_channels)
        mean, std = (tuple(float(v) for v in part) for part in normalize)
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(f"normalize={normalize!r} is not (mean, std) with one positive std for each mean")
        return cls(low_high, inner, module_channels, (mean, std))

    def __call__(self, images: Tensor) -> Tensor:
        """Return what the module takes, differentiably."""
        if images.ndim != 4:
            raise InputError(f"images must be [N, C, H, W], not {list(images.shape)}")
        images = rescale(images, self.value_range, self.module_range)
        if self.module_channels is not None:
            images = to_channels(images, self.module_channels)
        if self.normalize is None:
            return images
        mean, std = (images.new_tensor(part).reshape(1, -1, 1, 1) for part in self.normalize)
        if mean.shape[1] not in (1, images.shape[1]):
            raise InputError(f"normalize is for {mean.shape[1]} channels, the module is given {images.shape[1]}")
        return (images - mean) / std


def checked_channels(channels: int | None, name: str) -> None:
    """Refuse what `to_channels` cannot make."""
    if channels not in (None, 1, 3):
        raise ValueError(f"{name}={channels!r} is not 1 (grey), 3 (RGB) or None (as they come)")


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Turn RGB into luma (`LUMA`) or repeat grey, where the number of channels differs."""
    have = images.shape[1]
    if have == channels:
        return images
    if (have, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    if (have, channels) == (3, 1):
        return (images * images.new_tensor(LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    raise InputError(f"images of {have} channels cannot become {channels}; only grey (1) and RGB (3) are converted")
