"""Layers that run several times for an image, as a diffusion model's do: reading, and editing in, one of the calls."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from genxai_core import units
from genxai_core.errors import InputError


def ran(seen: Mapping[str, Tensor], layer: str, n: int, call: int | None = None) -> Tensor:
    """Return what was recorded of a layer, which must have one row for each of n samples.

    Raises
    ------
    InputError
        If it has not, or the layer was not called so often.
    """
    if call is not None and layer not in seen:
        raise _too_few(layer, call)
    found = seen[layer]
    if len(found) != n:
        raise InputError(
            f"layer {layer!r} returned {len(found)} rows for {n} samples; it runs several times for a batch: name "
            f"another layer, or a batch size that the model samples at once"
        )
    return found


@contextlib.contextmanager
def in_call(
    model: nn.Module, layer: str, call: int | None, enter: Callable[[], contextlib.AbstractContextManager[None]]
) -> Iterator[None]:
    """Be inside ``enter()`` while a layer runs for one time in the block, in this thread, and not while it runs again.

    Parameters
    ----------
    model
        Any module.
    layer
        Name of the layer.
    call
        Which of its calls in the block, from 0. None: each.
    enter
        Returns a context such as `genxai_core.units.edit` of this layer, entered before the layer runs.

    Raises
    ------
    InputError
        When the block ends, if the layer was not called so often.
    """
    if call is None:
        with enter():
            yield
        return
    module, thread, calls = units.named_layers(model)[layer], threading.get_ident(), itertools.count()
    with contextlib.ExitStack() as block:
        inside = block.enter_context(contextlib.ExitStack())

        def before(home: nn.Module, inputs: Any) -> None:
            if home is module and threading.get_ident() == thread and next(calls) == call:
                inside.enter_context(enter())

        def after(home: nn.Module, inputs: Any, output: Any) -> None:
            if home is module and threading.get_ident() == thread:
                inside.close()  # the edit has its hook before this one

        block.enter_context(module.register_forward_pre_hook(before))
        block.enter_context(module.register_forward_hook(after))
        yield
        if next(calls) <= call:
            raise _too_few(layer, call)


def _too_few(layer: str, call: int) -> InputError:
    return InputError(
        f"layer {layer!r} has no call {call} when a batch of images is made: it runs {call} times at most; calls are "
        f"counted from 0, one per timestep of a diffusion model"
    )
