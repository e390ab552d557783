"""How long class activation maps take, beside pytorch-grad-cam, on a DCGAN discriminator.

    python benchmarks/cam.py            # measure, keep results/cam.json, write docs/results/cam.md
    python benchmarks/cam.py --write    # only write the page again from the kept figures
    python benchmarks/cam.py --check    # measure and exit with 1 if a ratio is under its goal

Both sides take turns, so that what else the machine does falls on both alike, and what is reported is the median of the
ratios of neighbouring runs. Both give maps of all images at the images' size. The library is built once outside the
measurement, as its users would.
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
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "cam.json"
PAGE = HERE.parent / "docs" / "results" / "cam.md"
GOALS = {"one": 2.5, "five": 8.0}
"""How many times faster than the library: one gradient CAM, and five together against five calls."""

BATCH, SIZE = 64, 64
FIVE = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
}


def sides(width: int) -> dict[str, Callable[[], object]]:
    """Return what is measured, after checking that both sides compute the same maps."""
    import numpy as np
    import pytorch_grad_cam
    import torch
    from genxai_attribution.fast import cams
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torch.nn.functional import interpolate

    import genxai_core as gx

    torch.manual_seed(0)
    model = gx.create("discriminator/dcgan", size=SIZE, channels=3, width=width).eval()
    images = torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1
    layer = f"layers.{len(model.layers) - 1}"
    targets = [ClassifierOutputTarget(0)] * BATCH

    def theirs(name: str) -> Callable[[], object]:
        # a model of its own, since the library leaves hooks on it for as long as it lives
        own = gx.create("discriminator/dcgan", size=SIZE, channels=3, width=width).eval()
        own.load_state_dict(model.state_dict())
        library = getattr(pytorch_grad_cam, name)(own, [own.get_submodule(layer)])
        return lambda: library(images, targets)

    def ours(methods: list[str]) -> list[torch.Tensor]:
        found = cams(model, images, 0, methods=methods, layers=[layer])
        return [interpolate(maps[:, None], size=(SIZE, SIZE), mode="bilinear") for maps in found.values()]

    library = {method: theirs(name) for method, name in FIVE.items()}
    small = cams(model, images, 0, methods=["gradcam"], layers=[layer])["gradcam", layer].clamp(min=0).numpy()
    expected = scale_cam_image(scale_cam_image(small, (SIZE, SIZE)))
    if np.abs(expected - library["gradcam"]()).max() > 1e-4:
        raise SystemExit("the two sides differ; there is nothing to compare")
    cam = gx.create("explainer/cam", method="gradcam", layer=layer)
    runtime = gx.Runtime(quiet=True, batch_size=BATCH)
    return {
        "one, library": library["gradcam"],
        "one, ours": lambda: ours(["gradcam"]),
        "one, explain()": lambda: cam.explain(model, images, runtime=runtime),
        "five, library": lambda: [call() for call in library.values()],
        "five, ours": lambda: ours(list(FIVE)),
    }


def measure(runs: int, width: int) -> dict[str, object]:
    """Run every side once without counting it, then ``runs`` times in turn."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    load = [round(os.getloadavg()[0], 1)]
    measured = sides(width)
    for call in measured.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(runs):
        for name, call in measured.items():
            start = time.perf_counter()
            call()
            seconds[name].append(round(time.perf_counter() - start, 5))
    load.append(round(os.getloadavg()[0], 1))
    facts = {**machine(), "threads": torch.get_num_threads(), "load": load}
    return {"goals": GOALS, "runs": runs, "width": width, "machine": facts, "seconds": seconds}


def machine() -> dict[str, object]:
    """What the figures depend on."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "grad-cam")},
    }


def ratios(kept: dict, slow: str, fast: str) -> list[float]:
    """Return the ratio of every pair of neighbouring runs, in order of size."""
    return sorted(a / b for a, b in zip(kept["seconds"][slow], kept["seconds"][fast], strict=True))


def page(kept: dict) -> str:
    """Write the page from the kept figures."""
    rows = []
    for what, slow, fast, goal in (
        ("one Grad-CAM, `fast.cams`", "one, library", "one, ours", kept["goals"]["one"]),
        ("one Grad-CAM, `explain()` with its guard", "one, library", "one, explain()", None),
        ("five methods, `fast.cams`", "five, library", "five, ours", kept["goals"]["five"]),
    ):
        theirs, ours = (statistics.median(kept["seconds"][name]) for name in (slow, fast))
        found = ratios(kept, slow, fast)
        rows.append(
            f"| {what} | {1000 * theirs:.0f} | {1000 * ours:.0f} | **{statistics.median(found):.1f} ×** "
            f"| {found[0]:.1f} to {found[-1]:.1f} | {'' if goal is None else f'{goal} ×'} |"
        )
    facts = kept["machine"]
    return "\n".join(
        [
            "# How fast class activation maps are",
            "",
            f"Maps of {BATCH} images of {SIZE} px by a DCGAN discriminator (width {kept['width']}), of its last "
            f"layer of 4×4, beside pytorch-grad-cam.",
            "",
            "| what | pytorch-grad-cam (ms) | ours (ms) | faster by, median | smallest to largest | goal |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "Ours takes one forward, and one backward no deeper than the layer, for all methods together: no gradient "
            "of a weight or of the images is computed, what comes before the layer keeps no graph, and nothing leaves "
            "torch. The library takes a forward and a whole backward for each method, with the gradients of all "
            f"weights, and resizes image by image in OpenCV. The five are {', '.join(f'`{name}`' for name in FIVE)}. "
            "Before anything is measured, both sides' Grad-CAMs are checked to be equal, after the library's clipping "
            "and scaling.",
            "",
            f"{kept['runs']} runs of each side, taking turns; a ratio is that of neighbouring runs. {facts['cpu']}, "
            f"threads: {facts['threads']}, cores: {facts['cores']}, {facts['system']}, Python {facts['python']}, torch "
            f"{facts['torch']}, grad-cam {facts['grad-cam']}. Load average before and after: {facts['load'][0]} and "
            f"{facts['load'][1]}.",
            "",
            "`python benchmarks/cam.py` measures again and writes this page; the figures are kept in "
            "`benchmarks/results/cam.json`. That both sides agree on every method is held by "
            "`plugins/genxai-attribution/tests/test_attribution_cam_family.py`.",
            "",
        ]
    )


def main() -> None:
    """Measure or write, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="runs of each side (at least 7)")
    parser.add_argument("--width", type=int, default=32, help="units of the discriminator's first layer")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is under its goal; keep nothing")
    asked = parser.parse_args()
    if asked.runs < 7:
        parser.error("--runs must be at least 7: a median of fewer says little")
    kept = json.loads(FIGURES.read_text()) if asked.write else measure(asked.runs, asked.width)
    found = {name: statistics.median(ratios(kept, f"{name}, library", f"{name}, ours")) for name in GOALS}
    for name, goal in GOALS.items():
        print(f"{name}: {found[name]:.2f} times faster (goal {goal})")
    if not asked.check:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(kept))
    sys.exit(asked.check and any(found[name] < goal for name, goal in GOALS.items()))


if __name__ == "__main__":
    main()
