"""FullGrad: the gradient by the input and by every bias, which together are the logit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from genxai_core import Attribution, Discriminator, Runtime

from .logits import logit
from .maps import Call, Maps


class FullGrad(Maps):
    """Pixels times their gradients, and biases times theirs, where they are: Σ_c x ∂f/∂x + Σ_l up(Σ_k b_l ∂f/∂z_l).

    z_l is the output of layer l and b_l its bias (of a batch normalisation in eval mode β − μγ/σ). Maps ``[N, H, W]``,
    in logits, signed: without the magnitudes and the scaling of each channel to 1 in the paper and in pytorch-grad-cam.
    ``up`` shares a position's value equally among its pixels, so that its sum is kept. For convolutions, ReLU,
    LeakyReLU, pooling and linear layers all terms together are exactly f(x); what the map lacks of it is the biases of
    layers without positions (a linear head, a map of 1×1), and ``delta`` is minus that. Cost: one forward and backward.

    References
    ----------
    S. Srinivas, F. Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019
    (arXiv:1905.00780), proposition 1.
    """

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        with torch.enable_grad(), _recording(model) as found:
            leaf = images.detach().requires_grad_()
            scores = logit(model, leaf, target)
        outputs = [output for output, _ in found]
        first, *rest = torch.autograd.grad(scores, [leaf, *outputs], torch.ones_like(scores), allow_unused=True)
        assert first is not None  # the logit depends on the images, else it would have been refused
        maps = (images * first).sum(1)
        for (_, bias), gradient in zip(found, rest, strict=True):
            if gradient is not None:
                maps = maps + _shared(torch.einsum("k,nkhw->nhw", bias.to(gradient), gradient), images)
        return maps

    def _explain(
        self, model: Discriminator, images: Tensor, target: int | None, runtime: Runtime | None = None
    ) -> Attribution:
        target = target or 0
        maps = self._maps(model, images, target, Call(len(images))).detach()
        with torch.no_grad():
            logits = logit(model, images, target)
        return Attribution(maps=maps, target=target, logits=logits, delta=maps.flatten(1).sum(1) - logits)


@contextlib.contextmanager
def _recording(model: Discriminator) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect outputs ``[N, K, h, w]`` of layers with a bias ``[K]``, and that bias, while the block runs."""
    found: list[tuple[Tensor, Tensor]] = []

    def record(module: nn.Module, inputs: object, output: object) -> Tensor | None:
        bias = _bias(module)
        if bias is None or not isinstance(output, Tensor) or output.ndim != 4 or output[0, 0].numel() == 1:
            return None
        if not output.requires_grad or output.shape[1] != len(bias):
            return None
        found.append((output, bias))
        return output.clone()  # an in-place activation must not change what was recorded

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(module.register_forward_hook(record))
        yield found


def _bias(module: nn.Module) -> Tensor | None:
    bias = getattr(module, "bias", None)
    if isinstance(module, nn.BatchNorm2d) and not module.training and module.running_mean is not None:
        assert module.running_var is not None
        slope = (module.running_var + module.eps).rsqrt()
        if module.weight is not None:
            slope = slope * module.weight.detach()
        return -module.running_mean * slope + (0 if bias is None else bias.detach())
    return bias.detach() if isinstance(bias, Tensor) and bias.ndim == 1 else None


def _shared(terms: Tensor, images: Tensor) -> Tensor:
    """Share each position's value equally among its pixels: ``[N, h, w]`` -> ``[N, H, W]`` of the same sum."""
    down, across = (_shares(a, b).to(terms) for a, b in zip(images.shape[2:], terms.shape[1:], strict=True))
    return torch.einsum("yh,nhw,xw->nyx", down, terms, across)


def _shares(pixels: int, positions: int) -> Tensor:
    """Which share of a position goes to which pixel of one side ``[pixels, positions]``; columns sum to 1."""
    shares = torch.zeros(pixels, positions)
    if pixels >= positions:
        shares[torch.arange(pixels), torch.arange(pixels) * positions // pixels] = 1
    else:
        shares[torch.arange(positions) * pixels // positions, torch.arange(positions)] = 1
    return shares / shares.sum(0)
