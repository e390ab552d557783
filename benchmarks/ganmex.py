"""Baselines and methods held against each other, on digits that neither generator nor classifier was trained on.

    python benchmarks/ganmex.py            # measure what is not kept yet, write docs/results/ganmex.md and the figure
    python benchmarks/ganmex.py --write    # only write the page from the kept figures

Each cell is kept in results/ganmex.json as soon as it is there, so that what was stopped goes on; delete the file to
measure all again. Some three minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from ganmex_page import (
    BASELINES,
    DARK,
    EXPECTED,
    FORGOTTEN,
    IMAGES,
    MAKERS,
    METHODS,
    NAMED,
    OF_BASELINES,
    PAIRS,
    POINTS,
    SEVERAL,
    headline,
    page,
)
from genxai_ganmex.contrast import OneVsOne
from genxai_ganmex.contrast_figure import contrasts
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Runtime, Samples, Spec, draws, storage
from genxai_core.errors import GenxaiWarning

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "ganmex.json"
PAGE = HERE.parent / "docs" / "results" / "ganmex.md"
PICTURE = HERE.parent / "docs" / "images" / "ganmex-baselines.png"

WITNESS = {"model": Spec("discriminator/classifier", {"width": 48, "feature_size": 96}), "steps": 600}
WITNESS_SEED = 11
RUNTIME = Runtime(device="cpu", quiet=True, batch_size=64)


class World:
    """Data, models and makers, as every cell needs them."""

    def __init__(self) -> None:
        data = gx.create("dataset/digits", size=16)
        order = draws.permutation(0, 0, len(data), stream="holdout").tolist()
        cut = round(0.2 * len(data))
        self.held, self.known = data[order[:cut]], data[order[cut:]]
        self.classifier = gx.create("discriminator/classifier", pretrained="digits").eval()
        self.generator = gx.create("generator/stargan", pretrained="digits").eval()
        self.flow = gx.create("generator/flow", pretrained="digits").eval()
        self.shown = self.held[:IMAGES]
        with torch.no_grad():
            ranked = self.classifier(self.shown.images).argsort(1, descending=True)
            self.seen = self.classifier(self.held.images).argmax(1)
        self.one, self.other = ranked[:, 0], ranked[:, 1]
        self.makers = {
            "MDTS": gx.create("explainer/counterfactual", maker="mdts", data=self.known),
            "class mean": gx.create("explainer/counterfactual", maker="class-mean", data=self.known),
            "least change": gx.create("explainer/counterfactual"),
            "GANMEX": gx.create("explainer/counterfactual", maker="ganmex", generator=self.generator),
        }
        self._witness: Any = None

    @property
    def witness(self) -> Any:
        """An independent classifier, wider, of another seed; trained when it is asked for."""
        if self._witness is None:
            fitted = gx.create("trainer/classifier", **WITNESS).fit(self.known, RUNTIME.with_(seed=WITNESS_SEED))
            self._witness = fitted.classifier.eval()
        return self._witness

    def baseline(self, name: str) -> Any:
        """Return what `explainer/ganmex-attribution` takes."""
        if name == "expected":
            return Samples(self.known.images[:EXPECTED], value_range=self.known.value_range)
        return NAMED.get(name) or self.makers[name]


def explainer(world: World, name: str, method: str, against: int | None = None) -> Any:
    """Return `explainer/ganmex-attribution` from a baseline by a method, with fixed steps."""
    spec, given = (SEVERAL if name == "expected" else METHODS)[method], world.baseline(name)
    return gx.create("explainer/ganmex-attribution", baseline=given, method=spec, against=against, tolerance=10.0)


def attributed(world: World, baseline: str, method: str, images: Any, target: Any, against: int | None = None) -> Any:
    """Return maps of why the one class and not the other."""
    return explainer(world, baseline, method, against).explain(world.classifier, images, target=target, runtime=RUNTIME)


def forgotten_cell(world: World, baseline: str) -> dict[str, list[float]]:
    """Return how alike maps stay while the classifier's layers become random, from the top; baselines made anew."""
    ours, shown = explainer(world, baseline, "integrated gradients"), world.shown[:FORGOTTEN]
    metric = gx.create("metric/randomisation", explainer=ours)
    found = ours.explain(world.classifier, shown, target=world.one[:FORGOTTEN], runtime=RUNTIME)
    metric.update(model=world.classifier, explanation=found)
    figures = metric.compute()
    return {"similarity": [figures["similarity"], 1.959964 * figures["similarity_se"]]}


def told(values: Tensor) -> list[float]:
    """Return a mean over images and the half width of its 95 % interval."""
    values = values.double()
    return [float(values.mean()), 1.959964 * float(values.std()) / math.sqrt(len(values))]


def maps_cell(world: World, baseline: str, method: str) -> dict[str, list[float]]:
    """Return what the maps of a baseline by a method are worth."""
    found = attributed(world, baseline, method, world.shown, world.one)
    maps = found.maps if found.maps.ndim == 4 else found.maps[:, None]
    flat = maps.sum(1).flatten(1).double()
    low, high = world.shown.value_range
    lit = (world.shown.images > low + DARK * (high - low)).float()
    outside = (F.max_pool2d(lit, 3, 1, 1) == 0).flatten(1)
    ordered = flat.abs().sort(1).values
    pixels = flat.shape[1]
    weight = (pixels - torch.arange(1, pixels + 1) + 0.5) / pixels
    whole = flat.abs().sum(1).clamp(min=1e-12)
    cell = {
        "gini": told(1 - 2 * (ordered * weight).sum(1) / whole),
        "outside": told((flat.abs() * outside).sum(1) / whole),
    }
    if found.delta is not None:
        total = found.maps.double().flatten(1).sum(1)
        gone = total - found.delta.double()
        cell["gap"] = told(found.delta.double().abs() / (total.abs() + gone.abs()).clamp(min=1e-12))
    if found.baseline is not None:
        cell["difference"] = told(inserted_less_deleted(world, flat, found.baseline))
    return cell


@torch.no_grad()
def inserted_less_deleted(world: World, flat: Tensor, baseline: Tensor) -> Tensor:
    """Return the area of insertion less that of deletion ``[N]``, between x and B, of the probability of c of the pair.

    0 for a map at random, whatever B.
    """
    images, rows = world.shown.images, torch.arange(len(flat))
    rank = flat.argsort(1, descending=True).argsort(1).view(len(flat), 1, *images.shape[2:])
    curves = []
    for k in range(POINTS + 1):
        first = rank < k * flat.shape[1] // POINTS
        areas = []
        for here, there in ((images, baseline), (baseline, images)):
            logits = world.classifier(torch.where(first, here, there))
            areas.append((logits[rows, world.one] - logits[rows, world.other]).sigmoid())
        curves.append(areas[0] - areas[1])
    stacked = torch.stack(curves)
    return (stacked[1:] + stacked[:-1]).mean(0) / 2


def baseline_cell(world: World, baseline: str) -> dict[str, list[float]]:
    """Return the three terms of the formula, of the baselines themselves: means, and both ends of their intervals."""
    found = attributed(world, baseline, "integrated gradients", world.shown, world.one)
    cell: dict[str, list[float]] = {}
    for by, judge in (("density", world.flow), ("features", world.witness)):
        metric = gx.create("metric/baseline-quality", by=by, judge=judge)
        metric.update(explanation=found, real=world.known, model=world.classifier)
        figures = metric.compute()
        for name in ("features_rank",) if by == "features" else OF_BASELINES:
            key = "realism_rank" if name == "features_rank" else name
            if by == "features" or name != "features_rank":
                cell[name] = [figures[key], figures[f"{key}_low"], figures[f"{key}_high"]]
    return cell


@torch.no_grad()
def flips_cell(world: World, maker: str) -> dict[str, Any]:
    """Return the shares of pairs that flip, by three judges: of all pairs, and of six."""
    svm = SVC(C=10).fit(world.known.images.flatten(1).numpy(), world.known.labels.numpy())
    judges = {
        "classifier": lambda x: world.classifier(x).argmax(1),
        "witness": lambda x: world.witness(x).argmax(1),
        "SVM": lambda x: torch.from_numpy(svm.predict(x.flatten(1).numpy())),
    }
    hits = {name: torch.zeros(len(world.held), 10) for name in judges}
    for t in range(10):
        with torch.enable_grad():
            made = world.makers[maker].make(world.classifier, world.held.images, torch.full((len(world.held),), t))
        for name, sees in judges.items():
            hits[name][:, t] = (sees(made) == t).float()
    others = F.one_hot(world.seen, 10) == 0
    cell: dict[str, Any] = {}
    for name, hit in hits.items():
        rates = {"all": [float((hit * others).sum() / others.sum()), len(hit)]}
        for c, t in PAIRS:
            rows = world.seen == c
            rates[f"{c} → {t}"] = [float(hit[rows, t].mean()), int(rows.sum())]
        cell[name] = rates
    return cell


def measure(kept: dict[str, Any]) -> None:
    """Measure what is not kept yet, and keep each cell as it is there."""
    warnings.simplefilter("ignore", GenxaiWarning)  # steps are fixed: what maps are off by is a column
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    world = World()
    wanted: list[tuple[str, Any]] = [
        (f"maps | {b} | {m}", lambda b=b, m=m: maps_cell(world, b, m))
        for b in BASELINES
        for m in METHODS
        if b != "expected" or m in SEVERAL
    ]
    wanted += [(f"baseline | {b}", lambda b=b: baseline_cell(world, b)) for b in BASELINES if b != "expected"]
    wanted += [(f"forgotten | {b}", lambda b=b: forgotten_cell(world, b)) for b in BASELINES if b != "expected"]
    wanted += [(f"flips | {m}", lambda m=m: flips_cell(world, m)) for m in MAKERS]
    for name, cell in wanted:
        if name not in kept:
            kept[name] = json.loads(json.dumps(cell()), parse_float=lambda text: round(float(text), 5))
            FIGURES.parent.mkdir(parents=True, exist_ok=True)
            storage.write_json(FIGURES, kept)
            print(name, kept[name], flush=True)
    picture(world)


def picture(world: World) -> None:
    """Draw the first held-out digit of each of six pairs: image, baselines, maps."""
    right = world.seen == world.held.labels
    found = {}
    for name in ("GANMEX", "MDTS", "class mean", "least change", "blur", "black"):
        parts = []
        for c, t in PAIRS:
            row = int(((world.seen == c) & right).nonzero()[0])
            parts.append(attributed(world, name, "integrated gradients", world.held[[row]], c, t))
        found[name] = OneVsOne.concat(parts)
    contrasts(found).savefig(PICTURE, dpi=80, bbox_inches="tight")


def main() -> None:
    """Measure or write, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    asked = parser.parse_args()
    kept = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    if not asked.write:
        measure(kept)
    PAGE.write_text(page(kept))
    print(headline(kept))


if __name__ == "__main__":
    main()
