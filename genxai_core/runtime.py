"""Where and how work runs: device, seed, precision, progress, processes."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Precision = Literal["float32", "bfloat16"]
Advance = Callable[..., None]


@dataclass(frozen=True)
class Runtime:
    """How a component runs. Every verb (`explain`, `fit`, `measure`) takes one; the default is made for a notebook.

    Parameters
    ----------
    device
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, or ``cuda:1``.
    seed
        Everything random derives from it.
    precision
        ``float32``, or ``bfloat16`` for mixed precision (autocast).
    batch_size
        Images that pass through a model at once: bounds memory, and fixes the last bits of results.
    quiet
        Show no progress. Nothing is shown either where standard error is not a terminal.
    checkpoints
        A folder in which trainers keep their checkpoint and from which they go on; None keeps none.
    checkpoint_seconds
        The time between two checkpoints.
    single
        Whether to act as the only process, whatever launched this one.

    Raises
    ------
    InputError
        If the device is unknown or absent, or the batch size is not positive.
    """

    device: str = "auto"
    seed: int = 0
    precision: Precision = "float32"
    batch_size: int = 64
    quiet: bool = False
    checkpoints: Path | None = None
    checkpoint_seconds: float = 30.0
    single: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or isinstance(self.batch_size, bool) or self.batch_size < 1:
            raise InputError(f"batch_size {self.batch_size!r} must be a whole number, at least 1")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise InputError(f"seed {self.seed!r} must be a whole number")
        if not (math.isfinite(self.checkpoint_seconds) and self.checkpoint_seconds >= 0):
            raise InputError(f"checkpoint_seconds {self.checkpoint_seconds!r} must be a time in seconds, at least 0")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"precision {self.precision!r} is not float32 or bfloat16")
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device):
            raise InputError(f"device {self.device!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, …")

    # -- device and precision ---------------------------------------------------------------------------------

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` means on this machine, in this process.

        Raises
        ------
        InputError
            If CUDA is asked for and there is none.
        """
        import torch

        available = torch.cuda.is_available()
        if self.device == "cpu" or (self.device == "auto" and not available):
            return torch.device("cpu")
        count = torch.cuda.device_count() if available else 0
        explicit = self.device.partition(":")[2]
        index = int(explicit) if explicit else int(os.environ.get("LOCAL_RANK", "0"))
        if index >= count:
            raise InputError(f"device {self.device!r}: this machine has {count} CUDA devices; use --device cpu or auto")
        return torch.device("cuda", index)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which models run at this precision."""
        import torch

        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16)

    def seed_global(self, offset: int = 0) -> None:
        """Seed the global generators of Python, numpy and torch with ``seed + offset``."""
        import random

        import numpy as np
        import torch

        value = (self.seed + offset) % 2**32
        random.seed(value)
        np.random.seed(value)  # libraries that we wrap draw from it
        torch.manual_seed(value)

    def with_(self, **changes: Any) -> Runtime:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    # -- progress -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show a bar with the time left while the block runs.

        Yields
        ------
        callable
            ``advance(n=1, **info)`` moves the bar; keywords are shown beside it.
        """
        if self.quiet or not self.is_main or not sys.stderr.isatty():
            yield lambda n=1, **info: None
            return
        from rich import progress
        from rich.console import Console

        with progress.Progress(
            progress.TextColumn("  {task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[info]}"),
            console=Console(stderr=True),
            transient=True,
        ) as bar:
            task = bar.add_task(description, total=total, completed=done, info="")

            def advance(n: int = 1, **info: Any) -> None:
                shown = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in info.items())
                if info:
                    bar.update(task, info=shown)
                bar.advance(task, n)

            yield advance

    # -- processes ----------------------------------------------------------------------------------------------

    @property
    def processes(self) -> int:
        """How many processes torchrun or accelerate launched."""
        return 1 if self.single else int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return 0 if self.single else int(os.environ.get("RANK", "0"))

    @property
    def is_main(self) -> bool:
        """Whether this process plans, looks up and writes."""
        return self.rank == 0

    def _state(self) -> Any:
        from accelerate import PartialState

        # the others wait while rank 0 does a step alone, which may take longer than torch's 10 or 30 minutes
        return PartialState(cpu=self.torch_device.type == "cpu", timeout=datetime.timedelta(days=30))

    def alone(self) -> Runtime:
        """Return a copy for work that one process does while the others wait: it sees no other process."""
        return self.with_(single=True)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.processes > 1:
            self._state().wait_for_everyone()

    def share(self, value: Any) -> Any:
        """Return rank 0's value on every process."""
        if self.processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        self._state()
        return broadcast_object_list([value])[0]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the processes, in place, in one exchange."""
        if self.processes == 1:
            return
        import torch
        from accelerate.utils import reduce

        self._state()
        tensors = list(tensors)
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        # accelerate divides by its own count of processes, which is ours
        mean = reduce(flat, reduction="mean")
        for t, part in zip(tensors, mean.split([t.numel() for t in tensors])):
            t.copy_(part.view_as(t))

    def shard(self, n: int) -> slice:
        """Return this process's equal share of n items.

        Raises
        ------
        InputError
            If the processes do not divide n.
        """
        if n % self.processes:
            raise InputError(f"a batch of {n} does not divide among {self.processes} processes; change one of them")
        share = n // self.processes
        return slice(self.rank * share, (self.rank + 1) * share)
