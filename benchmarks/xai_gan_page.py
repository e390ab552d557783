"""Writes docs/results/xai-gan.md and its picture from the figures that the two xai_gan benchmarks keep."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs"


@dataclass(frozen=True)
class Tier:
    """One set of data: where its figures and its picture are, and how the page speaks of it."""

    folder: Path
    picture: str
    heading: str
    data: str


TIERS = {
    "digits": Tier(RESULTS / "xai_gan_science", "xai-gan.png", "Digits at 16 px", "scikit-learn's 1797 digits"),
    "fashion-mnist": Tier(
        RESULTS / "xai_gan_science_fashion_mnist",
        "xai-gan-fashion-mnist.png",
        "Fashion-MNIST at 32 px",
        "the first 5000 images of Fashion-MNIST",
    ),
}
AUTHORS = {"plain": 1179.6591, "saliency": 3211.5941, "SHAP": 14334.0261, "LIME": 56776.2659}
"""Seconds of training on all of MNIST, from the logs in the authors' repository."""


def machine() -> dict[str, Any]:
    """What figures depend on."""
    import torch

    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def write() -> None:
    """Write the page, and the picture where there are trainings to draw."""
    page = ["# xAI-GAN: does it help, and what does it cost?", ""]
    for tier in TIERS.values():
        page += science(tier)
    page += speed(RESULTS / "xai_gan_step.json")
    (DOCS / "results").mkdir(parents=True, exist_ok=True)
    (DOCS / "results" / "xai-gan.md").write_text("\n".join(page))


# -- what it costs ----------------------------------------------------------------------------------------------


def speed(figures: Path) -> list[str]:
    """Return the section on time."""
    lines = ["## What a step costs", ""]
    if not figures.is_file():
        return [*lines, "Not run.", ""]
    kept = json.loads(figures.read_text())
    plain, facts = kept["seconds"]["plain"], kept["machine"]
    lines += ["| training | a step, median (ms) | × plain, median | quarter to three quarters |", "|---|---|---|---|"]
    for name, seconds in kept["seconds"].items():
        ratios = np.array(seconds) / np.array(plain)
        low, high = np.quantile(ratios, [0.25, 0.75])
        lines.append(
            f"| {name} | {1000 * statistics.median(seconds):.1f} | {np.median(ratios):.2f} | {low:.2f} to {high:.2f} |"
        )
    authors = ", ".join(f"{name} {s / AUTHORS['plain']:.1f} ×" for name, s in AUTHORS.items() if name != "plain")
    said = f"""
The default DCGAN at {kept["size"]} px, batch {kept["batch"]}, every step guided unless said otherwise; DeepLiftShap has
{kept["references"]} digits as references. The {kept["rounds"]} rounds take turns in blocks of {kept["steps"]} steps,
each compared with the plain block of its round. One thread, CPU time. {facts["cpu"]}, torch {facts["torch"]}, load
average {facts["load"]} on {facts["cores"]} cores.

The authors' own trainings on MNIST took, against their plain one of {AUTHORS["plain"]:.0f} s: {authors}, guided in half
of the steps, by the logs in their repository. Another network, another machine: the ratios are what compares.

`python benchmarks/xai_gan_step.py` measures again.
"""
    return [*lines, *said.splitlines(), ""]


# -- does it help -----------------------------------------------------------------------------------------------


def runs(folder: Path) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Return the measured points by arm and seed."""
    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    for path in sorted(folder.glob("*-[0-9]*.json")):
        kept = json.loads(path.read_text())
        found.setdefault(kept["arm"], {})[kept["seed"]] = kept["points"]
    order = ["plain", "saliency", "deeplift-shap", "uniform", "shuffled", "random"]
    return {arm: found[arm] for arm in order if arm in found}


def interval(values: Any, level: float = 0.95) -> tuple[float, float]:
    """Return the mean and half the width of its interval, by Student's t over the seeds."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))


def text(values: Any, digits: int, sign: str = "") -> str:
    """Write a mean and its interval."""
    mean, half = interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}".replace("-", "−")


def settle(found: dict[str, dict[int, list[dict[str, float]]]]) -> None:
    """Put the time of every arm at each point, in place, to what it is on a machine of equal speed.

    Until guidance begins all arms do the same work, so that time tells how fast the machine was: each training is
    scaled to the median of that over all of them. An arm's clock is then the median over its seeds.
    """
    half = len(next(iter(next(iter(found.values())).values()))) // 2 - 1
    unit = np.median([points[half]["seconds"] for by_seed in found.values() for points in by_seed.values()])
    for by_seed in found.values():
        own = [[p["seconds"] / points[half]["seconds"] for p in points] for points in by_seed.values()]
        for points in by_seed.values():
            for point, share in zip(points, np.median(own, 0)):
                point["seconds"] = float(share * unit)


def at_time(by_seed: dict[int, list[dict[str, float]]], seconds: float, name: str) -> list[float]:
    """Return a figure of every seed after so much CPU time, on straight lines between the points."""
    return [
        float(np.interp(seconds, [p["seconds"] for p in points], [p[name] for p in points]))
        for points in by_seed.values()
    ]


def science(tier: Tier) -> list[str]:
    """Return the section on quality, and draw the curves."""
    lines = [f"## Does it help? {tier.heading}", ""]
    found = {arm: by_seed for arm, by_seed in runs(tier.folder).items() if len(by_seed) >= 2}
    if "plain" not in found:
        return [*lines, "**Not run.**", ""]
    setting = json.loads((tier.folder / "setting.json").read_text())
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
    found = {arm: {seed: by_seed[seed] for seed in seeds} for arm, by_seed in found.items()}
    settle(found)
    budget = next(iter(found["plain"].values()))[-1]["seconds"]
    last = {arm: [points[-1] for points in by_seed.values()] for arm, by_seed in found.items()}
    draw(found, setting, tier.picture)
    lines += [
        verdict(found),
        "",
        f"![KID over training, at equal steps and at equal time](../images/{tier.picture})",
        "",
    ]
    lines += table(last, found, budget, setting)
    lines += against("plain", last) + against("uniform", last)
    floors = setting["floor"]
    floor = f"{np.mean(floors['kid']):.4f}".replace("-", "−")
    facts, alpha = setting["machine"], setting["guided"]["alpha"]
    said = f"""
Real images against real ones ({len(floors["kid"])} random splits into halves): KID {floor}, with a standard deviation
of {np.std(floors["kid"]):.4f} between splits; FID {np.mean(floors["fid"]):.2f}. FID is biased upwards, more so in the
halves: its floor against all of them is lower. KID is not biased.

{setting["steps"]} steps of 64 images on {tier.data}, `trainer/gan` and `trainer/xai-gan` with their
defaults: α = {alpha}, guided from half of training on. The placebos stand in the place of the saliency's mask.
DeepLiftShap is explained at every fifth step, with 8 real images as references, so it guides a fifth as often. Arms of
a seed share first weights, latents and the order of the data, and are equal bit for bit until guidance begins. At each
of {setting["points"]} checkpoints as many generated images are compared with all real ones, on the features of one
classifier (`trainer/classifier`, seed 0). Equal time is that which plain training takes for all steps, {budget:.0f} s
of CPU time on one thread, evaluation not counted; what is as quick counts with all its steps. Other programs ran
beside and stretched some trainings by a third; each is scaled by its own first half, which is the same work in all
arms, and an arm's time is the median over the seeds. Differences of a few per cent in it mean nothing. Intervals are
95 %, Student's t over seeds {seeds[0]} to {seeds[-1]}; they are not corrected for the number of comparisons.
{facts["cpu"]}, torch {facts["torch"]}.

The paper ([Nagisetty et al., 2020](https://arxiv.org/abs/2002.10438)) reports up to 23 % better FID, on MNIST,
Fashion-MNIST and CIFAR-10, without placebos. The logs in its repository hold one run of each kind.

`python benchmarks/xai_gan_science.py` runs what is missing and writes this page; one file per arm and seed in
`benchmarks/results/{tier.folder.name}/`, so that a run that was stopped goes on.
"""
    return [*lines, *said.splitlines(), ""]


def verdict(found: dict[str, dict[int, list[dict[str, float]]]]) -> str:
    """Say what came out, whatever it is: after all steps, and over all checkpoints since guidance began."""
    pairs = [(arm, other) for other in ("plain", "uniform") for arm in ("saliency", "deeplift-shap")]
    pairs = [(arm, other) for arm, other in pairs if arm in found and other in found]
    level = 1 - 0.05 / max(1, len(pairs))
    sentences = []
    for when, last in (("after all steps", 1), ("as the mean of the checkpoints since guidance began", 5)):
        said = []
        for arm, other in pairs:
            kids = [[np.mean([p["kid"] for p in points[-last:]]) for points in found[a].values()] for a in (arm, other)]
            mean, half = interval(np.subtract(*kids), level)
            word = "no difference that can be told" if abs(mean) <= half else ("better" if mean < 0 else "worse")
            said.append(f"{arm} against {other}: {word} (KID {mean:+.4f} ± {half:.4f})".replace("-0", "−0"))
        sentences.append(f"- {when}: " + "; ".join(said) + ".")
    head = (
        f"{len(next(iter(found.values())))} seeds, in pairs, with 95 % intervals that hold for these {len(pairs)} "
        f"comparisons together (Bonferroni; the tables below are not corrected):"
    )
    return "\n".join([head, "", *sentences])


def table(
    last: dict[str, list[dict[str, float]]], found: dict[str, dict[int, Any]], budget: float, setting: dict[str, Any]
) -> list[str]:
    """Return figures at equal steps and at equal time."""
    steps = setting["steps"]
    lines = [
        f"| arm | KID, {steps} steps | FID, {steps} steps | KID, equal time | FID, equal time | CPU time (s) |",
        "|---|---|---|---|---|---|",
    ]
    for arm, rows in last.items():
        timed = [at_time(found[arm], budget, name) for name in ("kid", "fid")]
        cells = [
            text([r["kid"] for r in rows], 4),
            text([r["fid"] for r in rows], 3),
            text(timed[0], 4),
            text(timed[1], 3),
            f"{np.median([r['seconds'] for r in rows]):.0f}",
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def against(base: str, last: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the differences of pairs to one arm."""
    if base not in last:
        return []
    lines = [f"| minus {base}, in pairs | KID | FID | FID, % |", "|---|---|---|---|"]
    for arm, rows in last.items():
        if arm != base:
            pairs = list(zip(rows, last[base]))
            lines.append(
                f"| {arm} | {text([a['kid'] - b['kid'] for a, b in pairs], 4, '+')} "
                f"| {text([a['fid'] - b['fid'] for a, b in pairs], 3, '+')} "
                f"| {text([100 * (a['fid'] / b['fid'] - 1) for a, b in pairs], 1, '+')} |"
            )
    return [*lines, ""]


def draw(found: dict[str, dict[int, Any]], setting: dict[str, Any], picture: str) -> None:
    """Draw mean KID over steps and over time, with its 95 % interval, and the floor."""
    from matplotlib.figure import Figure

    from genxai_core import plots

    figure = Figure(figsize=(9.2, 3.6), facecolor="white")
    for axis, by in zip(figure.subplots(1, 2, sharey=True), ("step", "seconds")):
        for colour, dashes, (arm, by_seed) in zip(plots.COLOURS * 2, plots.DASHES * 2, found.items()):
            late = [[p for p in points if p["step"] >= setting["steps"] / 2] for points in by_seed.values()]
            where = np.median([[p[by] for p in points] for points in late], 0)
            spread = [interval(column) for column in np.array([[p["kid"] for p in points] for points in late]).T]
            mean, half = (np.array(v) for v in zip(*spread))
            axis.plot(where, mean, color=colour, linestyle=dashes, linewidth=1.7, label=arm)
            axis.fill_between(where, mean - half, mean + half, color=colour, alpha=0.1, linewidth=0)
        axis.axhline(
            np.mean(setting["floor"]["kid"]),
            color=plots.INK,
            linewidth=0.8,
            linestyle=":",
            label="real against real",
        )
        axis.set_xlabel("step" if by == "step" else "CPU time (s)", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.5)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("KID (lower is better)", fontsize=8)
    figure.axes[1].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    (DOCS / "images").mkdir(parents=True, exist_ok=True)
    (DOCS / "images" / picture).write_bytes(plots.png(figure))


if __name__ == "__main__":
    write()
