"""Editing units: factor·a + value, inside a block, without touching parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..samples import integer
from .layers import checked, layer_of

if TYPE_CHECKING:
    from ..results import UnitEdits


@contextlib.contextmanager
def edit(
    model: nn.Module,
    layer: str,
    units: int | Sequence[int] | Tensor,
    *,
    factor: float | Tensor = 0.0,
    value: float | Tensor | None = None,
    where: Tensor | None = None,
) -> Iterator[None]:
    """Let a layer return a′ = factor·a + value at some of its units, inside ``where``, and a elsewhere.

    With the default factor 0 and no value that is ablation; with a value k, insertion; with ``factor=1 - α`` and
    ``value=α * k``, α ∈ [0, 1]^E, anything between (Bau et al., "GAN Dissection", ICLR 2019, section 3.2). Gradients
    flow to the activation, the factor and the value. A layer that is called several times is edited each time.

    Parameters
    ----------
    model
        Any module.
    layer
        Name of the layer.
    units
        E channels, each once.
    factor, value
        One number for all units, or a tensor ``[E]`` with one for each. None: nothing is added.
    where
        Bool ``[h, w]`` at the layer's resolution, or ``[N, h, w]``, one map per sample. None: everywhere.

    Raises
    ------
    InputError
        If an argument has the wrong shape or type, there is no such layer, or, in the forward, no such unit, or
        ``where`` does not fit.
    """
    if where is not None:
        if not isinstance(where, Tensor) or where.dtype != torch.bool or where.ndim not in (2, 3):
            found = f"{where.dtype} {list(where.shape)}" if isinstance(where, Tensor) else type(where).__name__
            raise InputError(f"where must be bool [h, w] or [N, h, w], not {found}")
        where = where.reshape(-1, 1, *where.shape[-2:])
    with _editing(model, [_Edit.of(layer, units, factor, value, where)]):
        yield


@contextlib.contextmanager
def applied(model: nn.Module, edits: UnitEdits) -> Iterator[None]:
    """Apply edits inside the block, as `edit` does each of them.

    Parameters
    ----------
    model
        Any module.
    edits
        Without a condition: that needs images and a judge, as ``generator/edited`` has them.

    Raises
    ------
    InputError
        As `edit`, or if the edits have a condition.
    """
    if edits.condition is not None:
        raise InputError(
            "these edits are for images that a judge chooses, which cannot be known inside a model; "
            "use create('generator/edited', base=…, edits=…, judge=…)"
        )
    with _editing(model, _steps(edits)):
        yield


@contextlib.contextmanager
def built_in(model: nn.Module, edits: UnitEdits) -> Iterator[None]:
    """Do as `applied`, whatever the condition, and before all edits that were entered earlier: a part of the model."""
    with _editing(model, _steps(edits), first=True):
        yield


@dataclass(frozen=True, eq=False)
class _Edit:
    """One edit of one layer: E units, once each; ``where`` is ``[1 or N, 1 or E, h, w]``."""

    layer: str
    units: Tensor
    factor: float | Tensor
    value: float | Tensor | None
    where: Tensor | None

    @classmethod
    def of(
        cls, layer: str, units: Any, factor: float | Tensor, value: float | Tensor | None, where: Tensor | None
    ) -> _Edit:
        single = getattr(units, "ndim", None) == 0 or not hasattr(units, "__iter__")
        try:
            chosen = [integer(unit) for unit in ([units] if single else units)]
        except TypeError:
            chosen = [-1]
        if len(set(chosen)) < len(chosen) or min(chosen, default=0) < 0:
            raise InputError(f"layer {layer!r}: units must be channel numbers, each once, not {units!r}")
        for name, given in (("factor", factor), ("value", 0.0 if value is None else value)):
            if not isinstance(given, int | float | Tensor):
                raise InputError(f"layer {layer!r}: {name} is a {type(given).__name__}; give a number or a tensor")
            if isinstance(given, Tensor) and given.shape not in ((), (len(chosen),)):
                raise InputError(f"layer {layer!r}: {name} is {list(given.shape)} for {len(chosen)} units")
        return cls(layer, torch.tensor(chosen, dtype=torch.long), factor, value, where)

    def __call__(self, a: Tensor) -> Tensor:
        if self.units.numel() and int(self.units.max()) >= a.shape[1]:
            raise InputError(
                f"layer {self.layer!r} has {a.shape[1]} units; unit {int(self.units.max())} is none of them"
            )
        at = self.units.to(a.device)
        before = a[:, at]
        after = before * self._broadcast(self.factor, a)
        if self.value is not None:
            after = after + self._broadcast(self.value, a)
        if self.where is not None:
            where = self.where.to(a.device)
            if where.shape[2:] != a.shape[2:] or len(where) not in (1, len(a)):
                raise InputError(
                    f"layer {self.layer!r} returns {list(a.shape)}; places to edit are given for "
                    f"{list(where.shape[2:])} cells" + (f" of {len(where)} samples" if len(where) > 1 else "")
                )
            after = torch.where(where, after, before)
        return a.index_copy(1, at, after)  # a copy: neither a nor what follows in place knows of the other

    @staticmethod
    def _broadcast(number: float | Tensor, a: Tensor) -> float | Tensor:
        if not isinstance(number, Tensor):
            return number
        return number.to(a.device, a.dtype).reshape(-1, *(1 for _ in a.shape[2:]))


class _Edits:
    """The hook through which all edits of a layer go."""

    handle: Any

    def __init__(self) -> None:
        self.steps: list[_Edit] = []

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor:
        for step in self.steps:
            output = step(checked(output, step.layer))
        return output  # type: ignore[no-any-return]

    @classmethod
    def of(cls, module: nn.Module) -> _Edits:
        """Return a module's hook, registered before all others if it is new."""
        for hook in module._forward_hooks.values():
            if isinstance(hook, cls):
                return hook
        made = cls()
        made.handle = module.register_forward_hook(made, prepend=True)
        return made


@contextlib.contextmanager
def _editing(model: nn.Module, steps: Sequence[_Edit], *, first: bool = False) -> Iterator[None]:
    found = [(layer_of(model, step.layer), step) for step in steps]
    with contextlib.ExitStack() as undo:
        for module, step in reversed(found) if first else found:
            hook = _Edits.of(module)
            hook.steps.insert(0 if first else len(hook.steps), step)
            undo.callback(_leave, hook, step)
        yield


def _leave(hook: _Edits, step: _Edit) -> None:
    hook.steps.remove(step)
    if not hook.steps:
        hook.handle.remove()


def _steps(edits: UnitEdits) -> list[_Edit]:
    """Group edits by layer, in which every unit comes once; a unit that comes again belongs to a later group."""
    groups: dict[tuple[int, str], list[int]] = {}
    seen: dict[tuple[str, int], int] = {}
    for row, unit in enumerate(zip(edits.layers, edits.units.tolist())):
        seen[unit] = seen.get(unit, -1) + 1
        groups.setdefault((seen[unit], unit[0]), []).append(row)
    steps = []
    for (_, layer), rows in groups.items():
        places = None if edits.locations is None else edits.locations[rows]
        where = None if places is None or bool(places.all()) else places[None]
        values = None if edits.values is None else edits.values[rows]
        steps.append(_Edit(layer, edits.units[rows], edits.factors[rows], values, where))
    return steps
