"""Baselines and methods held against each other, on digits that neither generator nor classifier was trained on.

    python benchmarks/ganmex.py            # measure what is not kept yet, write docs/results/ganmex.md and the figure
    python benchmarks/ganmex.py --write    # only write the page from the kept figures

Each cell is kept in results/ganmex.json as soon as it is there, so that what was stopped goes on; delete the file to
measure all again. Some five minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import torch
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

IMAGES, POINTS, EXPECTED, DARK = 64, 32, 32, 0.1
PAIRS = ((3, 8), (8, 3), (4, 9), (9, 4), (1, 7), (7, 1))
WITNESS = {"model": Spec("discriminator/classifier", {"width": 48, "feature_size": 96}), "steps": 600}
WITNESS_SEED = 11
RUNTIME = Runtime(device="cpu", quiet=True, batch_size=64)

NAMED = {"grey": "zero", "black": "low"} | {name: name for name in ("mean", "blur", "noise", "max-distance")}
MAKERS = ("MDTS", "class mean", "least change", "GANMEX")
BASELINES = (*NAMED, "expected", *MAKERS)
METHODS = {
    "integrated gradients": Spec("explainer/integrated-gradients", {"steps": 64}),
    "GradientSHAP": Spec("explainer/gradient-shap"),
    "occlusion": Spec("explainer/occlusion"),
}
SEVERAL = {"GradientSHAP": METHODS["GradientSHAP"]}
"""What takes several references."""

OF_MAPS = {"difference": True, "gini": True, "outside": False, "gap": False}
OF_BASELINES = {"distance": False, "realism_rank": True, "features_rank": True, "target_score": True, "flip_rate": True}
HEADS = {
    "difference": "insertion − deletion",
    "gini": "Gini",
    "outside": "outside the digit",
    "gap": "completeness gap",
    "distance": "distance",
    "realism_rank": "realism rank: flow",
    "features_rank": "features of the witness",
    "target_score": "target score",
    "flip_rate": "flip rate",
}


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


def attributed(world: World, baseline: str, method: str, images: Any, target: Any, against: int | None = None) -> Any:
    """Return maps of why the one class and not the other; steps are fixed, so their error is not warned of."""
    spec = SEVERAL[method] if baseline == "expected" else METHODS[method]
    given = world.baseline(baseline)
    explainer = gx.create("explainer/ganmex-attribution", baseline=given, method=spec, against=against, tolerance=10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenxaiWarning)
        return explainer.explain(world.classifier, images, target=target, runtime=RUNTIME)


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
    from genxai_ganmex.contrast import OneVsOne
    from genxai_ganmex.contrast_figure import contrasts

    right = world.seen == world.held.labels
    found = {}
    for name in ("GANMEX", "MDTS", "class mean", "least change", "blur", "black"):
        parts = []
        for c, t in PAIRS:
            row = int(((world.seen == c) & right).nonzero()[0])
            parts.append(attributed(world, name, "integrated gradients", world.held[[row]], c, t))
        found[name] = OneVsOne.concat(parts)
    contrasts(found).savefig(PICTURE, dpi=80, bbox_inches="tight")


def table(kept: dict[str, Any], method: str) -> list[str]:
    """Return the rows of a method, the best mean of each column bold."""
    cells = {b: kept.get(f"maps | {b} | {method}") for b in BASELINES}
    rows = [f"| baseline | {' | '.join(HEADS[m] for m in OF_MAPS)} |", "|---" * (1 + len(OF_MAPS)) + "|"]
    told_of = {m: up for m, up in OF_MAPS.items() if any(m in (cell or {}) for cell in cells.values())}
    top = {m: best(cells, m, up) for m, up in told_of.items()}
    for name, cell in cells.items():
        row = []
        for metric in OF_MAPS:
            mean, half = (cell or {}).get(metric, (math.nan, math.nan))
            bold = "**" if top.get(metric) == name else ""
            row.append("—" if math.isnan(mean) else f"{bold}{mean:.3f}{bold} ± {half:.3f}")
        rows.append(f"| {name} | {' | '.join(row)} |")
    return rows


def best(cells: dict[str, Any], metric: str, higher: bool) -> str:
    """Return which has the best mean."""
    there = {name: cell[metric][0] for name, cell in cells.items() if cell and metric in cell}
    return (max if higher else min)(there, key=there.__getitem__)


def wilson(share: float, n: int) -> str:
    """Return a share and its 95 % interval, in per cent."""
    z = statistics.NormalDist().inv_cdf(0.975) ** 2 / n
    centre, half = share + z / 2, (z * share * (1 - share) + z * z / 4) ** 0.5
    low, high = (max(0.0, min(1.0, x / (1 + z))) for x in (centre - half, centre + half))
    return f"{100 * share:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def headline(kept: dict[str, Any]) -> str:
    """Say in words what came out."""
    won, lost = [], []
    tables = {f" of {m}": ({b: kept.get(f"maps | {b} | {m}") for b in BASELINES}, OF_MAPS) for m in METHODS}
    for of, (cells, metrics) in ({"": (terms(kept), OF_BASELINES)} | tables).items():
        for metric, up in metrics.items():
            if metric in cells["GANMEX"]:
                first = best(cells, metric, up)
                even = cells[first][metric][0] == cells["GANMEX"][metric][0]
                what = HEADS[metric] + of
                (won if even else lost).append(what if even else f"{what} ({first})")
    flips = kept["flips | GANMEX"]
    shares = ", ".join(f"{100 * flips[j]['all'][0]:.1f} % as judged by {w}" for j, w in JUDGES.items())
    return (
        f"GANMEX's baselines of held-out digits flip: {shares}; those of least change flip the classifier only "
        f"({100 * kept['flips | least change']['witness']['all'][0]:.1f} % by the independent one). Of "
        f"{len(won) + len(lost)} columns below GANMEX has the best mean, or shares it, in {len(won)}: "
        f"{'; '.join(won)}. **It does not win** the others, in parentheses who does: {'; '.join(lost)}. Real images "
        "(MDTS) flip and insert as well as it does, and the flow holds them for much more real; they are farther, and "
        "their maps less sparse."
    )


def terms(kept: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of the baselines themselves."""
    return {b: kept.get(f"baseline | {b}") for b in BASELINES}


JUDGES = {"classifier": "the classifier explained", "witness": "an independent one", "SVM": "a support vector machine"}


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    cells = terms(kept)
    top = {m: best(cells, m, up) for m, up in OF_BASELINES.items()}
    quality = [f"| baseline | {' | '.join(HEADS[m] for m in OF_BASELINES)} |", "|---" * (1 + len(OF_BASELINES)) + "|"]
    for name, cell in cells.items():
        row = []
        for metric in OF_BASELINES:
            mean, low, high = cell[metric] if cell else (math.nan,) * 3
            bold = "**" if top[metric] == name else ""
            row.append(f"{bold}{mean:.2f}{bold} ({low:.2f}–{high:.2f})" if cell else "—")
        quality.append(f"| {name} | {' | '.join(row)} |")
    columns = ["all", *(f"{c} → {t}" for c, t in PAIRS)]
    flips = [f"| maker | judge | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for maker in MAKERS:
        for judge, words in JUDGES.items():
            cell = kept[f"flips | {maker}"][judge]
            flips.append(f"| {maker} | {words} | {' | '.join(wilson(*cell[c]) for c in columns)} |")
    maps: list[str] = []
    for method in METHODS:
        maps += [f"### {method[0].upper()}{method[1:]}", "", *table(kept, method), ""]
    n = int(kept["flips | GANMEX"]["classifier"]["all"][1])
    return "\n".join(
        [
            "# Baselines and what they are worth",
            "",
            headline(kept),
            "",
            f"Digits of 16 px that neither the generator nor the classifier, both as they are shipped, was trained on: "
            f"{n} of them for flips, the first {IMAGES} for maps, each explained as the class that the classifier sees "
            "and not as its second. The witness is another classifier (wider, of another seed, 600 steps), and the "
            "support vector machine sees pixels; both are trained on the same images as the classifier. One training "
            "of each: intervals, all at 95 %, are over images, not over trainings. A column's best mean is bold, which "
            "says nothing of whether the next is different: compare intervals.",
            "",
            "![Six held-out digits, each with its baselines and the maps from them](../images/ganmex-baselines.png)",
            "",
            "*The first held-out digit of each pair, not chosen, by integrated gradients. Red speaks for the class and "
            "against the other.*",
            "",
            "## Flips",
            "",
            "Per cent of images that the judge takes for the target; Wilson's intervals, of all pairs with as many "
            "trials as images.",
            "",
            *flips,
            "",
            "## The baselines themselves",
            "",
            "The terms of [`metric/baseline-quality`](../reference/ganmex-attribution.md#metricbaseline-quality): near "
            "(lower is better), real by two judges (the share of real images that are judged less real; an average and "
            "a copy exceed ½), and of the target class. *Expected* is many images, and has no distance of its own.",
            "",
            *quality,
            "",
            "## Maps",
            "",
            f"*Insertion − deletion* goes between x and B in {POINTS} steps, by the probability of c against t; a map "
            "at random has 0, and what B is decides how much there is to gain, so that it is no measure of maps alone. "
            "*Gini* is 0 where all pixels count alike. *Outside the digit* is the share of |map| on pixels that are "
            f"dark (lowest {100 * DARK:.0f} % of the range) with all their neighbours: noise, but also where the other "
            "digit would have to be painted; of black it is 0 since there x = B. *Completeness gap* is "
            "|Σ − d| / (|Σ| + |d|) with d the difference that is explained; occlusion promises no sum. *Expected* is "
            "32 training digits, by GradientSHAP, which takes several references; the other methods do not.",
            "",
            *maps,
            "## Not run",
            "",
            "- Fashion-MNIST: `examples/data/ganmex-fashion.yaml` is its pipeline, which trains classifier, witness "
            "and generator from scratch, with checkpoints. Its reduced form is tested; the whole has not been run.",
            "- `explainer/deeplift` and `explainer/deeplift-shap` refuse this classifier, for its group norm.",
            "- Cascading randomisation of the classifier (`metric/randomisation`).",
            "- Other seeds of the generator's training; other data than digits; the maker `vae`.",
            "",
            "`python benchmarks/ganmex.py` measures what `benchmarks/results/ganmex.json` does not hold yet, and "
            "writes this page.",
            "",
        ]
    )


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
