"""Which layers of a model have a spatial map, and what such a map holds while the model runs."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from genxai_core.errors import InputError


@dataclass(frozen=True)
class Layer:
    """What one module did in one forward.

    Attributes
    ----------
    name
        As in ``model.named_modules()``.
    shape
        Of its output (the last one, if it ran more than once); None if that is not a tensor.
    calls
        How often it ran.
    tensor
        Tells outputs apart: a container returns the tensor of its last child, an in-place activation that of the layer
        before it, changed.
    """

    name: str
    shape: tuple[int, ...] | None
    calls: int
    tensor: tuple[int, int] = (0, 0)

    @property
    def resolution(self) -> str:
        """``"4x4"``; empty where the output is not ``[N, C, H, W]``."""
        return "x".join(map(str, self.shape[2:])) if self.shape is not None and len(self.shape) == 4 else ""

    @property
    def usable(self) -> bool:
        """Whether it ran once and made a map of more than one position."""
        return self.calls == 1 and self.shape is not None and len(self.shape) == 4 and self.shape[2] * self.shape[3] > 1


def find(model: nn.Module, images: Tensor, wanted: str) -> Layer:
    """Run the model once and return the layer that a class activation map can be made of.

    Parameters
    ----------
    model
        Put into eval mode for this one pass, so that no statistics move, and back.
    images
        ``[N, C, H, W]``; one is enough.
    wanted
        A name of ``model.named_modules()``, or ``auto``: the last map with more than one position that the forward
        makes, of any module that runs once, hence usually after the activation. Where a container returns what its
        child made, the child is named.

    Raises
    ------
    InputError
        If there is no such layer, or it has a single position, makes no ``[N, C, H, W]``, or runs never or repeatedly.
    """
    layers = observe(model, images)
    usable = [layer for layer in layers.values() if layer.usable]
    listed = ", ".join(f"{layer.name} ({layer.resolution})" for layer in usable[-8:]) or "none"
    if wanted == "auto":
        if not usable:
            raise InputError(
                f"{type(model).__name__} has no layer that runs once and makes a map [N, C, H, W] of more than one "
                f"position, so it has no class activation map; use explainer/saliency"
            )
        return next(layer for layer in usable if layer.tensor == usable[-1].tensor)
    names = [name for name, _ in _modules(model)]
    if wanted not in names:
        near = difflib.get_close_matches(wanted, [layer.name for layer in usable] or names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"layer {wanted!r}: {type(model).__name__} has no such layer; {hint}Usable layers: {listed}")
    layer = layers.get(wanted)
    if layer is None:
        reason = "it takes no part in the forward pass"
    elif layer.calls > 1:
        reason = f"it runs {layer.calls} times in one forward pass, so it has no single map"
    elif layer.shape is None or len(layer.shape) != 4:
        output = "not a tensor" if layer.shape is None else f"[N, {', '.join(map(str, layer.shape[1:]))}]"
        reason = f"its output is {output}, not a map [N, C, H, W]"
    elif not layer.usable:
        reason = "its map is 1x1: one value for the whole image, which says nothing of where"
    else:
        return layer
    raise InputError(f"layer {wanted!r} cannot be used: {reason}. Usable layers: {listed}")


def observe(model: nn.Module, images: Tensor) -> dict[str, Layer]:
    """Run the model once, in eval mode and without gradients, and note every module's output, in order of finishing."""
    calls: list[tuple[str, Any, int]] = []  # holds the outputs, so that an id names one tensor only

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls.append((name, output, output._version if isinstance(output, Tensor) else 0))

        return hook

    with contextlib.ExitStack() as stack:
        for name, module in _modules(model):
            stack.enter_context(module.register_forward_hook(note(name)))
        stack.enter_context(_evaluating(model))
        stack.enter_context(torch.no_grad())
        model(images.detach().clone())
    layers: dict[str, Layer] = {}
    for name, output, version in calls:
        before = layers.pop(name, None)
        shape = tuple(output.shape) if isinstance(output, Tensor) else None
        layers[name] = Layer(name, shape, before.calls + 1 if before else 1, (id(output), version))
    return layers


def mapped(outputs: Sequence[Tensor]) -> bool:
    """Whether a module ran once and made a map ``[N, K, h, w]`` of more than one position."""
    return len(outputs) == 1 and outputs[0].ndim == 4 and outputs[0].shape[2] * outputs[0].shape[3] > 1


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules that work on images: not the root, and not spectral norm's, whose outputs are 4-D weights.

    A module that is registered under two names appears under both.
    """
    weights: tuple[str, ...] = ()
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, ParametrizationList):
            weights = (*weights, f"{name}.")
        elif name and not name.startswith(weights) and not name.endswith(".parametrizations"):
            yield name, module


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags: Mapping[nn.Module, bool] = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in flags.items():
            module.training = training
