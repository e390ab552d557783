"""Class activation maps whose weights come from further forwards: Score-CAM and Ablation-CAM, on the logit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genxai_core import Discriminator

from .logits import logit
from .maps import Call


@torch.no_grad()
def scorecam(model: Discriminator, images: Tensor, target: int, a: Tensor, layer: str, call: Call) -> Tensor:
    """Σ_k w_k A_k, w = softmax over the channels k of f(x ⊙ H_k), H_k channel k, upsampled and scaled to [0, 1].

    Wang et al., eq. 2-5: the baseline that the paper subtracts cancels in the softmax. f is the logit. The library
    upsamples with ``align_corners=True``; here it is False, as everywhere.
    """
    n, channels = a.shape[:2]
    scores = []
    for chunk in call.chunks(channels, n):
        some = a[:, chunk.start : chunk.stop]
        masks = interpolate(some, size=images.shape[2:], mode="bilinear", align_corners=False)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = (masks - low) / (high - low + 1e-8)
        seen = masks[:, :, None].transpose(0, 1) * images
        scores.append(logit(model, seen.flatten(0, 1).to(images.dtype), target).float().view(len(chunk), n))
    return _summed(torch.cat(scores).softmax(0), a)


@torch.no_grad()
def ablationcam(model: Discriminator, images: Tensor, target: int, a: Tensor, layer: str, call: Call) -> Tensor:
    """Σ_k (f(x) − f_k(x)) A_k, f_k the logit when channel k of the layer is 0, all others as they are.

    Ramaswamy, Desai, eq. 2, without its division by f(x), which turns the map round where the logit is negative. The
    library puts channels to min − 1e7 instead of 0 where an activation is negative, one after another without restoring
    those before, so its weights depend on the order of channels; ours do not follow it there.
    """
    n, channels = a.shape[:2]
    whole = logit(model, images, target).float()
    drops = []
    for chunk in call.chunks(channels, n):
        off = torch.arange(chunk.start, chunk.stop, device=images.device).repeat_interleave(n)
        with _without(model, layer, off):
            less = logit(model, images.repeat(len(chunk), 1, 1, 1), target).float().view(len(chunk), n)
        drops.append(whole - less)
    return _summed(torch.cat(drops), a)


def _summed(weights: Tensor, a: Tensor) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):
        return torch.einsum("kn,nkhw->nhw", weights.to(a.dtype), a)


@contextlib.contextmanager
def _without(model: Discriminator, layer: str, off: Tensor) -> Iterator[None]:
    """Set channel ``off[i]`` of image i to zero at a layer."""

    def hook(module: object, inputs: object, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[torch.arange(len(off), device=output.device), off] = 0
        return changed

    with model.get_submodule(layer).register_forward_hook(hook):
        yield
