"""Does the explanation help? xAI-GAN against placebo masks: KID and FID over training, several seeds.

    python benchmarks/xai_gan_science.py                             # run what is missing, then write the page
    python benchmarks/xai_gan_science.py --write                     # only write the page from the kept figures
    python benchmarks/xai_gan_science.py --fashion-mnist FOLDER      # the second tier, from files that are there

Every pair of arm and seed keeps one file, so that a run that was stopped goes on where it was. Arms of a seed share
data order, latents and first weights, and are equal until guidance begins: they are compared in pairs. One thread;
time is the CPU time of this process, which other programs stretch little.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import xai_gan_page
from genxai_xai_gan import training
from torch import Tensor

import genxai_core as gx
from genxai_core import Runtime, Samples, Spec, draws, storage
from genxai_core.errors import RegistryError

GUIDED = {"alpha": 0.2, "start": 0.5}
"""As the paper has it."""

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("gan", {}),
    "saliency": ("xai-gan", GUIDED),
    "uniform": ("xai-gan", {**GUIDED, "control": "uniform"}),
    "shuffled": ("xai-gan", {**GUIDED, "control": "shuffled"}),
    "random": ("xai-gan", {**GUIDED, "control": "random"}),
    "deeplift-shap": ("xai-gan", {**GUIDED, "explainer": Spec("explainer/deeplift-shap"), "every": 5}),
}
"""DeepLiftShap is explained at every fifth step, against ``REFERENCES`` real images, as the paper has it."""

REFERENCES = 8
POINTS = 10
"""Checkpoints of a training at which it is measured."""


class Watched(training.Loop):
    """The training loop, which also keeps the generator's weights and the CPU time at some steps."""

    kept: list[tuple[int, float, dict[str, Tensor]]]
    points: frozenset[int]

    def update(self, optimizer: str, loss: Tensor) -> None:
        """Step, then look: the generator's update is the last of an iteration."""
        super().update(optimizer, loss)
        if optimizer == "generator" and self._step + 1 in self.points:
            weights = {k: v.clone() for k, v in self.models["generator"].state_dict().items()}
            self.kept.append((self._step + 1, time.process_time(), weights))


class Judge:
    """KID and FID to all real images, on the features of one classifier, which is trained alike in every run."""

    def __init__(self, data: Any) -> None:
        self.data = data[:]
        self.model = gx.create("trainer/classifier").fit(data, quiet(0)).classifier
        self.metrics = {name: gx.create(f"metric/{name}", extractor=self.model) for name in ("kid", "fid")}

    def measure(self, samples: Samples, real: Samples | None = None) -> dict[str, float]:
        """Return both distances of images to the real ones, or to some of them."""
        real = self.data if real is None else real
        return {
            name: metric.measure(real=real, generated=samples, runtime=quiet(0))[name]
            for name, metric in self.metrics.items()
        }

    def floor(self, splits: int = 20) -> dict[str, list[float]]:
        """Measure real images against real ones: random halves."""
        rows = []
        for k in range(splits):
            order, half = draws.permutation(0, k, len(self.data)).tolist(), len(self.data) // 2
            rows.append(self.measure(self.data[order[half:]], self.data[order[:half]]))
        return {name: [row[name] for row in rows] for name in self.metrics}


def quiet(seed: int) -> Runtime:
    """On the CPU, without a progress bar."""
    return Runtime(device="cpu", seed=seed, quiet=True)


def train(arm: str, seed: int, steps: int, data: Any, judge: Judge) -> dict[str, Any]:
    """Train one arm from one seed and measure it at every point."""
    name, parameters = ARMS[arm]
    if arm == "deeplift-shap":
        parameters = {**parameters, "explainer": Spec(parameters["explainer"].use, against(data))}
    points = [round(steps * (k + 1) / POINTS) for k in range(POINTS)]
    loop = type("WatchedHere", (Watched,), {"kept": [], "points": frozenset(points)})
    with mock.patch.object(training, "Loop", loop):
        start = time.process_time()
        trained = gx.create(f"trainer/{name}", steps=steps, **parameters).fit(data, quiet(seed))
    rows = []
    for step, now, weights in loop.kept:
        trained.generator.load_state_dict(weights)
        samples = trained.generator.sample(len(data), seed=1_000_000 + seed)
        rows.append({"step": step, "seconds": round(now - start, 3), **judge.measure(samples)})
    return {"points": rows, "mask_mean": trained.info.get("mask_mean"), "mask": trained.info.get("mask")}


def against(data: Any) -> dict[str, Any]:
    """Return the references of DeepLiftShap."""
    return {"baseline": data[:REFERENCES].images, "references": REFERENCES}


def available() -> list[str]:
    """Return the arms whose explainer is installed."""

    def installed(parameters: dict[str, Any]) -> bool:
        try:
            gx.resolve(parameters.get("explainer", Spec("explainer/saliency")).use)
        except RegistryError:
            return False
        return True

    return [arm for arm, (_, parameters) in ARMS.items() if installed(parameters)]


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER", help="the second tier, 32 px, from its files")
    parser.add_argument("--out", type=Path, help="where the figures are kept, if not in benchmarks/results")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="default: all whose explainer is installed")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    parser.add_argument("--no-page", action="store_true", help="only keep figures")
    asked = parser.parse_args()
    if not asked.write:
        tier = "fashion-mnist" if asked.fashion_mnist else "digits"
        folder = asked.out or xai_gan_page.TIERS[tier].folder
        run(folder, tier, asked.fashion_mnist, asked.steps, asked.seeds, asked.arms or available())
    if not asked.no_page:
        xai_gan_page.write()


def images(tier: str, folder: Path | None) -> Any:
    """Return a tier's data."""
    if tier == "digits":
        return gx.create("dataset/digits", size=16)
    return gx.create("dataset/torchvision", name="FashionMNIST", root=folder, size=32, limit=5000)


def run(out: Path, tier: str, folder: Path | None, steps: int, seeds: int, arms: list[str]) -> None:
    """Run every pair of arm and seed that has no file yet, seed by seed."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    data = images(tier, folder)
    judge = Judge(data)
    weights = {k: v.numpy().tobytes().hex() for k, v in judge.model.state_dict().items()}
    setting = {"steps": steps, "points": POINTS, "guided": GUIDED, "judge": storage.digest(weights), "data": tier}
    head = out / "setting.json"
    if head.is_file():
        kept = json.loads(head.read_text())
        if {k: kept[k] for k in setting} != setting:
            raise SystemExit(f"{head}: was made with another setting or classifier; use another --out")
    else:
        head.write_text(
            json.dumps({**setting, "floor": judge.floor(), "machine": xai_gan_page.machine()}, indent=1) + "\n"
        )
    for seed in range(seeds):
        for arm in arms:
            path = out / f"{arm}-{seed}.json"
            if path.is_file():
                continue
            result = {"arm": arm, "seed": seed, **train(arm, seed, steps, data, judge)}
            part = path.with_suffix(".part")
            part.write_text(json.dumps(result, indent=1) + "\n")
            part.replace(path)
            last = result["points"][-1]
            print(f"{arm} {seed}: KID {last['kid']:.4f}, FID {last['fid']:.3f}, {last['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
