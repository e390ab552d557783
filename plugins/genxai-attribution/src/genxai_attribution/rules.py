"""Other backward rules for what a network does to its activations: for modules, functions, methods, in place or not.

captum hooks modules, so it misses functional calls and modules of other classes, and gives wrong values or raises where
one module object runs twice. Here every call that torch makes while the block runs is seen (torch's function modes),
which leaves no hook behind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Backward = Callable[[Tensor], Tensor]
"""Gradient by a function's output -> gradient by its input."""

Rule = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Backward]]
"""``(function, detached input) -> (its output, its backward rule)``."""


class Replaced(TorchFunctionMode):
    """While the block runs, functions with a rule go backwards by it; what goes forward does not change.

    Parameters
    ----------
    rules
        Name of a function, without the underscore of its in-place form -> its rule.

    Attributes
    ----------
    seen
        Names of all functions that were called on a tensor that requires a gradient.
    used
        How often a rule was applied.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        self.rules = rules
        self.seen: set[str] = set()
        self.used = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Apply the rule of a function that has one."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        live = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.requires_grad]
        if not live or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        plain = name if name.startswith("__") else name.rstrip("_")
        self.seen.add(plain)
        rule, given = self.rules.get(plain), args[0] if args else kwargs.get("input")
        if rule is None or len(live) != 1 or given is not live[0]:
            return func(*args, **kwargs)
        self.used += 1
        here = name != plain or bool(_argument(func, args, kwargs, "inplace"))
        rest = {k: v for k, v in kwargs.items() if k != "input"}

        def pure(x: Tensor) -> Tensor:
            out: Tensor = func(x.clone() if here else x, *args[1:], **rest)
            return out

        out, backward = rule(pure, given.detach())
        if not isinstance(out, Tensor):  # such as pooling with indices
            return func(*args, **kwargs)
        result: Tensor = _Ruled.apply(given, out, backward)
        return given.copy_(result) if here else result  # who works in place means the tensor to change


class _Ruled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, out: Tensor, backward: Backward) -> Tensor:
        ctx.rule, ctx.dtype = backward, given.dtype
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.rule(gradients[0]).to(ctx.dtype), None, None


def _argument(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], wanted: str) -> Any:
    if wanted in kwargs:
        return kwargs[wanted]
    try:
        names = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):  # functions written in C have no signature, and no flag inplace
        return None
    return args[names.index(wanted)] if wanted in names and names.index(wanted) < len(args) else None


def slope(function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, Tensor]:
    """Return an elementwise function's output and its derivative, both detached."""
    with torch.enable_grad():
        leaf = given.detach().requires_grad_()
        out = function(leaf)
        (derivative,) = torch.autograd.grad(out.sum(), leaf)
    return out.detach(), derivative
