"""The page on baselines, from the figures that `ganmex.py` keeps, and what they are called."""

from __future__ import annotations

import math
from typing import Any

from genxai_ganmex.measuring import wilson as interval

from genxai_core import Spec

IMAGES, POINTS, EXPECTED, FORGOTTEN, DARK = 64, 32, 32, 24, 0.1
PAIRS = ((3, 8), (8, 3), (4, 9), (9, 4), (1, 7), (7, 1))
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

OF_MAPS = {"difference": True, "gini": True, "outside": False, "gap": False, "similarity": False}
OF_BASELINES = {"distance": False, "realism_rank": True, "features_rank": True, "target_score": True, "flip_rate": True}
HEADS = {
    "difference": "insertion − deletion",
    "gini": "Gini",
    "outside": "outside the digit",
    "gap": "completeness gap",
    "similarity": "randomisation",
    "distance": "distance",
    "realism_rank": "realism rank: flow",
    "features_rank": "features of the witness",
    "target_score": "target score",
    "flip_rate": "flip rate",
}


def table(kept: dict[str, Any], method: str) -> list[str]:
    """Return the rows of a method, the best mean of each column bold."""
    cells = cells_of(kept, method)
    rows = [f"| baseline | {' | '.join(HEADS[m] for m in OF_MAPS)} |", "|---" * (1 + len(OF_MAPS)) + "|"]
    told_of = {m: up for m, up in OF_MAPS.items() if any(m in cell for cell in cells.values())}
    top = {m: best(cells, m, up) for m, up in told_of.items()}
    for name, cell in cells.items():
        row = []
        for metric in OF_MAPS:
            mean, half = cell.get(metric, (math.nan, math.nan))
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
    low, high = (max(0.0, min(1.0, x)) for x in interval(share, n))
    return f"{100 * share:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def headline(kept: dict[str, Any]) -> str:
    """Say in words what came out."""
    won, lost = [], []
    tables = {f" of {m}": (cells_of(kept, m), OF_MAPS) for m in METHODS}
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


def cells_of(kept: dict[str, Any], method: str) -> dict[str, Any]:
    """Return the cells of a method's maps."""
    more = {b: kept.get(f"forgotten | {b}", {}) if method == "integrated gradients" else {} for b in BASELINES}
    return {b: {**kept.get(f"maps | {b} | {method}", {}), **more[b]} for b in BASELINES}


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
            "32 training digits, by GradientSHAP, which takes several references; the other methods do not. "
            f"*Randomisation* is the similarity of `metric/randomisation`, cascading, of {FORGOTTEN} images: lower is "
            "better.",
            "",
            *maps,
            "## Not run",
            "",
            "- Fashion-MNIST: `examples/data/ganmex-fashion.yaml` is its pipeline, which trains classifier, witness "
            "and generator from scratch, with checkpoints. Its reduced form is tested; the whole has not been run.",
            "- `explainer/deeplift` and `explainer/deeplift-shap` refuse this classifier, for its group norm.",
            "- Other seeds of the generator's training; other data than digits; the maker `vae`.",
            "",
            "`python benchmarks/ganmex.py` measures what `benchmarks/results/ganmex.json` does not hold yet, and "
            "writes this page.",
            "",
        ]
    )
