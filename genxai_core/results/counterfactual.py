"""Counterfactuals: images changed so that a classifier sees another class."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from ..errors import ExplainerError
from ..explanation import Explanation
from . import checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

OWNER = "counterfactual"

NOT_FLIPPED = "no flip"
"""What is said of an image that did not become its target where the method itself gives no reason."""

VISIBLE = 1.0001 / 255
"""The share of the value range beyond which a pixel counts as changed: one step of 8 bits, and float32's error."""


@dataclass(frozen=True, eq=False)
class Counterfactual(Explanation):
    """For each image, a similar one that the classifier takes for another class: what would have to be different.

    Parameters
    ----------
    images
        ``[N, C, H, W]`` in ``value_range``.
    counterfactuals
        ``[N, C, H, W]``, the changed images.
    target
        ``[N]`` the classes that they should become; an integer stands for all. With one logit, 1 is the positive
        class and 0 its opposite.
    source
        ``[N]`` the classes that the images are, or are taken for; an integer stands for all.
    logits_before, logits_after
        ``[N, K]`` of the images and of the counterfactuals.
    realism
        ``[N]`` how realistic the counterfactuals are, larger for more; ``notes`` say in what measure.
    failures
        N texts: what the method found wrong with each, ``""`` where nothing. What is not `valid` is a failure without
        being named.
    value_range
        That of both kinds of images.
    class_names
        K names; with one logit the positive class, or both, the opposite first.
    notes
        What the method decided for itself.

    Raises
    ------
    ExplainerError
        If a shape, a length, a class or a name does not fit, or a counterfactual or a logit is not finite.
    """

    type_name: ClassVar[str] = "counterfactual"
    per_sample: ClassVar[tuple[str, ...]] = (
        "images",
        "counterfactuals",
        "target",
        "source",
        "logits_before",
        "logits_after",
        "realism",
        "failures",
    )

    captions: ClassVar[Mapping[str, str]] = {
        "explanation": "Red pixels became brighter, blue ones darker, white is zero, in the channel that changed most. "
        "Each difference has its own scale; its end is written below it, as a share of the value range. "
        "p: the target's probability before → after. A frame and ✗ mark what failed."
    }

    images: Tensor
    counterfactuals: Tensor
    target: Tensor | int
    source: Tensor | int
    logits_before: Tensor
    logits_after: Tensor
    realism: Tensor | None = None
    failures: tuple[str, ...] | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    class_names: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        checks.images(OWNER, self.images, counterfactuals=self.counterfactuals)
        n = len(self.images)
        object.__setattr__(self, "value_range", checks.value_range(OWNER, self.value_range))
        checks.tensor(OWNER, "logits_before", self.logits_before, {"N": n, "K": None})
        k = self.logits_before.shape[1]
        checks.tensor(OWNER, "logits_after", self.logits_after, {"N": n, "K": k})
        classes = max(k, 2)
        for name in ("target", "source"):
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool):
                value = torch.full((n,), value, dtype=torch.long)
                object.__setattr__(self, name, value)
            checks.tensor(OWNER, name, value, {"N": n}, "integer")
            if n and not 0 <= int(value.min()) <= int(value.max()) < classes:
                raise ExplainerError(f"{OWNER}: {name} {value.tolist()[:8]} is outside the classes 0…{classes - 1}")
        if self.realism is not None:
            checks.tensor(OWNER, "realism", self.realism, {"N": n})
        if self.failures is not None:
            object.__setattr__(self, "failures", tuple(self.failures))
            if len(self.failures) != n or not all(isinstance(text, str) for text in self.failures):
                raise ExplainerError(f"{OWNER}: failures must be {n} texts, '' where nothing failed")
        names = checks.names(OWNER, "class_names", self.class_names)
        object.__setattr__(self, "class_names", names)
        if names and len(names) not in ({1, 2} if k == 1 else {k}):
            raise ExplainerError(f"{OWNER}: {len(names)} class_names for logits of {k} outputs")

    @classmethod
    def _aligned(cls, parts: Sequence[Self]) -> Sequence[Self]:
        """Let no failures be "" where others name some."""
        if all(part.failures is None for part in parts):
            return parts
        return [dataclasses.replace(part, failures=part.failures or ("",) * len(part)) for part in parts]

    @property
    def valid(self) -> Tensor:
        """``[N]`` bool: the classifier takes the counterfactual for the target (arg max; with one logit, its sign)."""
        logits = self.logits_after
        seen = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)
        return seen.long() == cast("Tensor", self.target).to(logits.device)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What went wrong with each, ``""`` where nothing did: the method's words, else `NOT_FLIPPED` if not valid."""
        named = self.failures or ("",) * len(self)
        return tuple(text or ("" if ok else NOT_FLIPPED) for text, ok in zip(named, self.valid.tolist()))

    @property
    def distance(self) -> dict[str, Tensor]:
        """How far each is from its image, ``[N]`` each, as shares of the value range's width.

        ``l1`` is the mean over pixels and channels of the absolute change, ``l2`` the root of its mean square, ``linf``
        the largest.
        """
        change = self._change().flatten(1)
        return {"l1": change.mean(1), "l2": change.square().mean(1).sqrt(), "linf": change.amax(1)}

    @property
    def sparsity(self) -> Tensor:
        """``[N]`` share of pixels that changed, in any channel, by more than 1/255 of the range; 0 is untouched."""
        return (self._change().amax(1) > VISIBLE).double().flatten(1).mean(1)

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """Return the target's probability ``[N]`` before and after: softmax, with one logit the logistic function."""
        target = cast("Tensor", self.target).long()
        found = []
        for logits in (self.logits_before, self.logits_after):
            logits = logits.detach().double()
            if logits.shape[1] == 1:
                positive = logits[:, 0].sigmoid()
                found.append(positive.where(target.to(logits.device) == 1, 1 - positive))
            else:
                found.append(logits.softmax(1).gather(1, target.to(logits.device)[:, None])[:, 0])
        return found[0], found[1]

    def class_name(self, index: int) -> str:
        """Return a class's name, or its index as a text."""
        if len(self.class_names) == 1:  # one logit, of which only the positive class has a name
            return self.class_names[0] if index == 1 else f"not {self.class_names[0]}"
        return self.class_names[index] if self.class_names else str(index)

    def table(self) -> list[dict[str, Any]]:
        """Return one row per image: classes, target's probability before and after, validity, distances, failure."""
        before, after = self.probabilities()
        valid, distance, changed, reasons = self.valid.tolist(), self.distance, self.sparsity, self.reasons
        rows = []
        for i in range(len(self)):
            row: dict[str, Any] = {"sample": i}
            for name in ("source", "target"):
                row[name] = self.class_name(int(getattr(self, name)[i]))
            row |= {"p_before": float(before[i]), "p_after": float(after[i]), "valid": valid[i]}
            row |= {name: float(values[i]) for name, values in distance.items()}
            row["changed"] = float(changed[i])
            if self.realism is not None:
                row["realism"] = float(self.realism[i])
            rows.append(row | {"failure": reasons[i]})
        return rows

    def summary(self) -> dict[str, Any]:
        """Return counts and means over all images: valid, each failure, mean absolute change, pixels changed."""
        said: dict[str, Any] = dict(self._counts())
        if len(self):
            said["mean change"] = f"{100 * float(self.distance['l1'].mean()):.3g} % of the range"
            said["pixels changed"] = f"{100 * float(self.sparsity.mean()):.3g} %"
        return said

    def plot(self, n: int = 8, title: str = "") -> Figure | None:
        """Draw the first n images, their counterfactuals and the signed differences; failures are marked.

        Above each stand its classes, source → target, below the scale of its difference and the target's probability
        before and after. The note above counts what is valid, and each failure, of all images. None if there are none.
        """
        if len(self) == 0:
            return None
        from ..plots import before_after

        before, after = (p[:n].tolist() for p in self.probabilities())
        classes = [[self.class_name(int(c)) for c in c_of[:n]] for c_of in (self.source, self.target)]  # type: ignore[index]
        return before_after(
            self.images,
            self.counterfactuals,
            self.value_range,
            names=("image", "counterfactual"),
            above=[f"{a} → {b}" if len(a + b) < 12 else f"{a}\n→ {b}" for a, b in zip(*classes)],
            below=[f"p {p:.2f} → {q:.2f}" for p, q in zip(before, after)],
            failures=self.reasons,
            note="; ".join(f"{name} {value}" for name, value in self._counts().items()),
            n=n,
            title=title,
        )

    def _counts(self) -> dict[str, str]:
        counts = Counter(filter(None, self.reasons))
        failed = {f"failed ({text})": f"{count} of {len(self)}" for text, count in counts.items()}
        return {"valid": f"{int(self.valid.sum())} of {len(self)}", **failed}

    def _change(self) -> Tensor:
        low, high = self.value_range
        images = self.images.detach().double()
        return (self.counterfactuals.detach().double().to(images.device) - images).abs() / (high - low)
