"""Why a class and not the next best: what the densities of a generative classifier say of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from genxai_core import Explainer, ImageScores, models
from genxai_core.errors import ExplainerError, MissingCapability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from genxai_core import Discriminator


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassEvidence(ImageScores):
    """What each class's density says of an image. A score is the margin of the target over its best rival, in nats.

    Parameters
    ----------
    scores
        ``[N]`` ``log p(x, target) − max_{y ≠ target} log p(x, y)``: above 0 where the target is the decision.
    images
        ``[N, C, H, W]`` what was judged, for the pictures.
    value_range
        That of ``images``.
    notes
        What the explainer says of the scores.
    joint
        ``[N, K]`` ``log p(x|y) + log p(y)``, in nats.
    target
        ``[N]`` the classes that were asked about.
    floor
        The least log p(x) that is expected of an image of any class; −∞ where it is not known.
    class_names
        What the columns of ``joint`` are.

    Raises
    ------
    ExplainerError
        If a type, a shape or a length does not fit, scores are not the margins, or joint is not finite.
    """

    type_name: ClassVar[str] = "class-evidence"
    per_sample: ClassVar[tuple[str, ...]] = ("scores", "images", "joint", "target")

    joint: Tensor
    target: Tensor
    floor: float
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "class_names", tuple(self.class_names))
        shape, wanted = list(self.joint.shape), [len(self.scores), len(self.class_names)]
        if shape != wanted or len(self.class_names) < 2 or not bool(self.joint.isfinite().all()):
            raise ExplainerError(f"class evidence: joint must be finite [N, K ≥ 2] {wanted}, and is {shape}")
        if list(self.target.shape) != wanted[:1] or self.target.is_floating_point():
            raise ExplainerError(f"class evidence: target must be integers {wanted[:1]}, not {list(self.target.shape)}")
        if len(self.target) and not 0 <= int(self.target.min()) <= int(self.target.max()) < wanted[1]:
            raise ExplainerError(f"class evidence: targets must be 0…{wanted[1] - 1}")
        if not torch.allclose(self.scores, margins(self.joint, self.target)[0], rtol=1e-4, atol=1e-3):
            raise ExplainerError("class evidence: scores are not the margins of joint for the targets")

    @property
    def posterior(self) -> Tensor:
        """``[N, K]`` p(y|x)."""
        return torch.softmax(self.joint, 1)

    @property
    def decision(self) -> Tensor:
        """``[N]`` the class of the largest p(x|y) p(y), whatever the target."""
        return self.joint.argmax(1)

    @property
    def log_density(self) -> Tensor:
        """``[N]`` log p(x), in nats."""
        return torch.logsumexp(self.joint, 1)

    @property
    def supported(self) -> Tensor:
        """``[N]`` whether log p(x) reaches the floor: else the decision is between classes none of which fits."""
        return self.log_density >= self.floor

    def table(self) -> list[dict[str, Any]]:
        """Return one row per image: target, rival, margin (score) and its rank, decision, its posterior, log p(x)."""
        rivals, posterior = margins(self.joint, self.target)[1], self.posterior.amax(1)
        rows = []
        for i, row in enumerate(super().table()):
            told = {
                "target": self.class_names[int(self.target[i])],
                "rival": self.class_names[int(rivals[i])],
                "decision": self.class_names[int(self.decision[i])],
                "posterior": float(posterior[i]),
                "log_density": float(self.log_density[i]),
                "supported": bool(self.supported[i]),
            }
            rows.append({**row, **told})
        return rows

    def plot(self, n: int = 16, title: str = "") -> Figure | None:
        """Draw n images from the lowest margin to the highest, at equal steps of rank, with margin, target and rival.

        A star marks images that no class supports. None without images.
        """
        from genxai_core import plots

        if self.images is None or len(self) == 0:
            return None
        n = min(n, len(self))
        order = self.scores.argsort(stable=True)
        shown = order[[round(k * (len(self) - 1) / max(1, n - 1)) for k in range(n)]].tolist()
        rows = self.table()
        labels = [
            ("" if row["supported"] else "*")
            + f"{row['score']:+.0f}".replace("-", "−")
            + f" {row['target']}|{row['rival']}"
            for row in (rows[i] for i in shown)
        ]
        title = title or "margin in nats, target|rival; * no class supports it"
        return plots.image_grid(
            self.images[shown], self.value_range, labels=labels, title=title, columns=min(n, max(4, -(-n // 4)))
        )


class GenerativeEvidence(Explainer):
    """Margins ``[N]`` by which images ``[N, C, H, W]`` are of a target class rather than of its best rival, in nats.

    Of a generative classifier, ``log p(x, target) − max_{y ≠ target} log p(x, y)`` with
    ``p(x, y) = p(x|y) p(y)``: above 0 where the target is Bayes' decision ``argmax_y p(x|y) p(y)``. The result holds,
    too, every class's log p(x, y), the posterior, the decision, and whether log p(x) is so low that no class supports
    the image: then the decision is one between densities none of which knows such images. How far a low log p(x) can
    be trusted says ``explainer/outlier-score``.

    The model is ``discriminator/generative-classifier``, or any discriminator of at least two classes with ``log_prob``
    whose logits are log p(x, y); a ``floor`` that it has is the least log p(x) of an image that is supported.

    Raises
    ------
    MissingCapability
        If the model does not know log p(x), as no classifier that was trained to tell classes apart does.
    ExplainerError
        If its logits are not finite, or those of a single class.
    """

    explains: ClassVar[str] = "discriminator"
    returns: ClassVar[type[ClassEvidence]] = ClassEvidence

    def _explain(self, model: Discriminator, images: Tensor, target: int | None) -> ClassEvidence:
        if not isinstance(model, models.HasDensity):
            raise MissingCapability(
                f"explainer/generative-classifier needs the capability HasDensity, which {type(model).__name__} does "
                f"not have: use what trainer/generative-classifier trains, whose logits are log p(x, y)"
            )
        with torch.no_grad():
            joint: Tensor = model(images).float()
        if joint.shape[1] < 2 or not bool(joint.isfinite().all()):
            raise ExplainerError(
                f"explainer/generative-classifier: the logits are {list(joint.shape)}, or not finite; they are "
                f"log p(x, y) of at least two classes, in nats"
            )
        targets = torch.full((len(images),), int(target or 0), dtype=torch.long, device=joint.device)
        return ClassEvidence(
            scores=margins(joint, targets)[0],
            images=images,
            value_range=model.value_range,
            notes={"unit": "log p(x, target) − log p(x, best rival), in nats"},
            joint=joint,
            target=targets,
            floor=float(getattr(model, "floor", -torch.inf)),
            class_names=tuple(model.class_names),
        )


def margins(joint: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much the target's column is above the best other one ``[N]``, and which that is ``[N]``."""
    own = joint.gather(1, target[:, None])[:, 0]
    best, rival = joint.scatter(1, target[:, None], -torch.inf).max(1)
    return own - best, rival
