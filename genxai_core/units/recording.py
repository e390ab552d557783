"""Keeping the activations of the latest forward."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from ..errors import InputError
from .layers import watching


class Activations(dict[str, Tensor]):
    """Activations by layer."""

    def __missing__(self, layer: str) -> Tensor:
        raise InputError(
            f"layer {layer!r} is not recorded, or did not run; recorded so far: {', '.join(self) or 'none'}"
        )


@contextlib.contextmanager
def record(
    model: nn.Module, layers: str | Iterable[str], *, detach: bool = False, call: int | None = None
) -> Iterator[Activations]:
    """Keep the activations of the latest forward, or of one of a layer's calls in the block.

    Parameters
    ----------
    model
        Any module.
    layers
        Names of layers, or one.
    detach
        Keep them without their graph. Else gradients of what comes later can be taken with respect to them.
    call
        Which call of a layer in the block is kept, from 0: a diffusion model calls its U-Net once per timestep. None
        keeps the last.

    Yields
    ------
    Activations
        Layer -> ``[N, U, h, w]`` or ``[N, U]``, of that call. They stay readable after the block; in-place
        operations that follow the layer do not reach them.

    Raises
    ------
    InputError
        If there is no such layer, or, in the forward, it returns something else.
    """
    kept = Activations()
    calls: dict[str, int] = {}

    def keep(layer: str, activation: Tensor) -> Tensor | None:
        calls[layer] = calls.get(layer, -1) + 1
        if call is not None and call != calls[layer]:
            return None
        if detach:
            kept[layer] = activation.detach().clone()
            return None
        kept[layer] = activation.clone()
        return kept[layer].clone()

    with watching(model, layers, keep):
        yield kept
