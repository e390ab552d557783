"""Scaling an attribution to a mask, and weighting a gradient by it: how an explanation enters training."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import InputError


def mask(attribution: Tensor) -> Tensor:
    """Scale the absolute attribution of each sample to [0, 1] by its own smallest and largest value.

    ``M = (|a| − min |a|) / (max |a| − min |a|)``, both over C·H·W of the one sample, never over the batch. A constant
    map has nothing to say and becomes exactly 0. Values that are not finite make the sample's mask NaN, so that a guard
    downstream sees them.

    Parameters
    ----------
    attribution
        ``[N, C, H, W]`` or ``[N, H, W]``, signed, of any scale.

    Returns
    -------
    Tensor
        ``[N, C, H, W]``, or ``[N, 1, H, W]`` for maps without channels; at least float32.

    Raises
    ------
    InputError
        If the attribution has another number of axes.
    """
    if attribution.ndim not in (3, 4):
        raise InputError(f"an attribution is [N, C, H, W] or [N, H, W], not {list(attribution.shape)}")
    size = attribution.detach().abs()
    size = size.to(torch.promote_types(size.dtype, torch.float32))  # bfloat16 has 3 digits: too few to subtract in
    if size.ndim == 3:
        size = size.unsqueeze(1)
    low = size.amin((1, 2, 3), keepdim=True)
    span = size.amax((1, 2, 3), keepdim=True) - low
    return (size - low) / span.where(span != 0, 1)


def weight_gradient(gradient: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """Return ``g′ = g + α·g⊙M`` (Nagisetty et al., "xAI-GAN", 2020, arXiv:2002.10438).

    Parameters
    ----------
    gradient
        ``[N, C, H, W]``.
    mask
        ``[N, C, H, W]``, or ``[N, 1, H, W]`` to weigh all channels of a pixel alike.
    alpha
        How much the explanation counts; 0 gives back the gradient, bit for bit where the mask is finite.

    Returns
    -------
    Tensor
        Shaped and typed as the gradient.

    Raises
    ------
    InputError
        If the mask does not fit the gradient.
    """
    fits = mask.shape == gradient.shape or mask.shape == (len(gradient), 1, *gradient.shape[2:])
    if gradient.ndim != 4 or not fits:
        raise InputError(f"a mask {list(mask.shape)} does not fit a gradient {list(gradient.shape)}")
    return torch.addcmul(gradient, gradient, mask.to(gradient.dtype), value=alpha)
