"""How much of each unit makes a concept appear: the optimised vector α."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genxai_core import Runtime, Samples, Segmenter
from genxai_core.errors import InputError
from genxai_core.models import HasLatents, require

from .paired import FIRST, Paired, measured

BY = "explainer/unit-intervention with steps > 0"


def probabilities_of(segmenter: Segmenter) -> Callable[[Samples], Tensor]:
    """Return the function that gives a segmenter's probabilities ``[N, concepts, H, W]``, differentiably.

    Raises
    ------
    InputError
        If it has no method ``probabilities(samples)``, and so says yes or no only.
    """
    method = getattr(segmenter, "probabilities", None)
    if callable(method):
        return method  # type: ignore[no-any-return]
    raise InputError(
        f"alpha is found by gradients, and {type(segmenter).__name__} has no probabilities to take them of; give it a "
        f"method probabilities(samples) that returns [N, concepts, H, W] in [0, 1], take another such as "
        f"segmenter/unet, or steps: 0"
    )


def check_searchable(model: Any, segmenter: Segmenter, runtime: Runtime) -> None:
    """Refuse, before the work, what `optimised` would refuse after it: one image is made from a latent.

    Raises
    ------
    InputError
        If the segmenter has no probabilities, or the generator makes no image of a latent alone.
    MissingCapability
        If it has no latents.
    """
    probabilities_of(segmenter)
    able = require(model, HasLatents, by=BY)
    with torch.no_grad():
        able(able.sample_latents(1, runtime.seed, start=FIRST).to(runtime.torch_device))


def start_of(scores: Tensor | None, units: int) -> Tensor:
    """Return where α starts: scores ``[U]`` over the largest one, those below zero at 0; or 0.5 for all."""
    if scores is None:
        return torch.full((units,), 0.5)
    positive = scores.float().clamp(min=0)
    return positive / positive.max() if bool(positive.any()) else torch.full((units,), 0.5)


def loss(added: Tensor, removed: Tensor, alpha: Tensor, share: float, penalty: float) -> Tensor:
    """Return −δ(α) / E[s_c] + λ‖α‖², δ(α) = E[s_c(x_i)] − E[s_c(x_a)].

    Parameters
    ----------
    added, removed
        ``[n]``: s_c of each sample with the units in, and off.
    alpha
        ``[U]``.
    share
        E[s_c], of unedited samples.
    penalty
        λ.
    """
    return -(added - removed).mean() / share + penalty * alpha.square().sum()


def optimised(
    pair: Paired,
    concept: int,
    means: Tensor,
    start: Tensor,
    *,
    steps: int,
    batch: int,
    rate: float,
    penalty: float,
    advance: Callable[..., None] = lambda n=1, **info: None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return α ∈ [0, 1]^U, its order, and δ(α) / E[s_c] at each step.

    With α of each unit, x_a = f((1 − α) r) and x_i = f((1 − α) r + α k) at the same places; Adam on `loss`, α clamped
    to [0, 1] after each step (Bau et al., "GAN Dissection", ICLR 2019, eq. 5 and 6). s_c is the segmenter's probability
    here, so that there is a gradient; the paper's normalisation by E[s_c] makes λ mean the same for all concepts. Its
    eq. 6 prints λ‖α‖₂, the authors' program squares the norm; so does this. Many units may end at 1 or at 0: of equal
    ones those come first on which the loss falls most steeply, in the mean of the last steps, one pass of the samples.

    Parameters
    ----------
    pair
        The samples that are trained on, in turn.
    concept
        Its index.
    means
        ``[U]``: k.
    start
        ``[U]``.
    steps
        How many.
    batch
        How many samples there are in a step.
    rate
        Of Adam.
    penalty
        λ.
    advance
        Is called after each step.

    Raises
    ------
    InputError
        If the segmenter or the images give no gradient, or the unedited samples do not show the concept.
    MissingCapability
        If the generator has no latents.
    """
    model = require(pair.model, HasLatents, by=BY)
    soft = probabilities_of(pair.segmenter)
    share = float(pair.shares()[:, concept].mean())
    if share == 0:
        raise InputError(
            f"{len(pair.kept)} samples do not show {pair.segmenter.concepts[concept]!r} at the locations, so there is "
            f"nothing to optimise; take more alpha_samples, or other locations"
        )
    search = _Search(pair, model, soft, concept, means)
    alpha = start.to(search.device).clone().requires_grad_()
    adam = torch.optim.Adam([alpha], lr=rate)
    history, slopes = [], []
    kept = pair.kept.tolist()
    for step in range(steps):
        rows = [kept[(step * batch + i) % len(kept)] for i in range(batch)]
        adam.zero_grad()
        effect = 0.0
        for at in range(0, batch, pair.runtime.batch_size):
            some = rows[at : at + pair.runtime.batch_size]
            added, removed = search.shown(alpha, some)
            if not (added.requires_grad or removed.requires_grad):
                raise InputError("neither the images nor the segmenter's probabilities have a gradient by alpha")
            part = loss(added, removed, alpha, share, penalty) * (len(some) / batch)
            part.backward()  # type: ignore[no-untyped-call]
            effect += float((added - removed).detach().sum()) / (batch * share)
        assert alpha.grad is not None
        slopes.append(alpha.grad.detach().clone())
        adam.step()
        with torch.no_grad():
            alpha.clamp_(0, 1)
        history.append(effect)
        advance(1, effect=effect)
    steepest = torch.stack(slopes[-math.ceil(len(kept) / batch) :]).mean(0).argsort(stable=True)
    order = steepest[alpha.detach()[steepest].argsort(descending=True, stable=True)]
    return alpha.detach().cpu(), order.cpu(), torch.tensor(history)


class _Search:
    """Samples with α of every unit put in and taken away, with their graph."""

    def __init__(
        self, pair: Paired, model: Any, soft: Callable[[Samples], Tensor], concept: int, means: Tensor
    ) -> None:
        self.pair, self.model, self.soft, self.concept = pair, model, soft, concept
        self.device = pair.runtime.torch_device
        self.means = means.float().to(self.device)

    def shown(self, alpha: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Return ``[n]`` and ``[n]``: s_c of the rows with the units in, and off."""
        pair, units = self.pair, range(self.pair.units)
        drawn = [self.model.sample_latents(1, pair.runtime.seed, start=pair.first + row) for row in rows]
        latents = torch.cat(drawn).to(self.device)
        where = None if pair.where is None else pair.where[rows].to(self.device)
        found = []
        for value in (alpha * self.means, None):
            with pair.edited(units, 1 - alpha, value, rows):
                images = self.model(latents)
            masks = self.soft(Samples(images, value_range=tuple(self.model.value_range)))
            found.append(measured(masks, where)[:, self.concept])
        return found[0], found[1]
