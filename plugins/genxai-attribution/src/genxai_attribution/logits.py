"""The one number per image that an attribution explains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genxai_core.errors import InputError, TargetError


def logit(model: nn.Module, images: Tensor, target: int) -> Tensor:
    """Return the target's logit ``[N]``, never a softmax: over a single logit that would be constant.

    Raises
    ------
    TargetError
        If the model has no such logit.
    InputError
        If gradients are enabled and none can reach the images.
    """
    # A copy, because a model may begin with an in-place operation: that is an error on a leaf that requires a gradient.
    chosen = select(model, model(images.clone()), target)
    if torch.is_grad_enabled() and not chosen.requires_grad:
        raise InputError(
            f"{type(model).__name__}: no gradient reaches the images, because its forward detaches them or runs under "
            f"no_grad; take that out, or use an explainer that needs no gradient"
        )
    return chosen


def finer(model: nn.Module, logits: Tensor, target: int) -> Tensor:
    """Return what sets target t apart from the three classes c of nearest logits: Σ p_c (f_t − f_c) / Σ p_c ``[N]``.

    p is the softmax of all logits, and differentiated too, as in pytorch-grad-cam with α = 1. Zhang et al.,
    "Finer-CAM", CVPR 2025 (arXiv:2501.11309).

    Raises
    ------
    TargetError
        If there is no such logit, or no other to set it apart from.
    """
    chosen = select(model, logits, target)[:, None]
    if logits.shape[1] < 2:
        raise TargetError(
            f"finer-cam sets a class apart from others, and {type(model).__name__} has a single logit; use gradcam"
        )
    distance = (logits - chosen).detach().abs()
    distance[:, target] = torch.inf
    others = distance.argsort(1)[:, : min(3, logits.shape[1] - 1)]
    weights = logits.softmax(1).gather(1, others)
    return (weights * (chosen - logits.gather(1, others))).sum(1) / (weights.sum(1) + 1e-9)


def select(model: nn.Module, logits: Tensor, target: int) -> Tensor:
    """Return one column ``[N]`` of logits ``[N, K]``.

    Raises
    ------
    TargetError
        If there is no such column.
    """
    if not 0 <= target < logits.shape[1]:
        raise TargetError(f"target {target} is not one of the {logits.shape[1]} logits of {type(model).__name__}")
    return logits[:, target]
