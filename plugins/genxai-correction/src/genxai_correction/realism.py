"""How near each generated image is to real ones, by nearest neighbours in a feature space."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Discriminator, Explainer, ImageScores, Runtime, Samples, models, units
from genxai_core.errors import InputError

NAME = "explainer/realism"

_CELLS = 4_000_000
"""Entries of a distance matrix that are held at once; it bounds memory at some 100 MB."""


class Realism(Explainer):
    """A realism score ``[N]`` for each image, at least 0; from 1 on it lies where real images lie.

    Explained is a discriminator with ``features(images) -> [N, F]``, such as what ``trainer/classifier`` trains, or
    ``discriminator/inception``; or any discriminator, of which a ``layer`` is taken. With φ the features of an image,
    NN_k(φ_r) the k-th nearest *other* real image, and r over the half of the real images with the smallest
    ‖φ_r − NN_k(φ_r)‖ (Kynkäänniemi et al., NeurIPS 2019, eq. 3),

        R(φ_g) = max_r ‖φ_r − NN_k(φ_r)‖ / ‖φ_g − φ_r‖.

    The other half has the outliers among the real images, whose large balls would call anything real. Where several
    share the median's radius all of them count. An image with exactly the features of one of those real images scores
    infinity. Distances are those of the paper; its published program divides their squares, which ranks alike.

    **What it does not show.** It finds an artifact only as far as the features do: a small one in an otherwise common
    image hardly moves them. A rare image that is fine scores as low as a broken one. Scores hang on the number of real
    images: compare at equal numbers. Real images that the features' model was trained on lie closer together than new
    ones. So look at the lowest ones before you believe them, and see `trainer/artifact-classifier`'s interval.

    Parameters
    ----------
    real
        Real images, more than k, in the range and of the size that the model expects.
    k
        Which neighbour, at least 1; 3 in the paper.
    layer
        φ is instead the mean and the standard deviation of each channel of this layer, ``[N, U, h, w]``, over the
        picture, divided by its spread over the real images; or the values of one that is ``[N, U]``. What a classifier
        tells apart leaves textures out; the first layers of the GAN's own discriminator show them.

    Raises
    ------
    ValueError
        If k is not positive, or there are no more real images than k.
    MissingCapability
        If the model has no features, and no layer is named.
    InputError
        If images do not fit the model, there is no such layer, or features are malformed or not finite.
    """

    explains: ClassVar[str] = "discriminator"
    accepts = "dataset"
    returns: ClassVar[type[ImageScores]] = ImageScores

    def __init__(self, real: Samples | Dataset, k: int = 3, layer: str | None = None) -> None:
        if k < 1:
            raise ValueError(f"k {k} must be at least 1")
        if len(real) <= k:
            raise ValueError(f"{len(real)} real images have no neighbour number {k}; give at least {k + 1}")
        self.real, self.k, self.layer = real, k, layer

    def explain(
        self,
        model: Any = None,
        inputs: Any = None,
        *,
        target: int | Sequence[int] | Tensor | None = None,
        runtime: Runtime | None = None,
    ) -> Any:
        """Score images; see `Explainer.explain`. Features belong to no class, so a classifier needs no target here."""
        if target is None and isinstance(model, Discriminator):
            target = 0
        return super().explain(model, inputs, target=target, runtime=runtime)

    def _explain(
        self, model: Any, inputs: Samples | Dataset, target: int | None, runtime: Runtime | None = None
    ) -> ImageScores:
        runtime, layer = runtime or Runtime(), self.layer
        if layer is None:
            models.require(model, models.HasFeatures, by=NAME)
            embed = model.features
        else:
            embed = functools.partial(_statistics, model, layer)
        with runtime.progress("realism", len(self.real) + len(inputs)) as advance:
            real = _features(model, embed, self.real, "real", runtime, advance)
            found = _features(model, embed, inputs, "scored", runtime, advance)
        if layer is not None:
            spread = real.std(0, correction=0)
            varied = spread > 1e-9 * spread.max()  # the others say nothing, and would be divided by 0
            if not bool(varied.any()):
                raise InputError(f"{NAME}: layer {layer!r} says the same of every real image; name another one")
            real, found = real[:, varied] / spread[varied], found[:, varied] / spread[varied]
        scores = realism(found, real, self.k)
        low, high = map(float, inputs.value_range)
        notes = {"unit": "realism; from 1 on among the real", "neighbour": self.k, "real images": len(real)}
        notes |= {} if layer is None else {"layer": layer}
        return ImageScores(scores, inputs[:].images.cpu(), (low, high), notes)


@torch.no_grad()
def _features(model: Any, embed: Any, data: Samples | Dataset, role: str, runtime: Runtime, advance: Any) -> Tensor:
    """Return features ``[N, F]`` in float64 on the CPU."""
    wanted = getattr(model, "value_range", None)
    if wanted and tuple(data.value_range) != tuple(wanted):
        raise InputError(
            f"{NAME}: the {role} images are in {tuple(data.value_range)}, the model expects {tuple(wanted)}; "
            f"use samples.rescale({tuple(wanted)})"
        )
    shape = getattr(model, "image_shape", None)
    if shape and tuple(data.image_shape) != tuple(shape):
        raise InputError(
            f"{NAME}: the {role} images are {tuple(data.image_shape)}, the model takes {tuple(shape)}; "
            f"resize them, or use a model for their size"
        )
    held = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
    like = next((t for t in held if t.is_floating_point()), torch.zeros((), device=runtime.torch_device))
    low, high = map(float, data.value_range)
    parts = []
    for start in range(0, len(data), runtime.batch_size):
        images = data[start : start + runtime.batch_size].images
        if not bool(torch.isfinite(images).all()):
            raise InputError(f"{NAME}: the {role} images hold NaN or infinity; remove those")
        if float(images.min()) < low - (high - low) / 2 or float(images.max()) > high + (high - low) / 2:
            raise InputError(f"{NAME}: pixels of the {role} images lie far outside {(low, high)}; rescale them")
        with runtime.autocast():
            rows = embed(images.to(like))
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(images):
            found = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InputError(f"{NAME}: features are {found}, not [{len(images)}, F]; flatten them")
        if not bool(torch.isfinite(rows).all()):
            raise InputError(f"{NAME}: features of the {role} images hold NaN or infinity; check the model")
        parts.append(rows.to("cpu", torch.float64))
        advance(len(images))
    return torch.cat(parts)


def _statistics(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """Return the mean and the standard deviation of each channel of a layer, ``[N, 2 U]``; or its values ``[N, U]``."""
    with units.record(model, [layer], detach=True) as seen:
        model(images)
    maps = seen[layer].float()
    if maps.ndim not in (2, 4):
        raise InputError(
            f"{NAME}: layer {layer!r} gives {list(maps.shape)}, not [N, U, h, w] or [N, U]; name another one"
        )
    return maps if maps.ndim == 2 else torch.cat([maps.mean((2, 3)), maps.std((2, 3), correction=0)], 1)


def realism(generated: Tensor, real: Tensor, k: int) -> Tensor:
    """Return the realism score ``[M]`` of rows ``[M, F]`` among real rows ``[N, F]``, N above k; see `Realism`.

    Neither the other rows scored nor the order of the real ones matter.
    """
    step = max(1, _CELLS // len(real))
    radii = torch.cat(
        [_apart(part, real).kthvalue(k + 1, dim=1).values for part in torch.split(real, step)]
    )  # 0 is itself
    kept = radii <= radii.median()  # torch's median is one of the values: the lower of the two in the middle
    centres, radii = real[kept], radii[kept]
    scores = []
    for part in torch.split(generated, step):
        apart = _apart(part, centres)
        ratio = torch.where(apart == 0, torch.inf, radii / apart)
        scores.append(ratio.max(dim=1).values)
    return torch.cat(scores)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances, by differences: products would round that of two equal rows to above 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
