"""The loop that trainers share: history, crash-safe checkpoints with exact resume, a NaN guard, a Ctrl-C that saves."""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import storage
from .errors import Interrupted, StorageError, TrainingDiverged
from .interfaces import Dataset
from .runtime import Runtime
from .samples import PER_SAMPLE, Samples

FORMAT = 1
Step = Callable[[int], Mapping[str, Tensor | float]]


class Loop:
    """Runs a training step by step, so that a trainer only writes what one step does.

    A step must derive what it draws from ``(runtime.seed, step)`` (see `genxai_core.draws`) or from torch's global
    generator, which checkpoints hold. Then a training that was killed and resumed ends bit for bit as one that was not.

    Parameters
    ----------
    name
        For progress and messages: ``"gan"``.
    models, optimizers
        What a checkpoint holds, by name.
    steps
        How many steps the training has.
    runtime
        Seed, progress, processes; ``runtime.checkpoints`` is where the checkpoint is kept and looked for.
    config
        Plain values that tell this training from another. A checkpoint of another configuration is refused.
    data
        What it trains on. A checkpoint of other data is refused too: up to 64 samples from all over them are compared.

    Examples
    --------
    >>> loop = Loop("fit", models={"net": net}, optimizers={"net": adam}, steps=100, runtime=runtime)  # doctest: +SKIP
    >>> def step(i: int) -> dict[str, Tensor]:  # doctest: +SKIP
    ...     loss = (net(batch(i)) ** 2).mean()
    ...     loop.update("net", loss)
    ...     return {"loss": loss}
    >>> history = loop.run(step)  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        *,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        steps: int,
        runtime: Runtime,
        config: Any = None,
        data: Samples | Dataset | None = None,
    ) -> None:
        self.name, self.steps, self.runtime = name, steps, runtime
        self.models, self.optimizers = dict(models), dict(optimizers)
        content = _content(data) if runtime.checkpoints is not None else None
        self.config = storage.digest([name, steps, runtime.seed, runtime.precision, config, content])
        self.history: dict[str, list[float]] = {}
        self._step = 0
        self._good = 0

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, step: Step) -> dict[str, list[float]]:
        """Call ``step(i)`` for every i that is not done yet, and return the history.

        Parameters
        ----------
        step
            Does one training step through `update` and returns its losses, which become the history.

        Returns
        -------
        dict
            ``step`` and one series per loss, one value per step.

        Raises
        ------
        TrainingDiverged
            If a loss or gradient is not finite; no optimiser has stepped on it.
        Interrupted
            On Ctrl-C or SIGTERM, after the step that was running has ended and is saved.
        StorageError
            If the checkpoint that is there is damaged, or belongs to another configuration.
        """
        self._resume()
        saved = time.monotonic()
        with self._stopping() as stop, self.runtime.progress(self.name, self.steps, self._step) as advance:
            while self._step < self.steps:
                losses = self._averaged(step(self._step))
                for name, value in {"step": float(self._step), **losses}.items():
                    self.history.setdefault(name, []).append(value)
                self._step += 1
                advance(1, **losses)
                if stop.is_set():
                    raise Interrupted(self._saved_message())
                if time.monotonic() - saved >= self.runtime.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        return self.history

    def update(self, optimizer: str, loss: Tensor) -> None:
        """Backpropagate a loss and step an optimiser, unless the loss or a gradient is not finite.

        Gradients are averaged over the processes before the step.

        Raises
        ------
        TrainingDiverged
            Before anything is stepped.
        """
        stepper = self.optimizers[optimizer]
        self._finite(loss.detach(), f"the loss of {optimizer!r}")
        stepper.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in stepper.param_groups for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in parameters if p.grad is not None]
        self.runtime.average(grads)
        if grads:
            self._finite(_one_number(grads), f"the gradient of {optimizer!r}")
        stepper.step()

    def _finite(self, value: Tensor | float, what: str) -> None:
        total = float(value.sum() if isinstance(value, Tensor) else value)
        if not math.isfinite(total):
            kept = (
                f"the checkpoint of step {self._good} is kept in {self._folder}" if self._good else "none is saved yet"
            )
            raise TrainingDiverged(
                f"{self.name}: {what} is {total} at step {self._step}; it was not stepped on, {kept}. "
                f"Lower the learning rate, or check the data"
            )

    def _averaged(self, losses: Mapping[str, Tensor | float]) -> dict[str, float]:
        if self.runtime.processes == 1:
            return {k: _number(v) for k, v in losses.items()}
        values = torch.tensor([_number(v) for v in losses.values()], device=self.runtime.torch_device)
        self.runtime.average([values])
        return dict(zip(losses, values.tolist()))

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[threading.Event]:
        """Let the first Ctrl-C (or SIGTERM) end the running step; a second one interrupts at once."""
        stop = threading.Event()
        if threading.current_thread() is not threading.main_thread() or self.runtime.processes > 1:
            yield stop
            return
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, frame: Any) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            stop.set()

        try:
            for number in before:
                signal.signal(number, handle)
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)  # None: it was not set from Python

    def _saved_message(self) -> str:
        if self._folder is None:
            return f"{self.name}: interrupted at step {self._step}; nothing is kept without Runtime(checkpoints=DIR)"
        self.save()
        return (
            f"{self.name}: interrupted, step {self._step} of {self.steps} is saved; the same command goes on from there"
        )

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path | None:
        base = self.runtime.checkpoints
        return None if base is None else Path(base) / self.name

    def save(self) -> None:
        """Write the checkpoint: complete and verified before the previous one goes. Only rank 0 writes."""
        if self._folder is None or not self.runtime.is_main:
            return
        tree, tensors = storage.pack(
            {
                "format": FORMAT,
                "config": self.config,
                "step": self._step,
                "history": self.history,
                "models": {k: dict(m.state_dict()) for k, m in self.models.items()},
                "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
                "random": _random_state(),
            }
        )
        with storage.directory(self._folder) as folder:
            storage.write_tensors(folder / "checkpoint.safetensors", tensors)
            storage.write_json(folder / "checkpoint.json", tree, sort=False)
        self._good = self._step

    def _resume(self) -> None:
        if self._folder is None:
            return
        if not storage.recover(self._folder):
            if self._folder.exists():
                storage.verify(self._folder)  # a damaged checkpoint is told, not trained over from the start
            return
        tensors = storage.read_tensors(self._folder / "checkpoint.safetensors")
        state = storage.unpack(storage.read_json(self._folder / "checkpoint.json"), tensors)
        if state["format"] != FORMAT or state["config"] != self.config:
            raise StorageError(
                f"{self._folder}: is the checkpoint of another configuration or of other data; "
                f"delete it or use another checkpoint folder"
            )
        for name, model in self.models.items():
            model.load_state_dict(state["models"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        _set_random_state(state["random"])
        self.history, self._step = state["history"], state["step"]
        self._good = self._step


def _content(data: Samples | Dataset | None) -> Any:
    if data is None:
        return None
    samples, found = data[sorted({i * len(data) // 64 for i in range(64)})], hashlib.sha256()
    for name in PER_SAMPLE:
        value = getattr(samples, name)
        if isinstance(value, Tensor):
            found.update(name.encode() + value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return [len(data), *samples.image_shape, *samples.value_range, found.hexdigest()]


def _one_number(grads: list[Tensor]) -> Tensor | float:
    """Return what is finite where all gradients are, at half the cost of their norm; half precision cannot overflow."""
    sums = [g.sum(dtype=torch.promote_types(g.dtype, torch.float32)) for g in grads]
    if grads[0].device.type == "cpu":
        return sum(abs(s.item()) for s in sums)
    return torch.stack([s.to(grads[0].device) for s in sums]).abs()  # a GPU is waited for once, not for each


def _number(value: Tensor | float) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


def _random_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), np.asarray(keys).astype(np.int64), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
