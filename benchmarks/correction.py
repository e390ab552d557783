"""What scoring a generator's units costs beside generating the samples, and what batches of ablations save.

    python benchmarks/correction.py            # measure, keep results/correction.json, write the page
    python benchmarks/correction.py --write    # only write the page again from the kept figures
    python benchmarks/correction.py --check    # measure and exit with 1 if a ratio misses its goal; keep nothing

The GAN of scenes that comes trained, all units of its default layers. The sides take turns, in the other order every
second round; a ratio is that of one round. One thread, and CPU time of this process. The C library is told to keep
freed memory, as for `benchmarks/zoo.py`. Before anything is clocked, results are compared with the literal ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from genxai_correction import causal, defects, masks
from genxai_correction.judging import probabilities
from genxai_correction.layers import default_layers
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Runtime, Samples, units

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "correction.json"
PAGE = HERE.parent / "docs" / "results" / "correction-speed.md"
GOAL = 2.0
"""Scoring costs at most so many times generating."""

SIZES, SAMPLES, BATCH = (32, 64), (64, 256), 64
BROKEN, UNITS = (2, 12), 16
"""Broken samples of which units are switched off, and how many units of each layer: the first ones."""

TARGET = 0
"""The classifier's class that stands for the artifact; what it means does not matter for the time."""

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "2000000000"}
RUNTIME = Runtime(device="cpu", quiet=True, batch_size=BATCH)
Sides = dict[str, Callable[[], object]]


def gan(size: int) -> Any:
    """Return the generator."""
    return gx.create("generator/dcgan", pretrained=f"scenes-{size}").eval()


def judge(size: int) -> Any:
    """Return a classifier of its images."""
    return gx.create("discriminator/classifier", pretrained=f"scenes-{size}").eval()


def squares(n: int, size: int) -> torch.Tensor:
    """Return masks ``[n, 1, size, size]``: a square of a sixteenth of the image, somewhere."""
    chance, side = torch.Generator().manual_seed(0), size // 4
    found = torch.zeros(n, 1, size, size, dtype=torch.bool)
    for mask in found:
        y, x = torch.randint(0, size - side, (2,), generator=chance).tolist()
        mask[0, y : y + side, x : x + side] = True
    return found


def scoring(size: int, n: int) -> tuple[Sides, dict[str, Any]]:
    """Return what is clocked: generating, scoring, and apart from it thresholds and masks; and what was scored."""
    model, classifier, given = gan(size), judge(size), squares(n, size)
    latents = model.sample_latents(n, 0)
    layers = default_layers(model, latents)
    levels = defects.artifact_thresholds(model, latents, layers, RUNTIME)

    def generate() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([model(latents[i : i + BATCH]) for i in range(0, n, BATCH)])

    def score() -> dict[str, torch.Tensor]:
        return defects.sample_ious(model, latents, given, levels, RUNTIME)

    samples = Samples(generate(), latents, value_range=model.value_range)
    found = score()
    for layer in layers:  # the literal way, of the first batch
        with torch.no_grad(), units.record(model, layer) as seen:
            model(latents[:BATCH])
        active = F.interpolate(seen[layer], size=(size, size), mode="bilinear", align_corners=False)
        active = active > levels[layer][:, None, None]
        both, either = (
            (op(active, given[:BATCH]).sum((2, 3)).double()) for op in (torch.logical_and, torch.logical_or)
        )
        if not torch.equal(found[layer][:BATCH], both / either.clamp(min=1)):
            raise SystemExit(f"{layer}: scores are not the literal ones")
    sides: Sides = {
        "generating": generate,
        "scoring": score,
        "thresholds": lambda: defects.artifact_thresholds(model, latents, layers, RUNTIME),
        "masks": lambda: masks.artifact_masks(masks.GRADCAM, classifier, samples, TARGET, 0.3, RUNTIME),
    }
    return sides, {"layers": len(layers), "units": sum(len(level) for level in levels.values())}


def ablating(size: int, n: int) -> dict[str, Sides]:
    """Return both ways to switch the same units off, one after the other and in batches, by layer."""
    model, classifier = gan(size), judge(size)
    latents = model.sample_latents(n, 0)
    found: dict[str, Sides] = {}
    for layer in default_layers(model, latents):
        with units.record(model, layer) as seen, torch.no_grad():
            model(latents[:1])
        few = list(range(min(UNITS, seen[layer].shape[1])))

        def singly(layer: str = layer, few: list[int] = few) -> torch.Tensor:
            def chance() -> torch.Tensor:
                return probabilities(classifier, model(latents), model.value_range, TARGET, BATCH)

            with torch.no_grad():
                base, rows = chance(), []
                for unit in few:
                    with units.edit(model, layer, unit):
                        rows.append(chance() - base)
            return torch.stack(rows)

        def batched(layer: str = layer, few: list[int] = few) -> torch.Tensor:
            return causal.ablation_effects(model, latents, classifier, TARGET, layer, RUNTIME, units=few)

        if not torch.allclose(singly(), batched(), atol=1e-5):
            raise SystemExit(f"{layer}: effects in batches are not those of one ablation after the other")
        found[f"{layer} ({len(few)} units)"] = {"singly": singly, "batched": batched}
    return found


def clock(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def turns(sides: Sides, rounds: int) -> dict[str, list[float]]:
    """Let the sides take turns; the first round fills caches and is not counted."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(-1, rounds):
        for name, call in list(sides.items())[:: 1 if k % 2 else -1]:
            seconds = clock(call)
            if k >= 0:
                took[name].append(round(seconds, 6))
    return took


def measure(rounds: int) -> dict[str, Any]:
    """Measure both."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    load = [round(os.getloadavg()[0], 1)]
    scored, ablated = [], []
    for size in SIZES:
        for n in SAMPLES:
            sides, what = scoring(size, n)
            scored.append({"size": size, "samples": n, **what, "seconds": turns(sides, rounds)})
            print(f"scoring {size} px, {n} samples: {middle(scored[-1], 'scoring', 'generating'):.2f} × generating")
        for n in BROKEN:
            for layer, both in ablating(size, n).items():
                ablated.append({"size": size, "samples": n, "layer": layer, "seconds": turns(both, rounds)})
                print(f"{size} px, {n} samples, {layer}: {middle(ablated[-1], 'singly', 'batched'):.2f} × as fast")
    load.append(round(os.getloadavg()[0], 1))
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    machine = {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": load,
    }
    return {"goal": GOAL, "batch": BATCH, "rounds": rounds, "machine": machine, "scoring": scored, "ablating": ablated}


def ratios(case: dict[str, Any], side: str, beside: str) -> list[float]:
    """Return the ratio of every round, in order of size."""
    return sorted(a / b for a, b in zip(case["seconds"][side], case["seconds"][beside], strict=True))


def middle(case: dict[str, Any], side: str, beside: str) -> float:
    """Return their median."""
    return statistics.median(ratios(case, side, beside))


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    rows, causes = [], []
    for case in kept["scoring"]:
        took = {name: 1000 * statistics.median(seconds) for name, seconds in case["seconds"].items()}
        found = ratios(case, "scoring", "generating")
        quarter = len(found) // 4
        rows.append(
            f"| {case['samples']} samples of {case['size']} px, {case['units']} units of {case['layers']} layers "
            f"| {took['generating']:.1f} | {took['scoring']:.1f} | **{statistics.median(found):.2f} ×** "
            f"| {found[quarter]:.2f} to {found[-1 - quarter]:.2f} | {kept['goal']:g} × "
            f"| {took['thresholds']:.1f} | {took['masks']:.1f} |"
        )
    for case in kept["ablating"]:
        took = {name: 1000 * statistics.median(seconds) for name, seconds in case["seconds"].items()}
        found = ratios(case, "singly", "batched")
        quarter = len(found) // 4
        causes.append(
            f"| {case['size']} px, {case['samples']} samples | `{case['layer'].partition(' ')[0]}`, "
            f"{case['layer'].partition('(')[2].rstrip(')')} | {took['singly']:.0f} | {took['batched']:.0f} "
            f"| **{statistics.median(found):.2f} ×** | {found[quarter]:.2f} to {found[-1 - quarter]:.2f} |"
        )
    facts = kept["machine"]
    held = [middle(case, "scoring", "generating") <= kept["goal"] for case in kept["scoring"]]
    return "\n".join(
        [
            "# What scoring artifact units costs",
            "",
            "The GAN of scenes that comes trained (`generator/dcgan`, `scenes-32` and `scenes-64`), all units of the "
            "layers that `explainer/artifact-units` scores by default. Milliseconds of the processor, medians.",
            "",
            "## Scores",
            "",
            "Generating is calling the module on the same latents, in the same batches. Scoring is one forward of each "
            "sample and the IoU of every unit with its mask. Thresholds (a forward of their own, and an exact "
            "quantile) and masks (Grad-CAM of every sample) are counted apart.",
            "",
            "| what | generating (ms) | scoring (ms) | ratio, median | middle half | goal, at most | thresholds (ms) "
            "| masks (ms) |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"{sum(held)} of {len(held)} goals are met. Every IoU equals the literal one, of all activations "
            "upsampled, bit for bit. The count of a dissection does the work: a byte says of a pixel which sample it "
            "is of, out of 128, and whether it is in the mask, so that one count over all samples is one of each.",
            "",
            "## Ablations",
            "",
            "The effect of switching units off, alone, on what a classifier says: one unit after the other, all "
            "samples in a batch; and in batches across units. Faster: how many times as fast batches are.",
            "",
            "| what | layer | one by one (ms) | in batches (ms) | faster, median | middle half |",
            "|---|---|---|---|---|---|",
            *causes,
            "",
            "Both find the same effects within 1e-5. Batches save what precedes the layer, which runs once per "
            "sample, and samples in which a unit is 0; of few samples they also fill the processor. They cannot save "
            "what follows: of the first layer that is nearly all of the generator, and of the last one the "
            "classifier. With more samples than some ten, one unit fills a batch by itself, and in the first layers "
            "nothing is left to gain. A first look at two samples, each made in both ways, is part of the time.",
            "",
            f"{kept['rounds']} rounds, in which the sides take turns, in the other order every second round; a ratio "
            f"is that of one round. CPU time of one thread, batches of {kept['batch']}, with freed memory kept "
            f"({', '.join(f'{k}={v}' for k, v in KEEP_MEMORY.items())}). "
            f"{facts['cpu']}, cores: {facts['cores']}, Python {facts['python']}, torch {facts['torch']}. Load average "
            f"before and after: {facts['load'][0]} and {facts['load'][1]}.",
            "",
            "`python benchmarks/correction.py` measures again and writes this page; the figures are kept in "
            "`benchmarks/results/correction.json`.",
            "",
        ]
    )


def main() -> None:
    """Measure or write, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="rounds of each comparison (at least 7)")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio misses its goal; keep nothing")
    asked = parser.parse_args()
    if asked.rounds < 7:
        parser.error("--rounds must be at least 7: a median of fewer says little")
    if not asked.write and os.environ.keys().isdisjoint(KEEP_MEMORY):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    kept = json.loads(FIGURES.read_text()) if asked.write else measure(asked.rounds)
    missed = any(middle(case, "scoring", "generating") > kept["goal"] for case in kept["scoring"])
    if not asked.check:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(kept))
        print(f"wrote {FIGURES.relative_to(HERE.parent)} and {PAGE.relative_to(HERE.parent)}")
    if asked.check and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
