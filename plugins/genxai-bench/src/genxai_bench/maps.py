"""Maps that do not look at the model, and figures of a map against a known region."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Attribution, Samples, draws
from genxai_core.errors import InputError


def edges(inputs: Samples, target: int) -> Attribution:
    """Answer with the magnitude of the Sobel gradient of the mean over channels, ``[N, H, W]``, borders replicated.

    The control of Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018: what looks like an explanation and
    never saw the model.
    """
    gray = inputs.images.mean(1, keepdim=True)
    across = gray.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    gradient = F.conv2d(F.pad(gray, (1, 1, 1, 1), mode="replicate"), kernels)
    return attribution(gradient.square().sum(1).sqrt(), inputs, target)


def noise(inputs: Samples, target: int, seed: int) -> Attribution:
    """Answer with independent standard normal values, ``[N, H, W]``."""
    shape = inputs.images.shape
    return attribution(draws.normal(seed, range(shape[0]), shape[2:], stream="random-map"), inputs, target)


def constant(inputs: Samples, target: int) -> Attribution:
    """Answer with one everywhere."""
    return attribution(torch.ones_like(inputs.images[:, 0]), inputs, target)


def attribution(maps: Tensor, inputs: Samples, target: int) -> Attribution:
    """Wrap maps of these inputs."""
    return Attribution(maps, target, images=inputs.images, value_range=inputs.value_range)


def plane(answer: Attribution, inputs: Samples) -> Tensor:
    """Return an answer's maps as ``[N, H, W]`` in double precision, summed over channels.

    Raises
    ------
    InputError
        If they are maps of other images.
    """
    maps = answer.maps.detach().double()
    maps = maps.sum(1) if maps.ndim == 4 else maps
    wanted = [len(inputs), *inputs.images.shape[2:]]
    if list(maps.shape) != wanted:
        raise InputError(f"the answer's maps are {list(maps.shape)}, the images need {wanted}")
    return maps


def energy(maps: Tensor, region: Tensor) -> Tensor:
    """Return the share ``[N]`` of a map's magnitude that lies in a region; 0 for a map of zeros.

    Parameters
    ----------
    maps
        ``[N, H, W]``.
    region
        bool ``[N, H, W]``.
    """
    if maps.shape != region.shape:
        raise InputError(f"maps {list(maps.shape)} and region {list(region.shape)} differ; give one region per map")
    mass = maps.abs()
    whole = mass.flatten(1).sum(1)
    inside = (mass * region).flatten(1).sum(1)
    return torch.where(whole > 0, inside / whole.clamp_min(torch.finfo(whole.dtype).tiny), torch.zeros_like(whole))
