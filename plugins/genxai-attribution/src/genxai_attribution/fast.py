"""Class activation maps by several methods and of several layers, from one forward and one backward."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from genxai_core import Discriminator
from genxai_core.errors import ExplainerError, InputError

from .formulas import GRADIENT, PLAIN
from .layers import find, mapped
from .logits import select

Score = Callable[[nn.Module, Tensor, int], Tensor]
"""What is differentiated: ``(model, logits [N, K], target) -> [N]``."""


def cams(
    model: Discriminator,
    images: Tensor,
    target: int,
    *,
    methods: Sequence[str] = ("gradcam",),
    layers: Sequence[str] = ("auto",),
) -> dict[tuple[str, str], Tensor]:
    """Return the maps of each method and layer at the layer's resolution.

    One forward, and one backward no deeper than the first of the layers: no gradient of any weight or of the images is
    computed, what comes before the first layer keeps no graph, and no ``.grad`` changes. So it can be called inside a
    training step; the model is used in the mode in which it is, and no hook stays. In bfloat16 (autocast or weights)
    the network runs as it does and the formulas in float32.

    Parameters
    ----------
    model
        The explainee.
    images
        ``[N, C, H, W]``.
    target
        Which logit is explained.
    methods
        ``gradcam``, ``gradcam++``, ``hirescam``, ``xgradcam``, ``layercam``, ``eigengradcam``, ``eigencam``; the
        formulas are in `genxai_attribution.formulas`.
    layers
        Names of ``model.named_modules()``, or ``auto``: the last map with more than one position.

    Returns
    -------
    dict
        ``(method, layer as asked)`` -> signed maps ``[N, h, w]``, detached.

    Raises
    ------
    ValueError
        If a method is unknown.
    InputError
        If a layer cannot be used, or the logit does not depend on it; the message says why.
    ExplainerError
        If activations are not finite.
    TargetError
        If the model has no such logit.
    """
    for method in methods:
        if method not in GRADIENT and method not in PLAIN:
            raise ValueError(f"method {method!r} is not one of {', '.join([*GRADIENT, *PLAIN])}")
    names = [find(model, images[:1], name).name if name == "auto" else name for name in layers]
    found, _ = recorded(model, images, target, names, gradients=any(m in GRADIENT for m in methods))
    maps: dict[tuple[str, str], Tensor] = {}
    for asked, name in zip(layers, names, strict=True):
        activations, gradients = found[name]
        for method in methods:
            maps[method, asked] = applied(method, activations, gradients)
    return maps


def applied(method: str, activations: Tensor, gradients: Tensor | None) -> Tensor:
    """Return a formula's maps, in the precision of what is given, whatever autocast says."""
    with torch.no_grad(), torch.autocast(activations.device.type, enabled=False):
        if method in PLAIN:
            return PLAIN[method](activations)
        assert gradients is not None
        return GRADIENT[method](activations, gradients)


def recorded(
    model: Discriminator, images: Tensor, target: int, names: Sequence[str], *, gradients: bool, score: Score = select
) -> tuple[dict[str, tuple[Tensor, Tensor | None]], Tensor]:
    """Return layers' activations and gradients of the score ``[N, K, h, w]``, at least float32, and logits ``[N]``.

    Raises
    ------
    InputError, ExplainerError, TargetError
        As `cams` does.
    """
    unique = list(dict.fromkeys(names))
    for name in unique:
        if name not in dict(model.named_modules(remove_duplicate=False)):
            find(model, images[:1], name)  # raises and says which there are
    with torch.no_grad(), _recording(model, unique, gradients) as outputs:
        # a copy, because a model may begin with an in-place operation
        outcome = model(images.detach().clone())
        logits, scores = select(model, outcome, target), score(model, outcome, target)
    for name in unique:
        if not mapped(outputs[name]):
            find(model, images[:1], name)  # raises and says why
            raise InputError(f"layer {name!r} cannot be used: it made {len(outputs[name])} maps in one forward")
        if not bool(torch.isfinite(outputs[name][0]).all()):  # pytorch-grad-cam would take NaN for 0
            raise ExplainerError(f"layer {name!r} of {type(model).__name__} has NaN or infinite activations")
    activations = [outputs[name][0] for name in unique]
    found: list[Tensor | None] = [None] * len(unique)
    if gradients:
        if scores.requires_grad:
            found = list(torch.autograd.grad(scores, activations, torch.ones_like(scores), allow_unused=True))
        for name, gradient in zip(unique, found, strict=True):
            if gradient is None:
                raise InputError(
                    f"layer {name!r} cannot be used: the logit does not depend on it through anything differentiable; "
                    f"name another layer, or use method eigencam"
                )
    pairs = {
        name: (_single(a), None if g is None else _single(g))
        for name, a, g in zip(unique, activations, found, strict=True)
    }
    return pairs, logits.detach()


@contextlib.contextmanager
def _recording(model: Discriminator, names: Sequence[str], gradients: bool) -> Iterator[dict[str, list[Tensor]]]:
    """Collect layers' outputs. The graph begins at the first of them: before it, the block's ``no_grad`` holds.

    The network goes on with a copy, so that an in-place operation on the output (``nn.ReLU(inplace=True)``) changes the
    copy and not what was recorded; gradients by the recorded tensor are those of the network.
    """
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}

    def hook(name: str) -> object:
        def record(module: object, inputs: object, output: object) -> Tensor | None:
            if not isinstance(output, Tensor):
                return None
            if gradients:
                torch.set_grad_enabled(True)  # until the end of the caller's block
                if not output.requires_grad:
                    output = output.detach().requires_grad_()
            outputs[name].append(output)
            return output.clone()

        return record

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(model.get_submodule(name).register_forward_hook(hook(name)))  # type: ignore[arg-type]
        yield outputs


def _single(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
