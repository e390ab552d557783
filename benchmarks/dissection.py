"""How long thresholds and IoU of units take from stored activations, beside the authors' code and plain torch.

    python benchmarks/dissection.py --reference PATH   # measure beside a checkout of github.com/CSAILVision/gandissect
    python benchmarks/dissection.py --write            # only write the page again from the kept figures
    python benchmarks/dissection.py --reference PATH --check   # exit with 1 if a ratio is under its goal; keep nothing

All sides get the same activations and masks, which overlap, and take turns; a ratio is that of neighbouring runs. What
is measured is the time of the processor, on one thread, so that what else the machine does is left out. Before anything
is measured, ours is checked to be that of upsampling everything, count by count, and to agree with the authors' counts
at the same thresholds but for pixels within rounding of one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "dissection.json"
QUANTILE = 0.995


@dataclass(frozen=True)
class Size:
    """How much there is: samples, units, cells along a side, pixels along a side, concepts; and the goal."""

    samples: int
    units: int
    cells: int
    pixels: int
    concepts: int
    goal: float


SIZES = (Size(200, 16, 8, 32, 6, 5.0), Size(1000, 64, 16, 64, 12, 20.0), Size(400, 256, 16, 64, 20, 20.0))
KINDS = ("smooth", "white noise")


def made(size: Size, kind: str, seed: int = 0) -> tuple[Any, Any]:
    """Return activations ``[N, U, h, w]`` and masks ``[N, C, H, W]``, which overlap."""
    import torch
    from torch.nn import functional as F

    g = torch.Generator().manual_seed(seed)
    n, side = size.samples, size.cells
    few = side if kind == "white noise" else max(2, side // 4)
    maps = torch.randn(n, size.units, few, few, generator=g)
    if few < side:
        maps = F.interpolate(maps, size=(side, side), mode="bicubic", align_corners=False)
    fields = torch.randn(n, size.concepts, 4, 4, generator=g)
    return maps, F.interpolate(fields, size=(size.pixels,) * 2, mode="bicubic", align_corners=False) > 0.8


# -- the three sides ----------------------------------------------------------------------------------------------


def ours(maps: Any, masks: Any, size: Size) -> Callable[[], tuple[float, Any]]:
    """Return what measures ours: seconds until the thresholds are known, and the counts."""
    from genxai_core import units

    def run() -> tuple[float, Any]:
        started = time.process_time()
        found = units.Thresholds(["layer"], QUANTILE, (size.pixels, size.pixels))
        found.see({"layer": maps})
        levels = found.values()
        split = time.process_time() - started
        counter = units.Tally(levels)
        counter.count({"layer": maps}, masks)
        counter.iou()
        return split, counter

    return run


def plain(maps: Any, masks: Any, size: Size) -> Callable[[], tuple[float, Any]]:
    """Return what measures a plain torch version: upsample everything, the k-th value, compare, multiply matrices."""
    import torch
    from torch.nn import functional as F

    to = (size.pixels, size.pixels)

    def run() -> tuple[float, Any]:
        started = time.process_time()
        levels = []
        n = len(maps) * size.pixels**2
        k = math.floor((1 - QUANTILE) * n + 0.5)
        for unit in range(size.units):  # all samples of a unit at once, or memory would not do
            pixels = F.interpolate(maps[:, unit : unit + 1], size=to, mode="bilinear", align_corners=False)
            top = pixels.flatten().topk(k + 1).values
            levels.append((top[-1] + top[-2]) / 2)
        level = torch.stack(levels)
        split = time.process_time() - started
        return split, (level, *dense_counts(maps, level, masks))

    return run


def dense_counts(maps: Any, level: Any, masks: Any) -> tuple[Any, Any]:
    """Return intersections ``[U, C]`` and areas ``[U]`` from all pixels."""
    import torch
    from torch.nn import functional as F

    both = torch.zeros(len(level), masks.shape[1])
    area = torch.zeros(len(level), dtype=torch.long)
    for one, mask in zip(maps, masks):
        large = F.interpolate(one[None], size=mask.shape[1:], mode="bilinear", align_corners=False)[0]
        on = (large > level[:, None, None]).flatten(1)
        area += on.sum(1)
        both += on.float() @ mask.flatten(1).float().T  # at most 4,096 per sample: exact, and so is the sum below 2^24
    return both.long(), area


def authors(module: ModuleType, maps: Any, masks: Any, size: Size) -> Callable[..., tuple[float, Any]]:
    """Return what measures the authors' tally, and their estimate of the quantiles, which is of the layer's cells.

    Their form of overlapping concepts is as many planes of labels as there are labels at one pixel, 0 for none.
    """
    import torch

    labels = (masks * torch.arange(1, size.concepts + 1)[:, None, None]).sort(1, descending=True).values
    labels = labels[:, : int(masks.sum(1).max())]

    class Model:
        """Hands out the stored activations of one image, as their instrumented model does after its forward."""

        at = 0

        def parameters(self) -> Any:
            return iter([maps])

        def retained_features(self) -> dict[str, Any]:
            return {"layer": maps[self.at : self.at + 1]}

        def __call__(self, index: Any) -> None:
            self.at = int(index[0])

    class Loader:
        batch_size = 1

        def __iter__(self) -> Any:
            return iter([(torch.tensor([i]),) for i in range(len(maps))])

        def __len__(self) -> int:
            return len(maps)

    class Runner:
        def get_label_and_category_names(self) -> Any:
            return [(str(i), "c") for i in range(size.concepts + 1)], ["c"]

        def run_and_segment_batch(self, batch: Any, model: Any, **wanted: bool) -> Any:
            model(batch[0])
            seg = labels[model.at][None]
            return seg, seg.flatten().bincount(minlength=size.concepts + 1)[None], None, seg.shape[2:]

    def run(levels: Any = None) -> tuple[float, Any]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "layer").mkdir()
            started = time.process_time()
            if levels is None:
                running = module.RunningQuantile(resolution=1024)  # as collect_quantiles_and_topk uses it
                for one in maps:
                    running.add(one.permute(1, 2, 0).reshape(-1, size.units))
                levels = {"layer": running.quantiles([QUANTILE])[:, 0]}
            split = time.process_time() - started
            counted = module.collect_bincounts(folder, Model(), Loader(), levels, Runner())
        return split, counted

    return run


def imported(path: Path) -> ModuleType:
    """Import the authors' ``netdissect.dissection`` from a checkout.

    Its segmenter is left out, since it needs a compiled extension and is not used; and its ``grid_sample``, written for
    torch before 1.3, is given ``align_corners=True``, which was the only way then.
    """
    import functools

    import torch

    if not (path / "netdissect" / "dissection.py").is_file():
        raise SystemExit(f"{path}: is no checkout of github.com/CSAILVision/gandissect")
    sys.path.insert(0, str(path))
    left_out = ModuleType("netdissect.segmenter")
    left_out.UnifiedParsingSegmenter = None  # type: ignore[attr-defined]
    sys.modules["netdissect.segmenter"] = left_out
    from netdissect import dissection, progress  # type: ignore[import-not-found]

    progress.verbose_progress(False)
    functional = torch.nn.functional
    functional.grid_sample = functools.partial(functional.grid_sample, align_corners=True)
    found: ModuleType = dissection
    return found


# -- measuring ----------------------------------------------------------------------------------------------------


def compared(size: Size, kind: str, module: ModuleType, runs: int) -> dict[str, Any]:
    """Check that all sides agree, and measure them in turn."""
    import torch

    maps, masks = made(size, kind)
    sides = {"ours": ours(maps, masks, size), "plain": plain(maps, masks, size)}
    sides["authors"] = authors(module, maps, masks, size)
    (_, mine), (_, (level, *_)) = sides["ours"](), sides["plain"]()
    gap = float((mine.thresholds["layer"] - level).abs().max())
    both, area = dense_counts(maps, mine.thresholds["layer"], masks)
    same = torch.equal(mine.area["layer"], area) and torch.equal(mine.intersection["layer"], both)
    theirs = sides["authors"](mine.thresholds)[1][5]["layer"].T[:, 1:]
    apart = int((theirs - mine.intersection["layer"]).abs().max())
    if not same or gap > 2e-5 or apart > 8:  # ours lies 32 roundings above values that are equal but for rounding
        raise SystemExit(f"{kind}, {size}: the sides disagree: {same}, thresholds by {gap}, authors' counts by {apart}")
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            cpu, started = time.process_time(), time.perf_counter()
            split, _ = side()
            wall, cpu = time.perf_counter() - started, time.process_time() - cpu
            seconds[name].append([round(s, 5) for s in (split, cpu - split, cpu, wall)])
    started = time.process_time()
    maps.sum()
    read = time.process_time() - started
    found = {"kind": kind, **asdict(size), "seconds": seconds, "read": read, "agree": [gap, apart]}
    found["share"] = float((maps > mine.thresholds["layer"][:, None, None]).float().mean())
    return found


def scaling(units_: int = 100, concepts: int = 20) -> list[dict[str, float]]:
    """Measure the tally at 10³ and 10⁴ samples, in batches of 64, as a dissection counts them."""
    from genxai_core import units

    pool = Size(1024, units_, 16, 64, concepts, 0)
    found = []
    for kind in KINDS:
        maps, masks = made(pool, kind)
        kept = units.Thresholds(["layer"], QUANTILE, (64, 64))
        kept.see({"layer": maps})
        levels = kept.values()
        for samples in (1_000, 10_000):
            counter = units.Tally(levels)
            cpu, started = time.process_time(), time.perf_counter()
            for first in range(0, samples, 64):
                at = first % 1024
                rows = slice(at, at + min(64, samples - first))
                counter.count({"layer": maps[rows]}, masks[rows])
            wall = time.perf_counter() - started
            row = {"samples": samples, "units": units_, "concepts": concepts, "seconds": wall}
            found.append(row | {"kind": kind, "cpu": time.process_time() - cpu, "pixels": counter.pixels})
    return found


def measure(path: Path, runs: int) -> dict[str, Any]:
    """Measure everything, and say where."""
    import torch

    torch.set_num_threads(1)
    module = imported(path)
    before = os.getloadavg()[0]
    cases = []
    for size in SIZES:
        for kind in KINDS:
            cases.append(compared(size, kind, module, runs if size.samples * size.units > 10_000 else 5 * runs))
            print(f"{kind:12} {size}: {ratios(cases[-1])}", flush=True)
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
    }
    return {"quantile": QUANTILE, "runs": runs, "machine": machine, "cases": cases, "scaling": scaling()}


def ratios(case: dict[str, Any], beside: str = "authors", column: int = 2) -> list[float]:
    """Return how many times as long the other side took in each turn, from the smallest to the largest."""
    pairs = zip(case["seconds"][beside], case["seconds"]["ours"], strict=True)
    return sorted(round(theirs[column] / mine[column], 2) for theirs, mine in pairs)


def main() -> None:
    """Measure or write, as asked."""
    sys.path.insert(0, str(HERE))
    from dissection_page import PAGE, page

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reference", type=Path, help="a checkout of github.com/CSAILVision/gandissect")
    parser.add_argument("--runs", type=int, default=1, help="turns at the two larger sizes; five times as many else")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is under its goal; keep nothing")
    asked = parser.parse_args()
    if not asked.write and asked.reference is None:
        parser.error("--reference PATH is needed to measure")
    kept = json.loads(FIGURES.read_text()) if asked.write else measure(asked.reference, asked.runs)
    if not asked.check:
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.write_text(page(kept))
    sys.exit(asked.check and any(statistics.median(ratios(case)) < case["goal"] for case in kept["cases"]))


if __name__ == "__main__":
    main()
