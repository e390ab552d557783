"""Where each broken image is broken."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer, Runtime, Samples, Spec, saving
from genxai_core.errors import InputError

from .judging import ARTIFACT

GRADCAM = Spec("explainer/cam", {"method": "gradcam"})
"""What shows where the judge sees an artifact, if nothing else is said."""

Masks = Literal["given"] | Spec | Explainer
"""The masks that come with the samples; or an attribution that makes them."""


def artifact_masks(
    masks: Masks,
    classifier: Discriminator | None,
    samples: Samples,
    target: int | None,
    threshold: float = 0.3,
    runtime: Runtime | None = None,
) -> Tensor:
    """Return bool ``[N, 1, H, W]``: where each sample is broken.

    Parameters
    ----------
    masks
        ``given``: the samples' masks, the plane named ``artifact`` if there are several. Else an attribution: the
        pixels whose value exceeds ``threshold`` times the largest of the same map; no other sample matters. Of maps
        with channels, their sum. A map of which nothing is above 0 says of no pixel that it is broken.
    classifier
        Whose artifact class is attributed to; not needed for ``given``. It is left as found.
    samples
        The broken ones.
    target
        Index of the artifact class.
    threshold
        In [0, 1): 0.3 is that of Tousi et al., CVPR 2021.
    runtime
        Its batch size bounds memory.

    Raises
    ------
    InputError
        If there are no masks to be had, or the attribution is none.
    """
    if not 0 <= threshold < 1:
        raise InputError(f"mask_threshold {threshold} is not a share of the map's maximum, at least 0 and below 1")
    if isinstance(masks, str):
        return _given(samples)
    if classifier is None or target is None:
        raise InputError("masks by attribution need a classifier; give one, or samples with masks and masks: given")
    maps = attributed(masks, classifier, samples, target, runtime or Runtime())
    largest = maps.amax((1, 2), keepdim=True)
    return (maps > threshold * largest)[:, None]  # of a largest value that is 0 or less, not even that one


def _given(samples: Samples) -> Tensor:
    if samples.masks is None:
        raise InputError("masks: given, but these samples have no masks; give an attribution, such as explainer/cam")
    if ARTIFACT in samples.concepts:
        at = samples.concepts.index(ARTIFACT)
    elif samples.masks.shape[1] == 1:
        at = 0
    else:
        names = ", ".join(samples.concepts) or f"{samples.masks.shape[1]} without names"
        raise InputError(f"none of the samples' masks ({names}) is named {ARTIFACT!r}; give that one alone")
    return samples.masks[:, at : at + 1]


def attributed(
    by: Spec | Explainer, classifier: Discriminator, samples: Samples, target: int, runtime: Runtime
) -> Tensor:
    """Return maps ``[N, H, W]`` of what speaks for a class, signed, the sum over channels.

    Raises
    ------
    InputError
        If it is no attribution of a discriminator's images.
    """
    explainer: Any = by.build() if isinstance(by, Spec) else by
    fits = isinstance(explainer, Explainer) and issubclass(explainer.returns, Attribution)
    if not fits or explainer.explains != "discriminator" or explainer.accepts not in ("images", "samples"):
        raise InputError(
            f"masks by {saving.name_of(explainer)}, which does not attribute a classifier's answer to pixels; "
            f"give an attribution, such as explainer/cam"
        )
    like = next((p for p in (*classifier.parameters(), *classifier.buffers()) if p.is_floating_point()), samples.images)
    low, high = classifier.value_range
    bare = Samples(samples.images.to(like), value_range=samples.value_range).rescale((low, high))
    found = explainer.explain(classifier, bare, target=target, runtime=runtime.with_(device="auto"))
    maps: Tensor = found.maps.detach().double().cpu()
    return maps.sum(1) if maps.ndim == 4 else maps


def named(masks: Masks) -> str:
    """Return what masks come from, in a word."""
    if isinstance(masks, Spec):
        return masks.use
    return masks if isinstance(masks, str) else saving.name_of(masks)
