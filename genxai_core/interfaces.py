"""What a plugin implements: Explainer, Metric, Trainer, Dataset, Segmenter. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from .errors import InputError
from .explanation import Explanation
from .samples import Index, Samples, indices

if TYPE_CHECKING:
    from torch import Tensor

    from .models import Discriminator
    from .runtime import Runtime
    from .trained import Trained

Accepts = Literal["images", "latents", "samples", "dataset", "nothing"]


class Explainer(ABC):
    """Explains a model. An author declares four traits and writes `_explain`; the base class does the rest.

    Attributes
    ----------
    explains
        ``"discriminator"``, ``"generator"``, or the name of a capability in `genxai_core.models` (``"HasLatents"``);
        ``"nothing"`` for one that brings its models itself.
    accepts
        What ``inputs`` is: ``images`` ``[N, C, H, W]``, ``latents``, ``samples``, a whole ``dataset``, or ``nothing``.
    returns
        The Explanation type.
    stochastic
        Whether it draws random numbers; then every batch is seeded.
    distributed
        Whether it takes part on every process; else it runs on the first one alone.
    """

    explains: ClassVar[str] = "discriminator"
    accepts: ClassVar[Accepts] = "images"
    returns: ClassVar[type[Explanation]] = Explanation
    stochastic: ClassVar[bool] = False
    distributed: ClassVar[bool] = False

    @abstractmethod
    def _explain(self, model: Any, inputs: Any, target: int | None) -> Explanation:
        """Explain one batch for one target.

        The model is in eval mode with ``requires_grad`` off on its parameters; gradients are enabled; who needs the
        gradient by the images makes them require it. A keyword parameter ``runtime``, if declared, receives the
        Runtime.

        Parameters
        ----------
        model
            The explainee, unwrapped.
        inputs
            One batch of what ``accepts`` names, on the model's device.
        target
            The class index; None for models that are not discriminators.
        """

    def explain(
        self,
        model: Any = None,
        inputs: Any = None,
        *,
        target: int | Sequence[int] | Tensor | None = None,
        runtime: Runtime | None = None,
    ) -> Any:
        """Explain a model, leaving it bit for bit as it was.

        Parameters
        ----------
        model
            A model of the kind, or with the capability, that ``explains`` names; None where that is ``nothing``.
        inputs
            A Tensor, Samples or a Dataset, as ``accepts`` says.
        target
            Class index to explain: one for all images, or one per image. None means 0 where the discriminator has a
            single logit.
        runtime
            Device, seed, precision, batch size, progress. Default: ``Runtime()`` on the model's device.

        Returns
        -------
        Explanation
            Of the type ``returns``, detached, on the CPU, with its provenance.

        Raises
        ------
        InputError
            If the model or the inputs have the wrong type, shape or range, or are not finite.
        TargetError
            If the target is missing or out of range.
        MissingCapability
            If the model lacks what the explainer needs.
        """
        from .explaining import run

        return run(self, model, inputs, target, runtime)


@runtime_checkable
class Attributes(Protocol):
    """An explainer that can also work inside a training step."""

    def attribute(self, model: Discriminator, images: Tensor, target: int) -> Tensor:
        """Return maps ``[N, H, W]`` or ``[N, C, H, W]``: no guard, no batching, no progress."""
        ...


class Metric(ABC):
    """Measures samples or explanations.

    Attributes
    ----------
    needs
        What `update` takes by keyword, a subset of real, generated, model, inputs, explanation, masks, labels.
    higher_is_better
        Direction of every number that `compute` returns, by its name; None where neither is better.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    higher_is_better: ClassVar[Mapping[str, bool | None]] = {}
    runtime: Runtime | None = None

    @abstractmethod
    def update(self, **inputs: Any) -> None:
        """Take in more data: exactly the keywords of ``needs``."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the figures of all data so far."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what another instance has seen, as if this one had seen it."""

    @abstractmethod
    def reset(self) -> None:
        """Forget all data."""

    def measure(self, *, runtime: Runtime | None = None, **inputs: Any) -> dict[str, float]:
        """Reset, update once, compute. Models that the metric holds or is given are left as they were.

        Parameters
        ----------
        runtime
            Device, seed, batch size, progress.
        **inputs
            What ``needs`` names. ``real`` and ``generated`` are Samples or Datasets.

        Raises
        ------
        InputError
            If something needed is missing, or something else is given.
        """
        from .guard import guard
        from .runtime import Runtime

        given = frozenset(inputs)
        if given != self.needs:
            wrong = ", ".join(sorted(given ^ self.needs))
            raise InputError(f"{type(self).__name__} takes exactly {', '.join(sorted(self.needs))}; check: {wrong}")
        for name in ("real", "generated"):
            if isinstance(inputs.get(name), Dataset):
                inputs[name] = inputs[name][:]
        self.runtime = runtime or Runtime()
        self.reset()
        with guard(*_modules(self, inputs)):
            self.runtime.seed_global()
            self.update(**inputs)
            return self.compute()


class Trainer(ABC):
    """Trains models on data.

    Attributes
    ----------
    produces
        The models that `fit` returns, name -> kind: ``{"generator": "generator", "discriminator": "discriminator"}``.
    """

    produces: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        """Train. Global generators are seeded already, and restored afterwards."""

    def fit(self, data: Samples | Dataset, runtime: Runtime | None = None) -> Trained:
        """Train on data and return models, history and how they were made.

        Parameters
        ----------
        data
            Samples or a Dataset.
        runtime
            Device, seed, precision, progress; ``checkpoints`` makes the training resumable.

        Raises
        ------
        InputError
            If the data are of another type or empty.
        TrainingDiverged
            If a loss or gradient stops being finite.
        Interrupted
            On Ctrl-C, after saving a checkpoint.
        """
        from .guard import guard
        from .runtime import Runtime

        if not isinstance(data, Samples | Dataset):
            raise InputError(
                f"{type(self).__name__}.fit takes Samples or a Dataset, not {type(data).__name__}; "
                f"wrap a tensor as Samples(images, value_range=(-1.0, 1.0))"
            )
        if len(data) == 0:
            raise InputError(f"{type(self).__name__}.fit: the data are empty")
        runtime = runtime or Runtime()
        with guard():  # without a model it restores the global generators
            runtime.seed_global()
            return self._fit(data, runtime)


class Dataset(ABC):
    """Images by index. ``dataset[i]``, ``dataset[a:b]`` and ``dataset[[i, j]]`` return Samples.

    Attributes
    ----------
    value_range
        Smallest and largest pixel value.
    image_shape
        ``(C, H, W)``.
    class_names
        What the labels mean; empty where there are none.
    """

    value_range: tuple[float, float] = (-1.0, 1.0)
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def _samples(self, rows: list[int]) -> Samples:
        """Return the images at these rows, each in ``range(len(self))``."""

    def __getitem__(self, index: Index) -> Samples:
        """Return Samples, also for one index."""
        return self._samples(indices(index, len(self)))

    def load(self, *, runtime: Runtime | None = None) -> Samples | Dataset:
        """Return what a pipeline step passes on: itself. A dataset that needs a model overrides this."""
        return self

    def plot(self, n: int = 64) -> Any:
        """Draw the first n images in a grid."""
        return self[: min(n, len(self))].plot(n)


class Segmenter(ABC):
    """Says where concepts are in images.

    An author declares ``concepts`` and writes `_segment`; the base class does the rest.

    Attributes
    ----------
    concepts
        Their names.
    """

    concepts: tuple[str, ...]

    @abstractmethod
    def _segment(self, samples: Samples) -> Tensor:
        """Return bool ``[N, concepts, H, W]`` for one batch; concepts may overlap.

        Modules that the segmenter holds are in eval mode, and no gradient is recorded.
        """

    def segment(self, samples: Samples, runtime: Runtime | None = None) -> Tensor:
        """Say where the concepts are, leaving every model as it was.

        Where the samples have exact masks of all the concepts, under the concepts' names, these are the answer.

        Parameters
        ----------
        samples
            Images, at least one.
        runtime
            ``batch_size`` bounds memory.

        Returns
        -------
        Tensor
            bool ``[N, concepts, H, W]``, on the samples' device.

        Raises
        ------
        InputError
            If samples are of another type, empty or not finite.
        ExplainerError
            If `_segment` returns another type or shape.
        """
        from .segmenting import run

        return run(self, samples, runtime)


def _modules(*held: object) -> list[Any]:
    """Torch modules that are among the arguments, or that their components and containers hold, however deep."""
    from torch import nn

    found: list[Any] = []
    seen: set[int] = set()
    queue = list(held)
    while queue:
        value = queue.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.append(value)
        elif isinstance(value, list | tuple | set):
            queue.extend(value)
        elif isinstance(value, Mapping):
            queue.extend(value.values())
        elif isinstance(value, Explainer | Metric | Trainer | Dataset | Segmenter):
            queue.extend(vars(value).values())
    return found
