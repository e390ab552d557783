"""Adversarial losses on logits, as a table: a trainer picks one by name and knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class AdversarialLoss:
    """What each player minimises, given the discriminator's logits ``[N, 1]`` (above zero means real).

    Both functions return a scalar, the mean over all logits.

    Parameters
    ----------
    discriminator
        ``(logits on real images, logits on generated images) -> loss``.
    generator
        ``(logits on generated images) -> loss``.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _binary(real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of D = σ(logit): −log D(x) − log(1 − D(G(z))); softplus keeps it finite where σ saturates."""
    return softplus(-real).mean() + softplus(fake).mean()


LOSSES: Mapping[str, AdversarialLoss] = {
    "non-saturating": AdversarialLoss(_binary, lambda fake: softplus(-fake).mean()),
}
"""Losses by name.

``non-saturating``: with ``D = σ(logit)``, the discriminator minimises ``−log D(x) − log(1 − D(G(z)))`` (Goodfellow et
al., "Generative Adversarial Nets", NeurIPS 2014, eq. 1), the generator ``−log D(G(z))`` (ibid., end of section 3).
"""
