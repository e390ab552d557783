"""`metric/baseline-quality`: how near, how real and how much of the other class baselines are, beside real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from genxai_core import (
    Attribution,
    Counterfactual,
    Dataset,
    Discriminator,
    Metric,
    Runtime,
    Samples,
    Spec,
    draws,
    models,
)
from genxai_core.adapt.modules import rescale
from genxai_core.errors import InputError
from genxai_core.guard import guard

from .classes import best_other, lead, log_odds, seen
from .contrast import OneVsOne
from .makers import ROWS
from .realism import Realism

BY = "metric/baseline-quality"
By = Literal["pixels", "features", "density", "discriminator"]
RESAMPLES = 2000

DIRECTIONS = {
    "distance": False,
    "distance_rank": False,
    "realism": True,
    "realism_rank": True,
    "target_score": True,
    "target_rank": True,
    "flip_rate": True,
}


def _with_intervals(directions: Mapping[str, bool]) -> dict[str, bool | None]:
    found: dict[str, bool | None] = {}
    for name, higher in directions.items():
        found |= {name: higher, f"{name}_low": None, f"{name}_high": None}
    return found


@dataclass
class _Baselines:
    """What is kept of baselines: N rows each, on the CPU."""

    images: Tensor
    made: Tensor
    judged: Tensor
    target: Tensor
    odds: Tensor
    flipped: Tensor


@dataclass
class _Real:
    """What is kept of real images: M rows each, on the CPU."""

    images: Tensor
    judged: Tensor
    decided: Tensor
    logits: Tensor


class BaselineQuality(Metric):
    """The three terms of argmin |x − B| − log R(B) − log S_t(B), each beside its range over real images.

    Of images x ``[N, C, H, W]``, their baselines B of that shape, the classes t that B should be, and real images:

    - ``distance``: root mean square of B − x, as a share of the value range. ``distance_rank``: the share of the real
      images of t that are nearer to x than B is: 0 is nearer than all, ½ as near as one at random. Lower is better.
    - ``realism``: what ``judge`` says of B. ``realism_rank``: the share of real images of which it says less: ½ is as
      real as real ones, 0 less than all of them. Higher is better, but much above ½ is a copy, or an average.
    - ``target_score``: S_t(B), softmax or logistic. ``target_rank``: the share of real images of t with a smaller one.
      ``flip_rate``: the share of baselines that the classifier takes for t. Higher is better.

    Ranks count ties half. A real image is of the class that the classifier takes it for. The mean over images of each
    has a 95 % interval, ``…_low`` to ``…_high``: of 2,000 resamples of the images, and Wilson's of ``flip_rate``; the
    real images are held fixed. Distances alone are best by doing nothing, targets by adversarial change, realism by a
    copy: only the three together tell.

    An explanation is a Counterfactual, or an attribution that holds its images and baselines (``baseline: blur``, too):
    there, t is the class across the boundary of its two, or else each image's second one.

    Known weaknesses: pixels and features know no more of realism than their distances do, and what is a copy of a real
    image is best; a density likes what is simple; a discriminator judges by what it was trained against, and if that is
    the baselines' own generator, it is no judge at all. So ``judge`` must be independent of what made the baselines.

    Parameters
    ----------
    by
        What realism is: ``pixels``, minus the root mean square distance to the nearest real image, as a share of the
        range (of real ones, to the nearest other); ``features``, minus the distance to it in the features of ``judge``;
        ``density``, log p of ``judge`` in nats; ``discriminator``, the log odds of being real of its single logit.
    judge
        The model that ``by`` speaks of; None for pixels.

    Raises
    ------
    ValueError
        If ``by`` is another one, or goes without its model.
    MissingCapability
        If the judge has no features.

    References
    ----------
    S.-M. Shih, P.-J. Tien, Z. Karnin, "GANMEX: One-vs-One Attributions using GAN-based Model Explainability", ICML 2021
    (arXiv:2011.06015). E. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """

    needs = frozenset({"explanation", "real", "model"})
    higher_is_better = _with_intervals(DIRECTIONS)

    def __init__(self, by: By = "pixels", judge: nn.Module | Spec | None = None) -> None:
        if by not in get_args(By):
            raise ValueError(f"by {by!r} is not one of {', '.join(get_args(By))}")
        if (by == "pixels") != (judge is None):
            raise ValueError("by pixels takes no judge, and all others need one")
        self.by: str = by
        if isinstance(judge, Spec):
            with guard():  # building may draw random numbers
                judge = judge.build().eval()
        self.judge: Any = judge
        if by == "features":
            models.require(judge, models.HasFeatures, by=f"{BY} by features")
        self._realism = Realism(judge) if by in ("density", "discriminator") else None
        if self._realism is not None and self._realism.density != (by == "density"):
            raise ValueError(
                f"by {by}: the judge is a {type(judge).__name__}, of which is known its {self._realism.unit}"
            )
        self.reset()

    def update(self, *, explanation: Any, real: Samples | Dataset, model: Discriminator) -> None:  # type: ignore[override]
        """Take in more baselines, and more real images to hold them against.

        Raises
        ------
        InputError
            If something is empty, not finite, or of another kind, size or range.
        """
        if not isinstance(model, Discriminator):
            raise InputError(f"{BY}: the model is a {type(model).__name__}, not the classifier that was explained")
        images, made = _pair(explanation, model)
        if not isinstance(real, Samples | Dataset) or len(real) == 0:
            raise InputError(f"{BY}: real must be Samples or a Dataset that is not empty")
        known = real[:]
        low, high = model.value_range
        among = rescale(known.images, tuple(known.value_range), (low, high))  # type: ignore[arg-type]
        if among.shape[1:] != images.shape[1:] or not bool(among.isfinite().all()):
            raise InputError(f"{BY}: real images are {list(among.shape[1:])}, or not finite; {list(images.shape[1:])}")
        with guard(model, *([self.judge] if isinstance(self.judge, nn.Module) else [])), torch.no_grad():
            before, after = self._logits(model, images), self._logits(model, made)
            target = _target(explanation, before)
            self._baselines.append(
                _Baselines(
                    images.flatten(1).float(),
                    made.flatten(1).float(),
                    self._judged(made, (low, high)),
                    target,
                    log_odds(after, target).double(),
                    lead(after, target) > 0,
                )
            )
            logits = self._logits(model, among)
            self._known.append(_Real(among.flatten(1).float(), self._judged(among, (low, high)), seen(logits), logits))
        self._width = high - low

    def compute(self) -> dict[str, float]:
        """Return the figures, each a mean over baselines with its interval.

        Raises
        ------
        InputError
            If there are fewer than two baselines or two real images, or no real image of a target.
        """
        rows = self.per_image()
        found: dict[str, float] = {}
        for name, values in rows.items():
            low, high = _wilson(values) if name == "flip_rate" else _resampled(values)
            found |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
        return found

    def per_image(self) -> dict[str, Tensor]:
        """Return the figures of each baseline ``[N]``, float64, in the order in which they came.

        Raises
        ------
        InputError
            As `compute`.
        """
        if sum(len(b.target) for b in self._baselines) < 2 or sum(len(r.decided) for r in self._known) < 2:
            raise InputError(f"{BY} needs at least 2 baselines and 2 real images")
        made, real = _joined(self._baselines), _joined(self._known)
        away = _apart(made.images, made.made)
        distance_rank, target_rank = torch.zeros_like(away), torch.zeros_like(away)
        for t in sorted(set(made.target.tolist())):
            rows, of_t = made.target == t, real.decided == t
            if not bool(of_t.any()):
                raise InputError(f"{BY}: the model takes no real image for class {t}; give some that it does")
            apart = distances(made.images[rows].double(), real.images[of_t].double()) / real.images.shape[1] ** 0.5
            distance_rank[rows] = _rank(away[rows], apart)
            goal = torch.full((int(of_t.sum()),), t)
            odds = log_odds(real.logits[of_t], goal).double()
            target_rank[rows] = _rank(made.odds[rows], odds.expand(int(rows.sum()), -1))
        realism, among = self._realisms(made.judged, real.judged)
        return {
            "distance": away / self._width,
            "distance_rank": distance_rank,
            "realism": realism,
            "realism_rank": _rank(realism, among.expand(len(realism), -1)),
            "target_score": made.odds.sigmoid(),
            "target_rank": target_rank,
            "flip_rate": made.flipped.double(),
        }

    def merge(self, other: Self) -> None:
        """Take in what another instance has seen.

        Raises
        ------
        InputError
            If it is another metric, or another realism.
        """
        if type(other) is not type(self) or other.by != self.by:
            raise InputError(f"{BY}: cannot merge with a {type(other).__name__} of another realism")
        self._baselines += other._baselines
        self._known += other._known
        self._width = max(self._width, other._width)

    def reset(self) -> None:
        """Forget all baselines and real images."""
        self._baselines: list[_Baselines] = []
        self._known: list[_Real] = []
        self._width = 0.0

    # -- inside ---------------------------------------------------------------------------------------------------

    def _batches(self, images: Tensor, like: nn.Module) -> list[Tensor]:
        runtime = self.runtime or Runtime()
        first = next((t for t in (*like.parameters(), *like.buffers()) if t.is_floating_point()), images)
        return [part.to(first.device, first.dtype) for part in torch.split(images, runtime.batch_size)]

    def _logits(self, model: Discriminator, images: Tensor) -> Tensor:
        return torch.cat([model(part).float().cpu() for part in self._batches(images, model)])

    def _judged(self, images: Tensor, value_range: tuple[float, float]) -> Tensor:
        """Return what realism is told by: pixels or features ``[N, F]``, or a value ``[N, 1]``; float64."""
        if self.by == "pixels":
            return images.flatten(1).double()
        parts = self._batches(images, self.judge)
        if self._realism is not None:
            found = torch.cat([self._realism(part, value_range)[:, None].double().cpu() for part in parts])
        else:
            low, high = getattr(self.judge, "value_range", value_range)
            given = [rescale(part, value_range, (float(low), float(high))) for part in parts]
            found = torch.cat([self.judge.features(part).flatten(1).double().cpu() for part in given])
        if not bool(found.isfinite().all()):
            raise InputError(f"{BY}: the judge says NaN or infinity; check it, and the images")
        return found

    def _realisms(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the realism of baselines ``[N]`` and of real images ``[M]``."""
        if self._realism is not None:
            return made[:, 0], real[:, 0]
        unit = self._width * real.shape[1] ** 0.5 if self.by == "pixels" else 1.0
        nearest = torch.cat([distances(part, real).amin(1) for part in torch.split(made, ROWS)])
        others = []
        for start in range(0, len(real), ROWS):
            apart = distances(real[start : start + ROWS], real)
            apart[torch.arange(len(apart)), torch.arange(start, start + len(apart))] = torch.inf  # itself
            others.append(apart.amin(1))
        return -nearest / unit, -torch.cat(others) / unit


def _pair(explanation: Any, model: Discriminator) -> tuple[Tensor, Tensor]:
    """Return images and baselines, checked."""
    if isinstance(explanation, Counterfactual):
        images, made = explanation.images, explanation.counterfactuals
    elif isinstance(explanation, Attribution):
        if explanation.images is None or explanation.baseline is None:
            raise InputError(
                f"{BY}: the attribution holds no images, or no baseline of each: what has several has none"
            )
        if not bool(explanation.maps.isfinite().all()):
            raise InputError(f"{BY}: the maps hold NaN or infinity")
        images, made = explanation.images, explanation.baseline
    else:
        raise InputError(f"{BY} judges a Counterfactual or an Attribution, not a {type(explanation).__name__}")
    if len(images) == 0 or made.shape != images.shape or not bool((images.isfinite() & made.isfinite()).all()):
        raise InputError(
            f"{BY}: images {list(images.shape)}, baselines {list(made.shape)}: empty, unlike, or not finite"
        )
    if tuple(explanation.value_range) != tuple(model.value_range):
        raise InputError(f"{BY}: the images are in {explanation.value_range}, the model expects {model.value_range}")
    return images, made


def _target(explanation: Any, logits: Tensor) -> Tensor:
    """Return the classes ``[N]`` that the baselines should be."""
    decided = seen(logits)
    if isinstance(explanation, Counterfactual):
        return torch.as_tensor(explanation.target).long()
    if not isinstance(explanation, OneVsOne) or logits.shape[1] == 1:
        return best_other(logits, decided)
    one, other = torch.as_tensor(explanation.target).long(), explanation.against.long()
    rather = logits.gather(1, one[:, None]) >= logits.gather(1, other[:, None])
    return torch.where(rather[:, 0], other, one)


def _joined(parts: list[Any]) -> Any:
    return type(parts[0])(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(parts[0])))


def _apart(one: Tensor, other: Tensor) -> Tensor:
    return (one.double() - other.double()).square().mean(1).sqrt()


def distances(rows: Tensor, among: Tensor) -> Tensor:
    """Return Euclidean distances ``[N, M]`` of rows, by differences: of two equal rows it is 0."""
    found: Tensor = torch.cdist(rows, among, compute_mode="donot_use_mm_for_euclid_dist")
    return found


def _rank(values: Tensor, among: Tensor) -> Tensor:
    """Return the share of ``among`` ``[N, M]`` below each value ``[N]``, ties counted half."""
    values = values[:, None]
    return (among < values).double().mean(1) + 0.5 * (among == values).double().mean(1)


def _resampled(values: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of a mean by the percentiles of resampled means; in whatever order the values come."""
    ordered = values.sort().values
    drawn = draws.generator(0, 0, "baseline-quality").integers(len(values), size=(RESAMPLES, len(values)))
    means = ordered[torch.from_numpy(drawn)].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return low, high


def _wilson(hits: Tensor) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    n, share, z = len(hits), float(hits.mean()), NormalDist().inv_cdf(0.975)
    middle, width = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, (middle - width) / (1 + z * z / n)), min(1.0, (middle + width) / (1 + z * z / n))
