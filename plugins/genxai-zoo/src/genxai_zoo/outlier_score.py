"""How far an image is from what a model with a density was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch

from genxai_core import Dataset, Explainer, ImageScores, Runtime, Samples
from genxai_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from genxai_core.runtime import Advance

Score = Literal["log-density", "typicality"]


class OutlierScore(Explainer):
    """One score for each image ``[N, C, H, W]``: scores ``[N]``, in nats, the lower the more of an outlier.

    - ``log-density``: log p(x), as the model has it. **Its known failure**: where an image has many pixels, a density
      is highest where there is next to no mass. Of a Gaussian in D dimensions the mean is likelier by D/2 nats than
      what is drawn from it; so simple foreign images, such as flat ones, get *higher* scores than the data
      (Nalisnick et al., "Do Deep Generative Models Know What They Don't Know?", ICLR 2019).
    - ``typicality``: −|log p(x) − m|, m the mean of log p over reference images. What is much less, or much more,
      likely than these is an outlier: the test for a typical set of Nalisnick et al., "Detecting Out-of-Distribution
      Inputs to Deep Generative Models Using Typicality", 2019, for one image at a time.

    How much likelier an image is under one model than under another (`explainer/density-ratio`) is a third answer, free
    of that failure where the second model shares the first one's liking for simple images.

    Parameters
    ----------
    score
        ``log-density`` or ``typicality``.
    reference
        Images of what is not an outlier, for ``typicality``: best not those that the model was trained on.

    Raises
    ------
    ValueError
        If the score is another one, or typicality has no reference, or one is given that is not used.
    InputError
        If a log density is not a number, or the reference images are not in the range of the model.
    """

    explains: ClassVar[str] = "HasDensity"
    accepts = "dataset"
    returns: ClassVar[type[ImageScores]] = ImageScores

    def __init__(self, score: Score = "log-density", reference: Samples | Dataset | None = None) -> None:
        if score not in get_args(Score):
            raise ValueError(f"score {score!r} is not one of {', '.join(get_args(Score))}")
        if (score == "typicality") != (reference is not None):
            raise ValueError("reference images belong to score 'typicality', and to it alone")
        if reference is not None and len(reference) == 0:
            raise ValueError("the reference images are empty")
        self.score, self.reference = score, reference

    def _explain(
        self, model: Any, inputs: Samples | Dataset, target: int | None, runtime: Runtime | None = None
    ) -> ImageScores:
        runtime = runtime or Runtime()
        value_range = tuple(getattr(model, "value_range", (-1.0, 1.0)))
        with runtime.progress("outlier-score", len(inputs) + len(self.reference or ())) as advance:
            scores = self._log_prob(model, inputs, "inputs", runtime, advance)
            if self.reference is not None:
                typical = self._log_prob(model, self.reference, "reference", runtime, advance).mean()
                scores = -(scores - typical).abs()
        unit = "log p(x), in nats" if self.reference is None else "−|log p(x) − its mean over the reference|, in nats"
        return ImageScores(scores, inputs[:].images, (value_range[0], value_range[1]), {"unit": unit})

    @staticmethod
    def _log_prob(model: Any, data: Samples | Dataset, role: str, runtime: Runtime, advance: Advance) -> Tensor:
        wanted = tuple(getattr(model, "value_range", data.value_range))
        if tuple(data.value_range) != wanted:
            raise InputError(
                f"explainer/outlier-score: the {role} images are in {tuple(data.value_range)}, the model expects "
                f"{wanted}; use samples.rescale({wanted})"
            )
        like = next(iter(model.parameters()), torch.zeros(()))
        parts = []
        for start in range(0, len(data), runtime.batch_size):
            images = data[start : start + runtime.batch_size].images.to(like.device, like.dtype)
            with torch.no_grad():
                found: Tensor = model.log_prob(images)
            if found.shape != (len(images),) or bool(found.isnan().any()):
                raise InputError(
                    f"explainer/outlier-score: log_prob of the {role} images is {list(found.shape)} for {len(images)}, "
                    f"or NaN; it is a number for each image, so check the model and the images"
                )
            parts.append(found.float())
            advance(len(images))
        return torch.cat(parts)
