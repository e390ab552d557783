"""Which layers of a generator are scored if none are named."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import units
from genxai_core.errors import InputError


def default_layers(model: Any, latents: Tensor) -> tuple[str, ...]:
    """Return, for each resolution, the last leaf module that returns maps ``[N, U, h, w]`` of it; not the picture.

    Parameters
    ----------
    model
        A generator with latents.
    latents
        ``[N, …]``, of which the first is run.

    Raises
    ------
    InputError
        If there is none.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def see(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
                shapes[name] = tuple(output.shape[1:])

        return hook

    like = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), latents)
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, module in units.named_layers(model).items():
            if not any(True for _ in module.children()):
                hooks.callback(module.register_forward_hook(see(name)).remove)
        picture = tuple(model(latents[:1].to(like)).shape[1:])
    last: dict[tuple[int, ...], str] = {}
    for name, shape in shapes.items():  # in the order of first calls
        if shape != picture and shape[1] * shape[2] > 1:
            last[shape[1:]] = name
    if not last:
        raise InputError(f"{type(model).__name__} has no layer that returns maps [N, U, h, w]; name layers")
    return tuple(last.values())
