"""The layers of a model by name, and watching what they return."""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from ..errors import InputError


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's layers by name: all its submodules but those that compute weights (parametrizations).

    A module that is registered under two names appears under both.
    """
    found: dict[str, nn.Module] = {}
    weights: tuple[str, ...] = ()
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, ParametrizationList):
            weights = (*weights, f"{name}.")
        elif name and not name.startswith(weights) and not name.endswith(".parametrizations"):
            found[name] = module
    return found


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """Return the layer of a name, or refuse with the nearest one."""
    _refuse_compiled(model)
    found = named_layers(model)
    if name in found:
        for i, letter in enumerate(f"{name}."):
            if letter == ".":
                _refuse_compiled(found[name[:i]])
        return found[name]
    near = difflib.get_close_matches(str(name), found, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join([*list(found)[:12], *(["…"] if len(found) > 12 else [])]) or "no layers"
    raise InputError(f"layer {name!r}: {type(model).__name__} has no such layer{hint} (it has: {listed})")


def _refuse_compiled(module: nn.Module) -> None:
    """Refuse a module that runs as a program made of it, in which hooks are not called."""
    made = isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules
    if made or module._compiled_call_impl is not None:
        raise InputError(
            f"{type(module).__name__} is compiled, scripted or traced: it runs without looking at its layers; "
            f"use the original module (model._orig_mod of torch.compile)"
        )


def checked(output: Any, layer: str) -> Tensor:
    """Return a layer's output if its second axis is its units."""
    if not isinstance(output, Tensor):
        raise InputError(f"layer {layer!r} returns a {type(output).__name__}, not a tensor; name a layer inside it")
    if output.ndim not in (2, 4) or not output.is_floating_point():
        found = f"{output.dtype} {list(output.shape)}"
        raise InputError(f"layer {layer!r} returns {found}, not floating-point [N, U, h, w] or [N, U]; name another")
    return output


Watcher = Callable[[str, Tensor], Tensor | None]


@contextlib.contextmanager
def watching(model: nn.Module, layers: str | Iterable[str], see: Watcher) -> Iterator[None]:
    """Show what the layers return in this thread to a function, which may return another output in its place."""
    thread = threading.get_ident()

    def hook(layer: str, home: nn.Module) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        def call(module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
            if module is not home or threading.get_ident() != thread:  # a copy took the hook along
                return None
            return see(layer, checked(output, layer))

        return call

    with contextlib.ExitStack() as hooks:
        names = (layers,) if isinstance(layers, str) else tuple(dict.fromkeys(layers))
        for name, module in [(name, layer_of(model, name)) for name in names]:
            hooks.enter_context(module.register_forward_hook(hook(name, module)))
        yield
