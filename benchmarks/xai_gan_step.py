"""What guidance costs: the time of a step of trainer/xai-gan beside that of trainer/gan.

    python benchmarks/xai_gan_step.py            # measure, keep xai_gan_step.json, write docs/results/xai-gan.md
    python benchmarks/xai_gan_step.py --write    # only write the page again from the kept figures

The trainings take turns in short blocks, and every block is compared with the plain one of its own round. One thread;
CPU time of this process, which other programs stretch little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import xai_gan_page
from genxai_xai_gan import training
from torch import Tensor

import genxai_core as gx
from genxai_core import Runtime, Spec

FIGURES = Path(__file__).resolve().parent / "results" / "xai_gan_step.json"
SIZE, BATCH, STEPS, REFERENCES = 32, 64, 10, 8


def shap(digits: Any) -> Spec:
    """DeepLiftShap against a few digits."""
    return Spec("explainer/deeplift-shap", {"baseline": digits[:REFERENCES].images, "references": REFERENCES})


def arms(digits: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """What is compared; ``every`` divides the steps of a block, so that each block has its share of explained ones."""
    return {
        "plain": ("gan", {}),
        "saliency": ("xai-gan", {}),
        "saliency, uniform": ("xai-gan", {"control": "uniform"}),
        "saliency, shuffled": ("xai-gan", {"control": "shuffled"}),
        "saliency, mode reference": ("xai-gan", {"mode": "reference"}),
        "deeplift-shap": ("xai-gan", {"explainer": shap(digits)}),
        "deeplift-shap, every 5th step": ("xai-gan", {"explainer": shap(digits), "every": 5}),
        "deeplift-shap, every 10th step": ("xai-gan", {"explainer": shap(digits), "every": 10}),
    }


class Timed(training.Loop):
    """The training loop, which also notes when a step ends."""

    ends: list[float]

    def update(self, optimizer: str, loss: Tensor) -> None:
        """Step, then look at the clock: the generator's update is the last of an iteration."""
        super().update(optimizer, loss)
        if optimizer == "generator":
            self.ends.append(time.process_time())


def block(name: str, parameters: dict[str, Any], digits: Any, seed: int) -> float:
    """Return the seconds per step of a short training, whose first step, a warm-up, does not count."""
    loop = type("TimedHere", (Timed,), {"ends": []})
    guided = {"start": 0.0, "alpha": 0.2} if name == "xai-gan" else {}
    with mock.patch.object(training, "Loop", loop):
        trainer = gx.create(f"trainer/{name}", steps=STEPS + 1, batch=BATCH, **guided, **parameters)
        trainer.fit(digits, Runtime(device="cpu", seed=seed, quiet=True))
    return (loop.ends[-1] - loop.ends[0]) / STEPS


def measure(rounds: int) -> dict[str, Any]:
    """Let the arms take turns, in the other order every second round."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    digits = gx.create("dataset/digits", size=SIZE)
    took: dict[str, list[float]] = {name: [] for name in arms(digits)}
    for k in range(-1, rounds):  # the first round fills caches and is not counted
        order = list(arms(digits).items())
        for name, (trainer, parameters) in order if k % 2 else order[::-1]:
            seconds = block(trainer, parameters, digits, seed=max(0, k))
            if k >= 0:
                took[name].append(round(seconds, 5))
    return {
        "size": SIZE,
        "batch": BATCH,
        "steps": STEPS,
        "references": REFERENCES,
        "rounds": rounds,
        "machine": xai_gan_page.machine(),
        "seconds": took,
    }


def main() -> None:
    """Measure or write, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="blocks of each training (at least 5)")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    asked = parser.parse_args()
    if asked.rounds < 5:
        parser.error("--rounds must be at least 5: a median of fewer says little")
    if not asked.write:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(measure(asked.rounds), indent=1) + "\n")
    plain = (kept := json.loads(FIGURES.read_text())["seconds"])["plain"]
    for name, seconds in kept.items():
        print(f"{name}: {statistics.median(a / b for a, b in zip(seconds, plain)):.2f} x")
    xai_gan_page.write()


if __name__ == "__main__":
    main()
