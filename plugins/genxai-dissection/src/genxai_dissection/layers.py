"""Which layers of a generator have units in space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import units
from genxai_core.errors import InputError


def spatial_layers(model: nn.Module, seed: int) -> tuple[str, ...]:
    """Return, for each resolution, the last leaf module that returns maps ``[N, U, h, w]`` of it; not the picture.

    Parameters
    ----------
    model
        A generator that can sample.
    seed
        Of the one image that is drawn to find out.

    Raises
    ------
    InputError
        If there is none.
    """
    last: dict[tuple[int, ...], str] = {}
    hooks = []

    def see(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
                shapes[name] = tuple(output.shape[1:])

        return hook

    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for name, module in units.named_layers(model).items():
            if not any(True for _ in module.children()):
                hooks.append(module.register_forward_hook(see(name)))
        with torch.no_grad():
            picture = tuple(model.sample(1, seed).images.shape[1:])  # type: ignore[operator]
    finally:
        for handle in hooks:
            handle.remove()
    for name, shape in shapes.items():  # in the order of first calls
        if shape != picture and shape[1] * shape[2] > 1:
            last[shape[1:]] = name
    if not last:
        raise InputError(f"{type(model).__name__} has no layer that returns maps [N, U, h, w]; name layers")
    return tuple(last.values())
