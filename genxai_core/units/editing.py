"""Editing units: factor·a + value, inside a block, without touching parameters."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from ..errors import GenxaiWarning, InputError
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
    flow to the activation, the factor and the value. A layer that is called several times is edited each time. Other
    threads are not touched, as with ``torch.no_grad``.

    Parameters
    ----------
    model
        Any module.
    layer
        Name of the layer.
    units
        E channels, each once.
    factor, value
        One finite number for all units, or a tensor ``[E]`` with one for each. None: nothing is added. A factor 0 makes
        0 of infinity and NaN too, unless the factor is learnt (requires grad).
    where
        Bool ``[h, w]`` at the layer's resolution, or ``[N, h, w]``, one map per sample; h = w = 1 for a flat layer.
        None: everywhere.

    Raises
    ------
    InputError
        If an argument has the wrong shape or type, there is no such layer, or, in the forward, no such unit, or
        ``where`` does not fit, or the forward is one that the edit cannot reach (a replica of `DataParallel`, a
        recomputation in another thread).

    Warns
    -----
    GenxaiWarning
        If the layer did not run in the block.
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

    Warns
    -----
    GenxaiWarning
        As `edit`.
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
    with _editing(model, _steps(edits), own=True):
        yield


@dataclass(eq=False)
class _Edit:
    """One edit of one layer: E units, once each; ``where`` is ``[1 or N, 1 or E, h, w]``."""

    layer: str
    units: Tensor
    factor: float | Tensor
    value: float | Tensor | None
    where: Tensor | None
    thread: int = field(default_factory=threading.get_ident)
    own: bool = False
    ran: bool = False

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
            if not bool(torch.isfinite(torch.as_tensor(given)).all()):
                raise InputError(f"layer {layer!r}: {name} is not finite")
        return cls(layer, torch.tensor(chosen, dtype=torch.long), factor, value, where)

    def __call__(self, a: Tensor) -> Tensor:
        if self.units.numel() and int(self.units.max()) >= a.shape[1]:
            raise InputError(
                f"layer {self.layer!r} has {a.shape[1]} units; unit {int(self.units.max())} is none of them"
            )
        at = self.units.to(a.device)
        before = a[:, at]
        factor = self._broadcast(self.factor, a)
        after = before * factor
        if not (isinstance(factor, Tensor) and factor.requires_grad):  # what is learnt keeps its gradient at 0
            after = after.masked_fill(torch.as_tensor(factor == 0, device=a.device), 0)  # also of infinity and NaN
        if self.value is not None:
            after = after + self._broadcast(self.value, a)
        if self.where is not None:
            where = self.where.to(a.device)
            if where.shape[2:] != (a.shape[2:] or (1, 1)) or len(where) not in (1, len(a)):
                raise InputError(
                    f"layer {self.layer!r} returns {list(a.shape)}; places to edit are given for "
                    f"{list(where.shape[2:])} cells" + (f" of {len(where)} samples" if len(where) > 1 else "")
                )
            after = torch.where(where.reshape(*where.shape[:2], *a.shape[2:]), after, before)
        return a.index_copy(1, at, after)  # a copy: neither a nor what follows in place knows of the other

    @staticmethod
    def _broadcast(number: float | Tensor, a: Tensor) -> float | Tensor:
        if not isinstance(number, Tensor):
            return number
        return number.to(a.device, a.dtype).reshape(-1, *(1 for _ in a.shape[2:]))


class _Edits:
    """The hook through which all edits of a layer go, each in the thread that entered it."""

    handle: Any
    lock = threading.Lock()

    def __init__(self) -> None:
        self.steps: tuple[_Edit, ...] = ()

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor:
        for step in self.steps:
            if getattr(module, "_is_replica", False):
                raise InputError(f"layer {step.layer!r}: replicas of DataParallel cannot be edited; use one device")
            if step.own and _checkpointed():
                raise InputError(
                    f"layer {step.layer!r} runs under reentrant gradient checkpointing, whose backward pass "
                    f"would be that of the unedited layer; switch it off"
                )
            if step.thread == threading.get_ident():
                output = step(checked(output, step.layer))
                step.ran = True
            elif torch._C._current_graph_task_id() != -1:
                raise InputError(
                    f"layer {step.layer!r} is computed again in the backward pass of another thread than the one that "
                    f"edits it; switch gradient checkpointing off"
                )
        return output  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {"handle": self.handle, "steps": ()}  # the copy of a model that is being edited is not edited

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
def _editing(model: nn.Module, steps: Sequence[_Edit], *, own: bool = False) -> Iterator[None]:
    found = [(layer_of(model, step.layer), step) for step in steps]
    with contextlib.ExitStack() as undo:
        for module, step in reversed(found) if own else found:
            with _Edits.lock:
                hook = _Edits.of(module)
                step.own = own
                hook.steps = (step, *hook.steps) if own else (*hook.steps, step)
            undo.callback(_leave, hook, step)
        yield
    idle = [step.layer for step in steps if len(step.units) and not step.ran]
    if idle and not own:
        said = f"layer {idle[0]!r} did not run here, so its edit did nothing"
        warnings.warn(said, GenxaiWarning, stacklevel=5)  # at the end of the block


def _checkpointed() -> bool:
    """Return whether a layer runs without a graph now, in order to run again in the backward pass."""
    frame = None if torch.is_grad_enabled() else sys._getframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__ and any(frame.f_locals["ctx"].needs_input_grad):
            return True
        frame = frame.f_back
    return False


def _leave(hook: _Edits, step: _Edit) -> None:
    with _Edits.lock:
        hook.steps = tuple(other for other in hook.steps if other is not step)
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
