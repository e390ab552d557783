"""What is where in scenes."""

from __future__ import annotations

from torch import Tensor

from genxai_core import Samples, Segmenter, registry

WEIGHTS = "scenes-32"


class Scenes(Segmenter):
    """Masks ``[N, 12, H, W]`` of the shapes and parts of backgrounds in images like those of `dataset/scenes`.

    Rendered scenes have exact masks, and these are the answer. A generated scene has none: there a `segmenter/unet`
    says it, trained on rendered scenes of 32 px that were made worse as a generator's are, and shipped
    (``pretrained="scenes-32"``). Images of another size are resized for it, and its logits back. Every concept is
    decided by itself, so a pixel of an image that fails to be a scene may show none of them, or two.
    """

    concepts = (
        *("circle", "square", "triangle", "star", "ring", "cross"),
        *("plain", "gradient", "stripes", "dots", "sky", "ground"),
    )

    def __init__(self) -> None:
        self.model = registry.create("segmenter/unet", pretrained=WEIGHTS)

    def probabilities(self, samples: Samples) -> Tensor:
        """Return the network's probabilities ``[N, 12, H, W]``, differentiably: above one half where the masks are."""
        soft: Tensor = self.model.probabilities(samples)
        return soft

    def _segment(self, samples: Samples) -> Tensor:
        masks: Tensor = self.model._segment(samples)
        return masks
