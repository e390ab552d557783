"""Generated images with labels of which are broken: by hand, or by their realism."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch

from genxai_core import Dataset, ImageScores, Runtime, Samples
from genxai_core.errors import InputError

from . import labels_file

NAME = "dataset/artifact-labels"
REAL = "real"

STRAYED = 0.05
"""Images that differ by more than this on average, as a share of the range, are not those that were scored; less may be
rounding to bytes."""


class ArtifactLabels(Dataset):
    """Generated images that are labelled normal or artifact: ``ArtifactLabels(csv=…).load(generated=images)``.

    Labels come from one of two sources:

    - ``csv``: a file that a person made, such as ``genxai label`` lets them make: ``index,label`` with the labels
      normal and artifact. Images that are not in the file are left out.
    - ``scores``: a number for each image, the higher the more realistic (``explainer/realism``,
      ``explainer/density-ratio``, …). The lowest ``share`` become artifact, the highest ``normal_share`` normal; what
      lies between is left out, since it is most often labelled wrongly. Of equal scores the image with the lower index
      counts as the lower. **Such labels say what the score says**: nobody has seen these images.

    Parameters
    ----------
    csv
        The file of labels.
    scores
        One score per generated image, in their order.
    share
        Of the images, those that are labelled artifact by the scores.
    normal_share
        Of the images, those that are labelled normal by the scores; default: half of them, or all that ``share``
        leaves if that is less.
    real
        Real images, of the generated ones' size and range, which are added as a third class, ``real``. Then only images
        and labels are kept, since real images have no latents.

    Raises
    ------
    ValueError
        If not exactly one of csv and scores is given, or the shares are out of bounds.
    """

    def __init__(
        self,
        csv: Path | None = None,
        scores: ImageScores | None = None,
        share: float = 0.2,
        normal_share: float | None = None,
        real: Samples | Dataset | None = None,
    ) -> None:
        if (csv is None) == (scores is None):
            given = "both are" if csv is not None else "neither is"
            raise ValueError(f"labels come from csv or from scores, and {given} given; give exactly one of them")
        if not 0 < share < 1:
            raise ValueError(f"share {share} must be between 0 and 1")
        normal = min(0.5, 1 - share) if normal_share is None else normal_share
        if not 0 < normal <= 1 - share + 1e-9:
            raise ValueError(f"normal_share {normal} must be above 0, and at most what share {share} leaves")
        self.csv, self.scores, self.share, self.normal_share, self.real = csv, scores, share, normal, real

    def load(  # type: ignore[override]
        self, *, generated: Samples | Dataset, runtime: Runtime | None = None
    ) -> Samples:
        """Label the images.

        Parameters
        ----------
        generated
            The images that the file or the scores are of.
        runtime
            Not used.

        Returns
        -------
        Samples
            The labelled images in their order, then the real ones; ``class_names`` are normal, artifact and, with real
            images, real. What else is known of generated images, such as latents, stays unless there are real ones.

        Raises
        ------
        InputError
            If the file is malformed (see `genxai_correction.labels_file.read`), the scores are not of these images, so
            few that a class is empty, or the real images do not fit the generated ones.
        """
        if not isinstance(generated, Samples | Dataset):
            raise InputError(f"{NAME} labels Samples or a Dataset, not a {type(generated).__name__}; wrap the images")
        found = self._by_hand(len(generated)) if self.csv is not None else self._by_scores(len(generated))
        labels = torch.tensor([labels_file.LABELS.index(label) for label in found.values()])
        labelled = replace(generated[list(found)], labels=labels, class_names=labels_file.LABELS)
        if self.scores is not None:
            self._same(self.scores, labelled, list(found))
        return labelled if self.real is None else self._beside(labelled, self.real[:])

    def _by_hand(self, count: int) -> dict[int, str]:
        assert self.csv is not None
        return labels_file.read(self.csv, count)

    def _by_scores(self, count: int) -> dict[int, str]:
        assert self.scores is not None
        if len(self.scores) != count:
            raise InputError(f"{NAME}: {len(self.scores)} scores for {count} images; score these very images")
        worst = round(self.share * count)
        best = min(round(self.normal_share * count), count - worst)  # rounded up, both may ask for the same image
        if not worst or not best:
            raise InputError(
                f"{NAME}: of {count} images share {self.share:g} are {worst} and normal_share {self.normal_share:g} "
                f"are {best}; there must be some of each"
            )
        order = self.scores.scores.argsort(stable=True).tolist()
        found = dict.fromkeys(order[:worst], "artifact") | dict.fromkeys(order[count - best :], "normal")
        return dict(sorted(found.items()))

    @staticmethod
    def _same(scores: ImageScores, labelled: Samples, rows: list[int]) -> None:
        """Refuse scores that carry other images, which a count of images alone would not tell."""
        if scores.images is None or scores.images.shape[1:] != labelled.images.shape[1:]:
            return  # not kept, or scored at another size
        seen = Samples(scores.images[rows], value_range=scores.value_range).rescale(labelled.value_range)
        low, high = labelled.value_range
        off = float((seen.images.to(labelled.images) - labelled.images).abs().mean()) / (high - low)
        if off > STRAYED:
            raise InputError(
                f"{NAME}: the scores are of other images (they differ by {off:.0%} of the range on average); "
                f"score these very images"
            )

    @staticmethod
    def _beside(labelled: Samples, real: Samples) -> Samples:
        """Add the real images, keeping what both have."""
        names = (*labels_file.LABELS, REAL)
        if real.image_shape != labelled.image_shape or real.value_range != labelled.value_range:
            raise InputError(
                f"{NAME}: the real images are {real.image_shape} in {real.value_range}, the generated ones "
                f"{labelled.image_shape} in {labelled.value_range}; bring them to one size and range"
            )
        if len(real) == 0:
            raise InputError(f"{NAME}: there are no real images; leave real out")
        assert labelled.labels is not None
        third = torch.full((len(real),), names.index(REAL))
        return Samples(
            torch.cat([labelled.images, real.images.to(labelled.images)]),
            labels=torch.cat([labelled.labels, third]),
            value_range=labelled.value_range,
            class_names=names,
        )

    def __len__(self) -> int:
        self._refuse()

    def _samples(self, rows: list[int]) -> Samples:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{NAME} holds no images until it has labelled some: use ArtifactLabels(…).load(generated=…), "
            f"or in a pipeline call: {{generated: $images}}"
        )
