"""What must be as it was, bit for bit: a model, its hooks, and the global generators and flags."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

State = dict[str, Any]
F64 = torch.float64

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def bits(tensor: Tensor | None) -> Any:
    """Return a tensor's type, shape and bytes: what makes it equal bit for bit."""
    if tensor is None:
        return None
    flat = tensor.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
    return str(tensor.dtype), tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


def state_of(*models: nn.Module) -> State:
    """Return everything about models that an explanation must leave alone, by readable names."""
    found: State = {}
    for model in models:
        for name, module in model.named_modules():
            of = name or type(model).__name__
            found[f"the train/eval flag of {of}"] = module.training
            found[f"the class of {of}"] = type(module).__qualname__
            found[f"the attributes of {of}"] = sorted(module.__dict__)
            for key, value in module.__dict__.items():
                if isinstance(value, Tensor) and key in _derived(module):
                    continue
                if key[0] != "_" and key != "training" and isinstance(value, bool | int | float | str | tuple | Tensor):
                    found[f"{key} of {of}"] = bits(value) if isinstance(value, Tensor) else repr(value)
            for hooks in _HOOKS:
                found[f"the hooks of {of} ({hooks.strip('_')})"] = list(getattr(module, hooks))
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            found[f"the value of {name}"] = bits(tensor)
            found[f"requires_grad of {name}"] = tensor.requires_grad
            found[f"the gradient of {name}"] = bits(tensor.grad) if tensor.is_leaf else None
            found[f"the tensor hooks of {name}"] = list(tensor._backward_hooks or ())
    return found


def _derived(module: nn.Module) -> set[Any]:
    """Name the tensors that hooks compute anew at each call: ``weight`` of weight_norm, spectral_norm and pruning."""
    hooks = module._forward_pre_hooks.values()
    return {getattr(hook, "name", None) or getattr(hook, "_tensor_name", None) for hook in hooks}


def counted(state: State) -> State:
    """Return a state with the number of hooks instead of their handles, which no two models share."""
    return {name: len(value) if "hooks of" in name else value for name, value in state.items()}


def environment() -> State:
    """Return the global generators and flags."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    cudnn = torch.backends.cudnn
    return {
        "Python's random generator": (version, numbers, gauss),
        "numpy's random generator": (str(kind), np.asarray(keys).tobytes(), *rest),
        "torch's random generator": bits(torch.get_rng_state()),
        "torch's deterministic flag": torch.are_deterministic_algorithms_enabled(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's anomaly mode": torch.is_anomaly_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "cuDNN's flags": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
    }


def changed(before: State, after: State) -> list[str]:
    """Name what differs between two states."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in a result, in its containers and dataclass fields, with a readable name."""
    if isinstance(value, Tensor):
        yield name, value
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from tensors_in(getattr(value, f.name), f"{name}.{f.name}" if name else f.name)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors_in(part, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from tensors_in(part, f"{name}[{i}]")


def differences(a: Any, b: Any, rtol: float = 0.0, atol: float = 0.0, name: str = "") -> list[str]:
    """Say where two values differ: tensors and floats by more than atol + rtol · (largest magnitude), others at all.

    Both are compared in float64; with ``rtol`` and ``atol`` 0 every difference counts.

    ``provenance`` is not compared: it says how a result was made.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _tensor_differences(a, b, rtol, atol, name)
    if type(a) is not type(b):
        return [f"{name} is {type(a).__name__} and {type(b).__name__}"]
    if is_dataclass(a) and not isinstance(a, type):
        names = [f.name for f in fields(a) if f.name != "provenance"]
        return [
            d
            for n in names
            for d in differences(getattr(a, n), getattr(b, n), rtol, atol, f"{name}.{n}" if name else n)
        ]
    if isinstance(a, Mapping):
        if a.keys() != b.keys():
            return [f"{name} has keys {sorted(map(str, a))} and {sorted(map(str, b))}"]
        return [
            d for key in a for d in differences(a[key], b[key], rtol, atol, f"{name}[{key!r}]" if name else str(key))
        ]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{name} has lengths {len(a)} and {len(b)}"]
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, rtol, atol, f"{name}[{i}]")]
    if isinstance(a, float):
        return _tensor_differences(torch.tensor(a, dtype=F64), torch.tensor(b, dtype=F64), rtol, atol, name)
    return [] if a == b else [f"{name} is {a!r} and {b!r}"]


def _tensor_differences(a: Tensor, b: Tensor, rtol: float, atol: float, name: str) -> list[str]:
    if a.shape != b.shape or a.dtype != b.dtype:
        return [f"{name} is {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"]
    a, b = a.detach().cpu(), b.detach().cpu()
    if bits(a) == bits(b):
        return []
    if not a.is_floating_point():
        return [f"{name} differs"]
    largest = float(torch.nan_to_num(b.double()).abs().max())
    gap = float((a.double() - b.double()).abs().nan_to_num(nan=float("inf")).max())
    if gap <= atol + rtol * largest:
        return []
    return [f"{name} differs by {gap:.3g} (its largest magnitude is {largest:.3g})"]
