"""Leave a model exactly as it was found, whatever happens in between."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def guard(*models: nn.Module, freeze: bool = True) -> Iterator[None]:
    """Restore models and global state when the block ends, also when it raises or is interrupted.

    Restored bit for bit: parameters, buffers (BatchNorm statistics, spectral norm's vectors) and other tensors that a
    module holds, also in lists and dicts, ``.grad``, ``requires_grad``, train/eval flags, registered hooks, every
    attribute, submodule and the class of every module; the random generators of Python, numpy and torch on all devices;
    torch's deterministic, cuDNN, precision, anomaly, default-dtype and grad-mode flags. What a helper object of another
    class holds is not looked into.

    Parameters
    ----------
    *models
        What to protect; values and buffers are copied, so memory grows by one copy of the weights.
    freeze
        Inside the block, put the models in eval mode with ``requires_grad`` off on their parameters, and gradients
        enabled (inference mode off), which is what an explainer works with.
    """
    with contextlib.ExitStack() as undo:  # runs every restoration, also when one of them raises
        undo.callback(_Environment().restore)
        for tensor in _unique(models):
            undo.callback(_TensorSnapshot(tensor).restore)
        for module in [module for model in models for module in model.modules()]:
            undo.callback(_Snapshot(module).restore)
        if freeze:
            for model in models:
                model.eval()
                model.requires_grad_(False)
            undo.enter_context(torch.inference_mode(False))
            torch.set_grad_enabled(True)
        yield


def _unique(models: tuple[nn.Module, ...]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for model in models:
        for module in model.modules():
            for part in _reachable(module.__dict__):
                if isinstance(part, Tensor):
                    found[id(part)] = part
    return list(found.values())


_PLAIN = frozenset({bool, int, float, str, type(None)})


def _reachable(value: Any) -> Iterator[Any]:
    """Yield a value and what it holds, through lists, tuples, sets and dicts, each once; no plain values inside."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, dict):
            waiting += [held for held in part.values() if type(held) not in _PLAIN]
        elif isinstance(part, list | tuple | set):
            waiting += [held for held in part if type(held) not in _PLAIN]


def _parts(container: Any) -> Any:
    """Return what a list, dict or set holds, by identity, in its order if it has one."""
    if isinstance(container, set):
        return {id(part) for part in container}
    return [(id(k), id(v)) for k, v in container.items()] if isinstance(container, dict) else [id(p) for p in container]


class _Snapshot:
    """A module's attributes: the mapping itself, and the content of those that hold others (hooks, children, lists)."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kind = type(module)  # parametrizations exchange it, and keep properties on the class that they make
        self.properties = {k: v for k, v in vars(self.kind).items() if isinstance(v, property)}
        self.attributes = dict(module.__dict__)
        held = [part for part in _reachable(module.__dict__) if isinstance(part, dict | set | list)]
        self.containers = [(part, part.copy()) for part in held if part is not module.__dict__]

    def restore(self) -> None:
        for original, content in self.containers:
            if _parts(original) == _parts(content):
                continue  # some libraries hold dicts that refuse to be written to
            if isinstance(original, list):
                original[:] = content
            else:
                original.clear()
                original.update(content)
        self.module.__class__ = self.kind
        for name in self.properties.keys() - vars(self.kind).keys():
            setattr(self.kind, name, self.properties[name])
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)


HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class _TensorSnapshot:
    """A tensor's value, gradient and flags. The gradient is set aside, so it need not be copied."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.storage = tensor.data
        self.value = tensor.detach().clone()
        self.leaf, self.requires_grad = tensor.is_leaf, tensor.requires_grad
        self.grad = tensor.grad if self.leaf else None
        self.attributes = dict(tensor.__dict__)
        self.hooks = {name: (hooks, dict(hooks or {})) for name in HOOKS for hooks in [getattr(tensor, name)]}
        if self.leaf:
            tensor.grad = None

    def restore(self) -> None:
        tensor = self.tensor
        if self.leaf and not tensor.is_leaf:
            tensor.detach_()  # it was written in place with a value that has a graph
        tensor.data = self.storage  # in case .data was exchanged for another tensor
        with torch.no_grad():
            if not _same_bits(tensor, self.value):
                tensor.copy_(self.value)
        if self.leaf:
            tensor.requires_grad_(self.requires_grad)
            tensor.grad = self.grad
        tensor.__dict__.clear()
        tensor.__dict__.update(self.attributes)
        for name, (hooks, content) in self.hooks.items():
            if hooks is not None:
                hooks.clear()
                hooks.update(content)
            if getattr(tensor, name) is not hooks:
                setattr(tensor, name, hooks)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Compare bytes: to `torch.equal`, -0.0 equals 0.0. Unchanged tensors are not written, so graphs stay valid."""
    if a.layout != torch.strided:  # of sparse tensors the bytes are not to be had; they are written anew
        return False
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: Tensor) -> Tensor:
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    if flat.stride(-1) != 1:  # contiguous() lets a single element keep its stride, by which no bytes can be viewed
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


class _Environment:
    """Global generators and flags."""

    def __init__(self) -> None:
        self.python = random.getstate()
        self.numpy: Any = np.random.get_state()  # the global generator, which libraries draw from
        self.torch = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self.warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        self.grad = torch.is_grad_enabled()
        cudnn = torch.backends.cudnn
        self.cudnn = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
        self.dtype = torch.get_default_dtype()
        self.precision = torch.get_float32_matmul_precision()
        self.anomaly = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.set_grad_enabled(self.grad)
        cudnn = torch.backends.cudnn
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = self.cudnn
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.precision)
        torch.autograd.set_detect_anomaly(*self.anomaly)
