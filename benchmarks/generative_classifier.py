"""Generative against discriminative: accuracy on held-out digits under rising occlusion and noise.

    python benchmarks/generative_classifier.py            # measure the seeds that are missing, write page and picture
    python benchmarks/generative_classifier.py --write    # only write page and picture again from the kept figures

Of each seed, 1,200 of scikit-learn's digits train both classifiers (each keeps the same 240 of them out) and 597 others
test them. An image is altered at the 8 px that it was made at, and then brought to the 16 px that both see. Every test
image has the same square and the same noise for both. Figures are kept in results/generative_classifier.json, a seed as
soon as it is done, so that a run that was stopped goes on. One core, about half a minute for a seed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "generative_classifier.json"
PAGE = HERE.parent / "docs" / "results" / "generative-classifier.md"
PICTURE = HERE.parent / "docs" / "images" / "generative-classifier.png"

SEEDS = range(8)
TRAIN, NATIVE, SIZE = 1200, 8, 16
OUTLIERS = 0.05
"""Share of unaltered held-out images that each classifier may warn of."""

LEVELS: dict[str, tuple[float, ...]] = {
    "black": (0, 1, 2, 3, 4, 5, 6),
    "white": (0, 1, 2, 3, 4, 5, 6),
    "noise": (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
}
KINDS = {
    "black": ("hidden by a black square", "side, of 8 px"),
    "white": ("covered by a white square", "side, of 8 px"),
    "noise": ("Gaussian noise, clipped", "deviation, of the value range"),
}
MODELS = {"discriminative": "trainer/classifier", "generative": "trainer/generative-classifier"}
COLOURS = {"discriminative": "#2a6fb0", "generative": "#d1661c"}
T95 = {5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t, 97.5 %, by number of seeds."""


# -- measuring ----------------------------------------------------------------------------------------------------


def altered(images: Tensor, kind: str, level: float, seed: int) -> Tensor:
    """Return images ``[N, 1, 8, 8]`` in (-1, 1) altered, and brought to 16 px."""
    import torch
    from torch.nn.functional import interpolate

    from genxai_core import draws

    images = images.clone()
    if kind == "noise":
        drawn = draws.normal(seed, range(len(images)), images.shape[1:], stream="benchmark-noise")
        images = (images + 2 * level * drawn).clamp(-1, 1)
    elif level:
        side = int(level)
        corners = draws.uniform(seed, range(len(images)), (2,), stream="benchmark-squares") * (NATIVE - side + 1)
        for image, (y, x) in zip(images, corners.long().tolist()):
            image[:, y : y + side, x : x + side] = -1.0 if kind == "black" else 1.0
    return torch.as_tensor(interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False))


def one_seed(seed: int) -> dict[str, Any]:
    """Train both on the same images and measure both on the same altered ones."""
    import torch

    import genxai_core as gx
    from genxai_core import draws

    small, large = (gx.create("dataset/digits", size=size)[:] for size in (NATIVE, SIZE))
    order = draws.permutation(seed, 0, len(large), stream="benchmark-split").tolist()
    train, test = large[order[:TRAIN]], small[order[TRAIN:]]
    runtime = gx.Runtime(device="cpu", seed=seed, quiet=True)
    began = time.process_time()
    trained = {
        "discriminative": gx.create(MODELS["discriminative"]).fit(train, runtime),
        "generative": gx.create(MODELS["generative"], outliers=OUTLIERS).fit(train, runtime),
    }
    held = train[[int(i) for i in draws.permutation(seed, 0, TRAIN, stream="holdout")][: round(0.2 * TRAIN)]]

    def answers(name: str, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decisions, and how sure: log p(x), or the largest probability."""
        with torch.no_grad():
            logits = trained[name].classifier(images)
        sure = torch.logsumexp(logits, 1) if name == "generative" else logits.softmax(1).amax(1)
        return logits.argmax(1), sure

    least = {
        name: float(torch.quantile(answers(name, held.images)[1], OUTLIERS, interpolation="lower")) for name in MODELS
    }
    assert abs(least["generative"] - trained["generative"].info["floor"]) < 0.1  # the same held-out images
    found: dict[str, Any] = {}
    for kind, levels in LEVELS.items():
        found[kind] = {name: [] for name in MODELS}
        for level in levels:
            images = altered(test.images, kind, level, seed)
            for name in MODELS:
                decisions, sure = answers(name, images)
                wrong, warned = decisions != test.labels, sure < least[name]
                found[kind][name].append(
                    {
                        "accuracy": float((~wrong).float().mean()),
                        "warned": float(warned.float().mean()),
                        "wrong_unwarned": float((wrong & ~warned).float().mean()),
                    }
                )
    return {"figures": found, "seconds": round(time.process_time() - began, 1)}


def measure() -> None:
    """Measure every seed that is not kept yet."""
    import torch

    torch.set_num_threads(1)
    kept = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {"seeds": {}}
    for seed in SEEDS:
        if str(seed) in kept["seeds"]:
            continue
        kept["seeds"][str(seed)] = one_seed(seed)
        kept["levels"] = LEVELS
        kept["machine"] = {"cpu": _cpu(), "python": platform.python_version(), "torch": torch.__version__}
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"seed {seed}: {kept['seeds'][str(seed)]['seconds']} s, load {os.getloadavg()[0]:.1f}", flush=True)


def _cpu() -> str:
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


# -- figures ------------------------------------------------------------------------------------------------------


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean over seeds and the half width of its 95 % interval."""
    return statistics.mean(values), T95[len(values)] * statistics.stdev(values) / len(values) ** 0.5


def series(kept: dict[str, Any], kind: str, name: str, what: str) -> list[list[float]]:
    """Return for each level the values of all seeds, in per cent."""
    rows = [[100 * cell[what] for cell in s["figures"][kind][name]] for s in kept["seeds"].values()]
    return [list(column) for column in zip(*rows)]


def differences(kept: dict[str, Any], kind: str, what: str) -> list[tuple[float, float]]:
    """Return generative minus discriminative at each level, in pairs by seed, with the interval's half width."""
    pairs = zip(series(kept, kind, "generative", what), series(kept, kind, "discriminative", what))
    return [interval([g - d for g, d in zip(generative, other)]) for generative, other in pairs]


def draw(kept: dict[str, Any]) -> None:
    """Draw examples, accuracy, warnings, and the errors that come without one."""
    import torch
    from matplotlib.figure import Figure

    import genxai_core as gx

    digits = gx.create("dataset/digits", size=NATIVE)[:]
    shown = [int((digits.labels == 5).nonzero()[2]), int((digits.labels == 8).nonzero()[4])]
    figure = Figure(figsize=(11, 8.2), layout="constrained", dpi=110)
    grid = figure.subplots(4, len(LEVELS), height_ratios=[0.62, 1.5, 1.1, 1.1])
    for column, (kind, levels) in enumerate(LEVELS.items()):
        strip = torch.cat(
            [altered(digits[shown].images, kind, level, 3)[:, 0].flatten(0, 1) for level in levels], 1
        )  # [2 · 16, levels · 16]
        axes = grid[0][column]
        axes.imshow(strip, cmap="gray", vmin=-1, vmax=1, interpolation="nearest", aspect="equal")
        for k in range(1, len(levels)):
            axes.axvline(k * SIZE - 0.5, color="white", linewidth=2)
        axes.axhline(SIZE - 0.5, color="white", linewidth=2)
        axes.set_axis_off()
        axes.set_title(KINDS[kind][0], fontsize=12)
        for row, (what, label) in enumerate(
            [("accuracy", "right, %"), ("warned", "warned of, %"), ("wrong_unwarned", "wrong, unwarned, %")], start=1
        ):
            axes = grid[row][column]
            places = range(len(levels))
            for name, colour in COLOURS.items():
                found = [interval(values) for values in series(kept, kind, name, what)]
                middle = [mean for mean, _ in found]
                axes.plot(places, middle, color=colour, marker="o", markersize=4, linewidth=2, label=name)
                low, high = [max(m - h, 0) for m, h in found], [min(m + h, 100) for m, h in found]
                axes.fill_between(places, low, high, color=colour, alpha=0.22, linewidth=0)
            axes.set_ylim(0, 55 if what == "wrong_unwarned" else 104)
            axes.set_xticks(places, [f"{level:g}" for level in levels])
            axes.grid(axis="y", color="0.9")
            axes.spines[["top", "right"]].set_visible(False)
            if row == 3:
                axes.set_xlabel(KINDS[kind][1])
            if column == 0:
                axes.set_ylabel(label)
    grid[1][0].legend(loc="lower left", frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def verdict(kept: dict[str, Any], kind: str, what: str, more_is_better: bool) -> str:
    """Say at which levels which of the two is better."""
    better: dict[str, list[str]] = {"generative": [], "discriminative": [], "neither": []}
    for level, (mean, half) in zip(LEVELS[kind], differences(kept, kind, what)):
        name = "neither" if abs(mean) <= half else "generative" if (mean > 0) == more_is_better else "discriminative"
        better[name].append(f"{level:g}")
    said = [f"{name} at {', '.join(levels)}" for name, levels in better.items() if levels]
    return f"- {KINDS[kind][0]}: {'; '.join(said)}."


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    seeds = len(kept["seeds"])
    lines = [
        "# Generative against discriminative classifiers, measured",
        "",
        "Does a classifier that knows what each class looks like, argmax p(x|y) p(y), stand occlusion and noise better "
        "than one that was trained to tell the classes apart? Both were trained on the same unaltered digits; neither "
        "saw an altered one.",
        "",
        "![Examples, accuracy, warnings, and errors without one](../images/generative-classifier.png)",
        "",
        f"**Which is more often right?** The better one at each strength (the 95 % interval of the difference, in "
        f"pairs over {seeds} seeds, excludes 0; not corrected for the number of comparisons):",
        "",
        *(verdict(kept, kind, "accuracy", True) for kind in LEVELS),
        "",
        "**Which is less often wrong without a warning?** In the same way (what a warning is stands below):",
        "",
        *(verdict(kept, kind, "wrong_unwarned", False) for kind in LEVELS),
        "",
        "A classifier that warns of everything is never wrong without a warning: the tables say how often each warns.",
        "",
    ]
    for kind, levels in LEVELS.items():
        lines += [
            f"## {KINDS[kind][0][0].upper()}{KINDS[kind][0][1:]}",
            "",
            "In per cent of the test images; d: discriminative, g: generative.",
            "",
            f"| {KINDS[kind][1]} | right, d | right, g | g − d | warned of, d | warned of, g | "
            "wrong without a warning, d | the same, g | g − d |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for k, level in enumerate(levels):
            cells = []
            for what in ("accuracy", "warned", "wrong_unwarned"):
                for name in MODELS:
                    mean, half = interval(series(kept, kind, name, what)[k])
                    cells.append(f"{mean:.1f} ± {half:.1f}")
                mean, half = differences(kept, kind, what)[k]
                if what != "warned":
                    cells.append(f"{_signed(mean)} ± {half:.1f}")
            lines.append(f"| {level:g} | {' | '.join(cells)} |")
        lines.append("")
    seconds = statistics.median(s["seconds"] for s in kept["seeds"].values())
    lines += [
        "## What was done",
        "",
        f"Of each seed, {TRAIN:,} of scikit-learn's 1,797 digits for training and the other 597 for the test; seeds 0 "
        f"to {seeds - 1}. `trainer/classifier` (a convolutional network) and `trainer/generative-classifier` (a flow "
        "per class) with their defaults, which were chosen on unaltered digits. Both hold the same 240 training images "
        "out. Images are altered at 8 px, at which they were made, and brought to 16 px afterwards; every test image "
        "has the same square and the same noise for both. Intervals are 95 %, Student's t over seeds.",
        "",
        f"A classifier *warns* of an image where it is less sure than of all but {OUTLIERS:.0%} of the 240 held-out "
        "images: the generative one by log p(x), the discriminative one by its largest probability. *Wrong without a "
        "warning* is the share of all test images that are classified wrongly and not warned of.",
        "",
        "What this does not tell: the two differ in more than what they were trained for, since one is a convolution "
        "over the image and the other a density of 64 numbers; no augmentation was tried, by which a discriminative "
        "classifier learns to stand what it was shown; and ten classes of 64 pixels are few.",
        "",
        f"`python benchmarks/generative_classifier.py` measures and writes this page ({seconds:.0f} s of CPU time a "
        f"seed, {kept['machine']['cpu']}, torch {kept['machine']['torch'].partition('+')[0]}); the figures are kept in "
        "`benchmarks/results/generative_classifier.json`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, and write page and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="only write page and picture from the kept figures")
    if not parser.parse_args().write:
        measure()
    kept = json.loads(FIGURES.read_text())
    draw(kept)
    PAGE.write_text(page(kept))
    print(f"wrote {PAGE} and {PICTURE}")


if __name__ == "__main__":
    main()
