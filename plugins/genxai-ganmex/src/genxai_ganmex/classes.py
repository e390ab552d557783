"""What logits say of classes, of one logit as of several. With one, 1 is the positive class and 0 its opposite."""

from __future__ import annotations

import torch
from torch import Tensor


def seen(logits: Tensor) -> Tensor:
    """Return the classes ``[N]`` that logits ``[N, K]`` decide for: arg max, or the sign of a single one."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def lead(logits: Tensor, target: Tensor) -> Tensor:
    """Return by how much the target's logit exceeds the best other one ``[N]``; above 0 the target is decided for."""
    if logits.shape[1] == 1:
        return torch.where(target == 1, logits[:, 0], -logits[:, 0])
    own = logits.gather(1, target[:, None])[:, 0]
    return own - logits.scatter(1, target[:, None], -torch.inf).amax(1)


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    """Return log S_t / (1 − S_t) ``[N]`` of the target's probability, softmax or logistic: its logit less the others'.

    Where it is 0, the target leads or, of more than two classes, has as much as all others together.
    """
    if logits.shape[1] == 1:
        return lead(logits, target)
    own = logits.gather(1, target[:, None])[:, 0]
    return own - logits.scatter(1, target[:, None], -torch.inf).logsumexp(1)


def best_other(logits: Tensor, than: Tensor) -> Tensor:
    """Return the class ``[N]`` of the largest logit but that of the classes ``than`` ``[N]``."""
    return 1 - than if logits.shape[1] == 1 else logits.scatter(1, than[:, None], -torch.inf).argmax(1)


def count(logits: Tensor) -> int:
    """Return the number of classes: 2 with one logit."""
    return max(2, logits.shape[1])
