"""The formulas of class activation maps, of activations A ``[N, K, h, w]`` and gradients G = ∂f/∂A; maps ``[N, h, w]``.

All are linear in memory, batched, and treat each image alone. They follow pytorch-grad-cam, but for its clipping and
scaling; where they correct it, the function says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def gradcam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k α_k A_k, α_k the mean of G_k over positions (Selvaraju et al., eq. 1-2, without the ReLU)."""
    return _weighted(g.mean((2, 3)), a)


def gradcam_plusplus(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k w_k A_k, w_k = Σ α ⊙ max(G, 0), α = G² / (2 G² + S_k G³ + 1e-6), S_k = max(Σ A_k, 0).

    Chattopadhay et al., eq. 5-7 and 19. The paper derives α for activations after a ReLU, whose sum is not negative.
    After a LeakyReLU it can be, and the denominator zero, so a negative sum counts as 0 here: α is at most ½.
    """
    total = a.sum((2, 3), keepdim=True).clamp(min=0)
    alpha = g**2 / (2 * g**2 + total * g.clamp(min=0) ** 3 + 1e-6)
    return _weighted((alpha * g.clamp(min=0)).sum((2, 3)), a)


def hirescam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k G_k ⊙ A_k (Draelos, Carin): exact where what follows the layer is linear."""
    return torch.einsum("nkhw,nkhw->nhw", g, a)


def xgradcam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k w_k A_k, w_k = Σ G_k A_k / Σ A_k: the mean of G_k weighted by A_k (Fu et al., eq. 7-8).

    Where activations of both signs cancel in Σ A_k, the quotient leaves the range of G_k and grows without bound (the
    library divides all the same); it is brought back to that range here. A channel that is 0 everywhere has no say.
    """
    total = a.sum((2, 3))
    weight = (g * a).sum((2, 3)) / torch.where(total == 0, 1.0, total)
    weight = torch.where(total == 0, g.mean((2, 3)), weight)
    return _weighted(weight.clamp(g.amin((2, 3)), g.amax((2, 3))), a)


def layercam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k max(G_k, 0) ⊙ A_k (Jiang et al.)."""
    return hirescam(a, g.clamp(min=0))


def eigencam(a: Tensor, g: Tensor | None = None) -> Tensor:
    """First principal component of A over positions, centred, turned to correlate with Σ_k A_k (Muhammad, Yeasin)."""
    n, _, height, width = a.shape
    points = a.flatten(2).transpose(1, 2)
    points = points - points.mean(1, keepdim=True)
    _, _, directions = torch.linalg.svd(points, full_matrices=False)
    maps = (points @ directions[:, 0, :, None]).view(n, height, width)
    activity = a.sum(1)
    centred = activity - activity.mean((1, 2), keepdim=True)
    against = (maps * centred).sum((1, 2), keepdim=True) < 0
    return torch.where(against, -maps, maps)


def eigengradcam(a: Tensor, g: Tensor) -> Tensor:
    """First principal component of G ⊙ A, turned to correlate with Σ_k G_k ⊙ A_k."""
    return eigencam(a * g)


GRADIENT: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plusplus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "eigengradcam": eigengradcam,
}
"""Methods that need activations and gradients."""

PLAIN: Mapping[str, Callable[[Tensor], Tensor]] = {"eigencam": eigencam}
"""Methods that need activations only."""


def _weighted(weights: Tensor, a: Tensor) -> Tensor:
    return torch.einsum("nk,nkhw->nhw", weights, a)
