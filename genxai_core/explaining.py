"""What `Explainer.explain` does around an author's `_explain`: check, guard, seed, batch, join, stamp."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import __version__, models, saving
from .errors import ExplainerError, GenxaiWarning, InputError, TargetError
from .explanation import Attribution, Explanation
from .guard import guard
from .interfaces import Dataset, Explainer, _modules
from .runtime import Runtime
from .samples import Samples, integer

Target = int | Sequence[int] | Tensor | None


def run(explainer: Explainer, model: Any, inputs: Any, target: Target, runtime: Runtime | None) -> Explanation:
    """Carry out `Explainer.explain`; see there."""
    runtime = runtime or Runtime()
    name = saving.name_of(explainer)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    _check_model(explainer, model, target, name)
    device = _device(model, runtime, name)
    if device.type in ("cpu", "cuda"):
        runtime = runtime.with_(device=str(device))  # so that precision and the author follow the model
    order: list[int] | None = None
    held = _modules(model, explainer)
    with guard(*held):
        if explainer.accepts == "nothing":
            if inputs is not None:
                raise InputError(f"{name} takes no inputs")
            results, count = [_whole(explainer, model, None, _single(target, name), runtime, name)], 1
        elif explainer.accepts == "dataset":
            source = _Source(explainer, model, inputs, name)
            single = _single(target, name)
            if isinstance(model, models.Discriminator):
                single = _targets(single, len(source), _outputs(model, source, device, runtime, name), name)[0]
            results, count = [_whole(explainer, model, inputs, single, runtime, name)], len(source)
        else:
            source = _Source(explainer, model, inputs, name)
            count = len(source)
            groups = _groups(model, source, target, device, runtime, name)
            order = [i for _, rows in groups for i in rows]
            results = list(_batches(explainer, model, source, groups, device, runtime, name, held))
    result = type(results[0]).concat(results)
    if order is not None and order != list(range(count)):
        result = result[torch.argsort(torch.tensor(order)).tolist()]
    if isinstance(result, Attribution) and not bool(result.maps.any()):
        warnings.warn(
            f"{name}: every map is exactly zero; the logit does not depend on the input in the way that it measures",
            GenxaiWarning,
            stacklevel=3,
        )
    return dataclasses.replace(result, provenance=_provenance(explainer, model, runtime, device, name, count))


# -- the model --------------------------------------------------------------------------------------------------


def _check_model(explainer: Explainer, model: Any, target: Target, name: str) -> None:
    kinds = {"discriminator": models.Discriminator, "generator": models.Generator}
    wanted = explainer.explains
    if wanted == "nothing":
        if model is not None:
            raise InputError(f"{name} brings its own models; call it without one")
        if target is not None:
            raise TargetError(f"{name} brings its own models, so it takes no target")
        return
    if wanted in kinds:
        if not isinstance(model, kinds[wanted]):
            hint = f"; wrap it: genxai_core.adapt.{wanted}(module, …)" if isinstance(model, nn.Module) else ""
            raise InputError(f"{name} explains a {wanted}, not a {type(model).__name__}{hint}")
        return
    capability = getattr(models, wanted, None)
    if capability is None:
        raise ExplainerError(f"{name}: explains = {wanted!r} is neither a kind of model nor a capability")
    models.require(model, capability, by=name)


def _device(model: Any, runtime: Runtime, name: str) -> torch.device:
    """Where the model is. An explanation never moves a model."""
    first = next((p for p in (*model.parameters(), *model.buffers())), None) if isinstance(model, nn.Module) else None
    if first is None:
        return runtime.torch_device
    if runtime.device != "auto" and first.device != runtime.torch_device:
        raise InputError(
            f"{name}: the model is on {first.device}, the runtime says {runtime.torch_device}; "
            f"move the model with .to({str(runtime.torch_device)!r}) or use device 'auto'"
        )
    return first.device


# -- the inputs -------------------------------------------------------------------------------------------------


class _Source:
    """Inputs of any accepted form, by rows."""

    def __init__(self, explainer: Explainer, model: Any, inputs: Any, name: str) -> None:
        self.accepts, self.name, self.inputs = explainer.accepts, name, inputs
        self.model_range = getattr(model, "value_range", None)
        self.image_shape = getattr(model, "image_shape", None)
        self.latent_shape = getattr(model, "latent_shape", None)
        if inputs is None:
            raise InputError(f"{name} needs inputs ({self.accepts})")
        if isinstance(inputs, Tensor):
            if self.accepts in ("samples", "dataset"):
                raise InputError(
                    f"{name} takes {self.accepts}, not a tensor; wrap it as Samples(images, value_range=(low, high))"
                )
        elif not isinstance(inputs, Samples | Dataset):
            raise InputError(
                f"{name} takes {self.accepts} as a Tensor, Samples or a Dataset, not {type(inputs).__name__}"
            )
        elif self.accepts != "latents" and self.model_range and tuple(inputs.value_range) != tuple(self.model_range):
            raise InputError(
                f"{name}: the images are in {inputs.value_range}, the model expects {tuple(self.model_range)}; "
                f"use samples.rescale({tuple(self.model_range)})"
            )
        if (isinstance(inputs, Tensor) and inputs.ndim == 0) or len(inputs) == 0:
            raise InputError(f"{name}: the inputs are empty")
        parameters = [p for p in model.parameters() if p.is_floating_point()] if isinstance(model, nn.Module) else []
        self.dtype = parameters[0].dtype if parameters else None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def value_range(self) -> tuple[float, float]:
        return tuple(getattr(self.inputs, "value_range", None) or self.model_range or (-1.0, 1.0))

    def batch(self, rows: list[int], device: torch.device) -> Any:
        """Copy rows to the model's device, floats in the model's precision (numpy's are double)."""
        if isinstance(self.inputs, Tensor):
            batch = self.inputs[torch.as_tensor(rows, device=self.inputs.device)]
        else:
            samples = self.inputs[rows]
            if self.accepts == "samples":
                self._check(samples.images)
                return dataclasses.replace(samples.to(device), images=self._settled(samples.images, device))
            found = samples.latents if self.accepts == "latents" else samples.images
            if found is None:
                raise InputError(
                    f"{self.name}: these samples have no latents; sample them from a generator with latents"
                )
            batch = found
        self._check(batch)
        return self._settled(batch, device)

    def _settled(self, batch: Tensor, device: torch.device) -> Tensor:
        return batch.detach().to(device, self.dtype).clone()

    def _check(self, batch: Tensor) -> None:
        batch = batch.detach()
        if not batch.is_floating_point():
            raise InputError(f"{self.name}: inputs are {batch.dtype}; convert them to float in the model's value range")
        if not bool(torch.isfinite(batch).all()):
            raise InputError(f"{self.name}: inputs hold NaN or infinity; remove those samples")
        if self.accepts == "latents":
            if self.latent_shape is not None and tuple(batch.shape[1:]) != tuple(self.latent_shape):
                raise InputError(
                    f"{self.name}: latents are {tuple(batch.shape[1:])}, the model takes {tuple(self.latent_shape)}"
                )
            return
        if batch.ndim != 4:
            raise InputError(f"{self.name}: images must be [N, C, H, W], not {list(batch.shape)}")
        if self.image_shape is not None and tuple(batch.shape[1:]) != tuple(self.image_shape):
            raise InputError(
                f"{self.name}: images are {tuple(batch.shape[1:])}, the model takes {tuple(self.image_shape)}"
            )
        if self.model_range is not None:
            low, high = self.model_range
            slack = (high - low) / 2
            if float(batch.min()) < low - slack or float(batch.max()) > high + slack:
                raise InputError(
                    f"{self.name}: pixel values reach from {float(batch.min()):.3g} to {float(batch.max()):.3g}, "
                    f"the model expects {tuple(self.model_range)}; rescale the images"
                )


# -- targets and batches ----------------------------------------------------------------------------------------


def _single(target: Target, name: str) -> int | None:
    try:
        return None if target is None else integer(target)
    except TypeError:
        raise TargetError(f"{name} takes one integer target, not {type(target).__name__}") from None


def _outputs(model: models.Discriminator, source: _Source, device: torch.device, runtime: Runtime, name: str) -> int:
    """How many logits the discriminator returns for an image, found by asking it."""
    probe = source.batch([0], device)
    with torch.no_grad(), runtime.autocast():
        logits = model(probe.images if isinstance(probe, Samples) else probe)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"{name}: the discriminator returns {shape}, not logits [N, K]; "
            f"adapt it with genxai_core.adapt.discriminator"
        )
    return logits.shape[1]


def _targets(target: Target, n: int, k: int, name: str) -> list[int]:
    """One class index per image."""
    if target is None:
        if k > 1:
            raise TargetError(f"{name}: the model has {k} outputs; say which to explain: target=0…{k - 1}")
        target = 0
    single = getattr(target, "ndim", None) == 0 or isinstance(target, str) or not hasattr(target, "__iter__")
    try:
        values = [integer(target)] * n if single else [integer(t) for t in target]  # type: ignore[union-attr]
    except TypeError:
        raise TargetError(f"{name}: target {' '.join(repr(target).split())} is not a class index") from None
    if len(values) != n:
        raise TargetError(f"{name}: {len(values)} targets for {n} images; give one, or one per image")
    for value in values:
        if not 0 <= value < k:
            raise TargetError(f"{name}: target {value} is out of range; the model's outputs are 0…{k - 1}")
    return values


def _groups(
    model: Any, source: _Source, target: Target, device: torch.device, runtime: Runtime, name: str
) -> list[tuple[int | None, list[int]]]:
    """Rows by target, so that an author's `_explain` sees one integer at a time."""
    n = len(source)
    if not isinstance(model, models.Discriminator) or source.accepts == "latents":
        return [(_single(target, name), list(range(n)))]
    values = _targets(target, n, _outputs(model, source, device, runtime, name), name)
    return [(t, [i for i, v in enumerate(values) if v == t]) for t in sorted(set(values))]


def _whole(
    explainer: Explainer, model: Any, inputs: Any, target: int | None, runtime: Runtime, name: str
) -> Explanation:
    """Explain at once, for explainers that batch for themselves or have nothing to batch."""
    runtime.seed_global()
    with runtime.autocast():
        return _detached(_typed(explainer, _call(explainer, model, inputs, target, runtime), name))


def _batches(
    explainer: Explainer,
    model: Any,
    source: _Source,
    groups: list[tuple[int | None, list[int]]],
    device: torch.device,
    runtime: Runtime,
    name: str,
    held: Sequence[nn.Module],
) -> Iterator[Explanation]:
    with runtime.progress(name.partition("/")[2] or name, len(source)) as advance:
        for target, rows in groups:
            for start in range(0, len(rows), runtime.batch_size):
                chunk = rows[start : start + runtime.batch_size]
                batch = source.batch(chunk, device)
                images = batch.images if isinstance(batch, Samples) else batch
                kept = images.clone()  # an author may write into what is given
                runtime.seed_global(chunk[0])
                with runtime.autocast():
                    result = _call(explainer, model, batch, target, runtime)
                    for module in held:  # what a library left behind must not reach the next batch
                        module.eval().requires_grad_(False)
                    result = _checked(explainer, result, len(chunk), kept, target, name)
                    if isinstance(result, Attribution) and source.accepts != "latents":
                        result = _completed(result, model, kept, target, source.value_range)
                yield _detached(result)
                advance(len(chunk))


def _call(explainer: Explainer, model: Any, inputs: Any, target: int | None, runtime: Runtime) -> Explanation:
    if "runtime" in inspect.signature(explainer._explain).parameters:
        return explainer._explain(model, inputs, target, runtime=runtime)  # type: ignore[call-arg]
    return explainer._explain(model, inputs, target)


def _typed(explainer: Explainer, result: Any, name: str) -> Any:
    if not isinstance(result, explainer.returns):
        raise ExplainerError(
            f"{name} declares returns = {explainer.returns.__name__}, but returned {type(result).__name__}"
        )
    if isinstance(result, Attribution) and not bool(torch.isfinite(result.maps).all()):
        raise ExplainerError(f"{name} returned NaN or infinity in its maps")
    return result


def _checked(explainer: Explainer, result: Any, n: int, inputs: Tensor, target: int | None, name: str) -> Any:
    result = _typed(explainer, result, name)
    if result.per_sample and len(result) != n:
        raise ExplainerError(f"{name} returned {len(result)} results for {n} inputs")
    drawn_on = isinstance(result, Attribution) and explainer.accepts != "latents"
    if drawn_on and result.maps.shape[-2:] != inputs.shape[-2:]:
        raise ExplainerError(
            f"{name} returned maps {list(result.maps.shape)} for images {list(inputs.shape)}; "
            f"bring them to the images' size (bilinear, align_corners=False)"
        )
    if drawn_on and result.maps.ndim == 4 and result.maps.shape[1] not in (1, inputs.shape[1]):
        raise ExplainerError(
            f"{name} returned maps of {result.maps.shape[1]} channels for images of {inputs.shape[1]}; "
            f"maps are [N, H, W] or [N, C, H, W]"
        )
    if isinstance(result, Attribution) and target is not None and {int(t) for t in result.target} != {target}:  # type: ignore[union-attr]
        raise ExplainerError(f"{name} was asked for target {target} and returned maps of another; pass target on")
    return result


def _completed(
    result: Attribution, model: Any, images: Tensor, target: int | None, value_range: tuple[float, float]
) -> Attribution:
    """Fill in what the author left out but a reader of the map wants: the images and the logits."""
    added: dict[str, Any] = {}
    if result.images is None:
        added |= {"images": images, "value_range": value_range}
    if result.logits is None and target is not None:
        with torch.no_grad():
            added["logits"] = model(images)[:, target]
    return dataclasses.replace(result, **added)


def _detached(result: Explanation) -> Explanation:
    def settle(value: Any) -> Any:
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        if isinstance(value, dict):
            return {k: settle(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(settle(v) for v in value)
        return value

    changed = {f.name: settle(getattr(result, f.name)) for f in dataclasses.fields(result)}
    return dataclasses.replace(result, **changed)


def _provenance(
    explainer: Explainer, model: Any, runtime: Runtime, device: torch.device, name: str, count: int
) -> dict[str, Any]:
    return {
        "explainer": saving.describe(explainer),
        "model": saving.describe(model),
        "inputs": count,
        "seed": runtime.seed,
        "batch_size": runtime.batch_size,
        "precision": runtime.precision,
        "device": device.type,
        "genxai": __version__,
    }
