"""Reference inputs: the images against which a method explains."""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from genxai_core import Samples, Spec, draws
from genxai_core.errors import InputError
from genxai_core.guard import guard

Named = Literal["zero", "low", "mid", "mean", "blur", "noise", "max-distance"]


@runtime_checkable
class HasBaseline(Protocol):
    """A component that makes reference images, such as a counterfactual of each image."""

    def baseline(self, images: Tensor) -> Tensor:
        """Return references ``[N, C, H, W]`` for images ``[N, C, H, W]``, in their value range."""
        ...


Baseline = Named | Tensor | Samples | Spec | HasBaseline
"""What a parameter ``baseline`` may be; see `Reference`."""


class Reference:
    """What the parameter ``baseline`` of an explainer means.

    Parameters
    ----------
    given
        ``zero``: pixel value 0, which is black in (0, 1) and grey in (-1, 1). ``low``: the smallest pixel value,
        black. ``mid``: the centre of the range, grey. ``mean``: each image's own mean colour. ``blur``: the image under
        a Gaussian blur with σ an eighth of its longer side (Sturmfels, Lundberg, Lee, "Visualizing the Impact of
        Feature Attribution Baselines", Distill 2020). ``noise``: uniform over the value range, the same for all images,
        drawn from (seed, index). ``max-distance``: the image of the range that is farthest from this one, pixel by
        pixel its low end where the value is above the centre and else its high end (the same article). A Tensor
        ``[C, H, W]`` or ``[B, C, H, W]``, or Samples: B references for all images.
        A Spec, or an object: a component whose ``baseline(images)`` returns one reference per image.

    Raises
    ------
    ValueError
        If it is none of these.
    """

    def __init__(self, given: Baseline) -> None:
        if isinstance(given, str) and given not in get_args(Named):
            raise ValueError(f"baseline {given!r} is not one of {', '.join(get_args(Named))}")
        if not isinstance(given, str | Tensor | Samples | Spec | HasBaseline):
            raise ValueError(  # noqa: TRY004 - the registry names the place of a ValueError
                f"baseline: a {type(given).__name__} is neither a name, a tensor, samples, "
                f"nor a component with a method baseline(images)"
            )
        self.given = given
        self._component: HasBaseline | None = None

    @property
    def name(self) -> str:
        """What to call it in a result's notes."""
        if isinstance(self.given, str):
            return self.given
        return self.given.use if isinstance(self.given, Spec) else type(self.given).__name__.lower()

    def count(self, wanted: int) -> int:
        """How many different references there are for one image, at most ``wanted``."""
        if isinstance(self.given, str) and self.given == "noise":
            return wanted
        rows = self._rows()
        return 1 if rows is None else min(len(rows), wanted)

    def __call__(self, images: Tensor, value_range: tuple[float, float], seed: int = 0) -> Tensor:
        """Return one reference per image ``[N, C, H, W]``.

        Raises
        ------
        InputError
            If the references given do not fit the images, or there are several.
        """
        rows = self._rows()
        if rows is not None and len(rows) != 1:
            raise InputError(
                f"baseline: {len(rows)} references given where one serves all images; take their mean, "
                f"or use explainer/deeplift-shap or explainer/gradient-shap, which take several"
            )
        return self.at(0, images, value_range, seed)

    def at(self, index: int, images: Tensor, value_range: tuple[float, float], seed: int = 0) -> Tensor:
        """Return reference number ``index`` for every image: ``[N, C, H, W]``."""
        images = images.detach()
        if isinstance(self.given, str):
            return _named(self.given, index, images, value_range, seed)
        rows = self._rows()
        if rows is not None:
            if isinstance(self.given, Samples) and tuple(self.given.value_range) != tuple(value_range):
                raise InputError(
                    f"baseline: the samples are in {self.given.value_range}, the model expects {value_range}"
                )
            found = rows[index % len(rows)].to(images)
            if found.shape != images.shape[1:]:
                raise InputError(f"baseline: a reference is {tuple(found.shape)}, the images {tuple(images.shape[1:])}")
            return found.expand_as(images).contiguous()
        with torch.no_grad():
            made: Any = self._built(images).baseline(images)
        if not isinstance(made, Tensor) or made.shape != images.shape:
            shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"baseline: {self.name} made {shape} for images {list(images.shape)}")
        return made.detach().to(images)

    def _rows(self) -> Tensor | None:
        given = self.given.images if isinstance(self.given, Samples) else self.given
        if not isinstance(given, Tensor):
            return None
        return given[None] if given.ndim == 3 else given

    def _built(self, images: Tensor) -> HasBaseline:
        if not isinstance(self.given, Spec):
            assert isinstance(self.given, HasBaseline)  # the constructor checked
            return self.given
        if self._component is None:
            with guard():  # building may draw random numbers
                built = self.given.build(size=images.shape[-1], channels=images.shape[1])
            if not isinstance(built, HasBaseline):
                raise InputError(f"baseline: {self.given.use} has no method baseline(images)")
            if isinstance(built, torch.nn.Module):
                built.to(images.device).eval()
            self._component = built
        return self._component


def baseline_of(images: Tensor, kind: Baseline, value_range: tuple[float, float], seed: int = 0) -> Tensor:
    """Return one reference ``[N, C, H, W]`` per image ``[N, C, H, W]``; see `Reference`."""
    return Reference(kind)(images, value_range, seed)


def _named(kind: str, index: int, images: Tensor, value_range: tuple[float, float], seed: int) -> Tensor:
    low, high = value_range
    constant = {"zero": 0.0, "low": low, "mid": (low + high) / 2}
    if kind in constant:
        return images.new_full(images.shape, constant[kind])
    if kind == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images).contiguous()
    if kind == "noise":
        drawn = draws.uniform(seed, [index], images.shape[1:], "baseline").to(images)
        return (low + (high - low) * drawn).expand_as(images).contiguous()
    if kind == "max-distance":
        return torch.where(images > (low + high) / 2, low, high).to(images.dtype)
    return _blurred(images)


def _blurred(images: Tensor) -> Tensor:
    sides = (images.shape[3], images.shape[2])  # the library wants width before height
    sigma = max(sides) / 8
    # three σ on each side hold 99.7 % of the kernel; reflection at the border needs less than the side
    kernel = [2 * min(int(3 * sigma), side - 1) + 1 for side in sides]
    blurred: Tensor = gaussian_blur(images, kernel_size=kernel, sigma=[sigma, sigma])
    return blurred
