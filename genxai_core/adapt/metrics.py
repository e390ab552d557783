"""Any ``torchmetrics.Metric`` as a Metric."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..guard import guard
from ..interfaces import Dataset, Metric
from ..models import ValueRange
from ..runtime import Runtime
from ..samples import Samples
from .modules import checked_channels, checked_range, to_channels

Feed = Literal["sets", "generated", "pairs", "labels"]

_WHO = "adapt.metric"
_NEEDS = {
    "sets": frozenset({"real", "generated"}),
    "generated": frozenset({"generated"}),
    "pairs": frozenset({"real", "generated"}),
    "labels": frozenset({"model", "inputs", "labels"}),
}


def metric(
    torchmetric: Any,
    *,
    feed: Feed | None = None,
    value_range: ValueRange | None = None,
    channels: int | None = None,
    names: Sequence[str] = (),
) -> AdaptedMetric:
    """Make a Metric of a torchmetrics metric.

    Parameters
    ----------
    torchmetric
        The metric; it is not copied. Models in it run in eval mode and are left as they were.
    feed
        What its ``update`` is given, batch by batch:

        - ``sets`` compares two sets: ``update(real, real=True)``, ``update(generated, real=False)``, as FID and KID;
        - ``generated`` judges one set: ``update(generated)``, as the Inception Score;
        - ``pairs`` compares image i with image i: ``update(generated, real)``, as SSIM, PSNR and LPIPS;
        - ``labels`` judges a classifier: ``update(model(inputs), labels)``, as Accuracy.

        None reads ``sets`` or ``generated`` from the signature of ``update``; the other two look alike there, so one
        of them must be named.
    value_range
        The pixel range that the metric expects, such as (0, 1); images are mapped to it. Not for ``labels``.
    channels
        1: RGB images reach the metric as luma. 3: grey images reach it repeated. None: as they come.
    names
        Names of the figures. Default: the class's name, with ``_1``, ``_2`` … for the further values of a tuple, or the
        keys of a dict.

    Raises
    ------
    InputError
        If it is not a torchmetrics metric.
    ValueError
        If an argument is missing or has no meaning.
    """
    import torchmetrics  # optional: whoever has a metric to adapt has it

    if not isinstance(torchmetric, torchmetrics.Metric):
        hint = "; adapt each of its metrics" if isinstance(torchmetric, torchmetrics.MetricCollection) else ""
        raise InputError(f"{_WHO} takes a torchmetrics.Metric, not a {type(torchmetric).__name__}{hint}")
    feed = feed or _feed_of(torchmetric)
    if feed not in get_args(Feed):
        raise ValueError(f"feed={feed!r} is not one of {', '.join(get_args(Feed))}")
    if (value_range is None) != (feed == "labels"):
        raise ValueError(
            "feed='labels' takes no value_range: images reach the model as they are"
            if feed == "labels"
            else "say which pixel range the metric expects: value_range=(0, 1), or what its data_range means"
        )
    checked_channels(channels, "channels")
    return AdaptedMetric(
        torchmetric, feed, value_range and checked_range(value_range, "value_range"), channels, tuple(names)
    )


def _feed_of(torchmetric: Any) -> Feed:
    taken = [p.name for p in inspect.signature(torchmetric.update).parameters.values() if p.default is p.empty]
    if len(taken) == 2 and taken[1] == "real":
        return "sets"
    if taken in (["imgs"], ["images"], ["img"]):
        return "generated"
    raise ValueError(
        f"{type(torchmetric).__name__}.update({', '.join(taken)}) does not say what it is given: "
        f"feed='pairs' for images compared one by one, feed='labels' for a classifier's logits and labels"
    )


class AdaptedMetric(Metric):
    """A torchmetrics metric read as a Metric; made by `metric`. What it draws is drawn from the runtime's seed."""

    needs: frozenset[str]  # type: ignore[misc]  # a class's trait elsewhere; here each instance has its own
    higher_is_better: Mapping[str, bool | None]  # type: ignore[misc]

    def __init__(
        self, torchmetric: Any, feed: Feed, value_range: ValueRange | None, channels: int | None, names: tuple[str, ...]
    ) -> None:
        self._held = (torchmetric,)  # in a tuple, for `measure` restores modules, and figures so far are no model
        self.feed, self.value_range, self.channels, self.names = feed, value_range, channels, names
        self.needs = _NEEDS[feed]
        first, *others = names or (type(torchmetric).__name__,)
        self.higher_is_better = {first: torchmetric.higher_is_better, **dict.fromkeys(others)}

    @property
    def torchmetric(self) -> Any:
        """The metric that was adapted."""
        return self._held[0]

    def update(self, **inputs: Any) -> None:
        """Take in Samples or Datasets (``labels``: a tensor, and ``inputs`` a tensor or Samples).

        Raises
        ------
        InputError
            If something is missing, of another type, or of another length than its partner.
        """
        if frozenset(inputs) != self.needs:
            raise InputError(f"{_WHO}: update takes exactly {', '.join(sorted(self.needs))}; got: {', '.join(inputs)}")
        runtime, m = self.runtime or Runtime(), self.torchmetric
        models = [inputs["model"]] if self.feed == "labels" else []
        with guard(*_models(m), *models), torch.no_grad():
            runtime.seed_global(m.update_count)
            if self.feed == "labels":
                for images, labels in _labelled(inputs["inputs"], inputs["labels"], runtime.batch_size):
                    first = next(inputs["model"].parameters(), m)
                    m.update(inputs["model"](images.to(first.device)).to(m.device), labels.to(m.device))
            elif self.feed == "pairs":
                if len(inputs["real"]) != len(inputs["generated"]):
                    raise InputError(
                        f"{_WHO}: {len(inputs['generated'])} generated and {len(inputs['real'])} real images "
                        f"make no pairs; give equally many"
                    )
                batches = (self._batches(inputs[name], name, runtime.batch_size) for name in ("generated", "real"))
                for generated, real in zip(*batches, strict=True):
                    m.update(generated, real)
            else:
                for name in sorted(self.needs, reverse=True):  # real first, whatever the order of the keywords
                    role = {"real": name == "real"} if self.feed == "sets" else {}
                    for images in self._batches(inputs[name], name, runtime.batch_size):
                        m.update(images, **role)

    def _batches(self, images: Any, name: str, size: int) -> Iterator[Tensor]:
        if not isinstance(images, Samples | Dataset):
            raise InputError(
                f"{_WHO}: {name} must be Samples or a Dataset, not {type(images).__name__}; "
                f"wrap a tensor as Samples(images, value_range=(low, high))"
            )
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            pixels = batch.images if self.value_range is None else batch.rescale(self.value_range).images
            yield (pixels if self.channels is None else to_channels(pixels, self.channels)).to(self.torchmetric.device)

    def compute(self) -> dict[str, float]:
        """Return the figures by name.

        Raises
        ------
        InputError
            If the metric gives something else than single numbers, or not as many as there are names.
        """
        with guard(*_models(self.torchmetric)):
            (self.runtime or Runtime()).seed_global()
            result = self.torchmetric.compute()
        if isinstance(result, Mapping):
            named = dict(zip(self.names or map(str, result), result.values(), strict=not self.names))
            better = dict.fromkeys(named, self.torchmetric.higher_is_better)
            self.higher_is_better = {**better, **(self.higher_is_better if self.names else {})}
        else:
            values = tuple(result) if isinstance(result, tuple | list) else (result,)
            name = type(self.torchmetric).__name__
            names = self.names or (name, *(f"{name}_{i}" for i in range(1, len(values))))
            if len(names) != len(values):
                raise InputError(f"{_WHO}: {name} gives {len(values)} figures, names has {len(names)}")
            named = dict(zip(names, values))
        for key, value in named.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                raise InputError(
                    f"{_WHO}: {key} is a tensor {list(value.shape)}; give the metric a reduction to one number"
                )
        return {key: float(value) for key, value in named.items()}

    def merge(self, other: Self) -> None:
        """Take in what another instance has seen, after what this one has.

        Raises
        ------
        InputError
            If the metrics differ in type, or cannot be merged exactly.
        """
        mine, theirs = self.torchmetric, other.torchmetric
        if type(mine) is not type(theirs) or self.feed != other.feed:
            raise InputError(f"{_WHO}: {type(theirs).__name__} cannot be merged into {type(mine).__name__}")
        if not theirs.update_called:
            return
        if not mine.update_called:  # what an update leaves beside the states (FID's dtype) has to come along
            self._held = (copy.deepcopy(theirs).to(mine.device),)
            return
        before = dict(mine.metric_state)
        constant = _constant(mine, theirs)
        try:
            # merge_state puts what it is given in front: so it is given our state, while the metric holds theirs
            for name, added in theirs.metric_state.items():
                setattr(mine, name, _moved(added, mine.device))
            mine.merge_state(before)
        except RuntimeError as error:
            for name, state in before.items():
                setattr(mine, name, state)
            raise InputError(f"{_WHO}: {type(mine).__name__} cannot be merged: {error}") from error
        for name in constant:
            setattr(mine, name, before[name])
        mine._update_count += theirs.update_count
        mine._computed = None  # else a figure computed before the merge would be given again

    def reset(self) -> None:
        """Forget all data (but a metric with ``reset_real_features=False`` keeps the real ones)."""
        self.torchmetric.reset()


def _constant(mine: Any, theirs: Any) -> list[str]:
    """Name the states that are averaged over processes and equal in both; refuse those without an exact merge.

    `merge_state` weights an average by one side's number of updates, and stacks what has no reduction.
    """
    from torchmetrics.utilities.data import dim_zero_mean

    constant = []
    for name, reduction in mine._reductions.items():
        state, added = getattr(mine, name), getattr(theirs, name)
        if isinstance(state, list) or reduction not in (None, dim_zero_mean):
            continue
        if reduction is None or not torch.equal(state, added.to(state.device)):
            raise InputError(f"{_WHO}: {type(mine).__name__} keeps {name!r} in a form that cannot be merged exactly")
        constant.append(name)
    return constant


def _moved(state: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return [item.to(device) for item in state] if isinstance(state, list) else state.to(device)


def _models(holder: Any) -> Iterator[nn.Module]:
    """Yield the networks in a metric. A metric inside it (a wrapper's) is none: its figures are to stay."""
    from torchmetrics import Metric as TorchMetric

    for child in holder.children():
        if any(isinstance(module, TorchMetric) for module in child.modules()):
            yield from _models(child)
        else:
            yield child


def _labelled(inputs: Any, labels: Any, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    if not isinstance(labels, Tensor) or len(labels) != len(inputs):
        shape = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(
            f"{_WHO}: labels must be a tensor with one label for each of {len(inputs)} images, not {shape}"
        )
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        yield (batch if isinstance(batch, Tensor) else batch.images), labels[start : start + size]
