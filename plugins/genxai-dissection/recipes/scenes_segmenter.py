"""Trains a segmenter of scenes, ships its weights with genxai-dissection, and measures it on scenes that it never saw.

    python plugins/genxai-dissection/recipes/scenes_segmenter.py                     # train, measure, ship
    python plugins/genxai-dissection/recipes/scenes_segmenter.py --checkpoints DIR   # goes on where it was interrupted
    python plugins/genxai-dissection/recipes/scenes_segmenter.py --measure           # measure what is shipped

What was measured is kept in the card beside the weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from genxai_dissection.degrading import degrade
from genxai_dissection.segmenter_training import measure

import genxai_core as gx
from genxai_core import pretrained, saving

WEIGHTS = "scenes-32"
N_TRAIN, N_TEST = 4000, 300
DATA = {"n": N_TRAIN, "size": 32, "seed": 0}
TRAINING = {"steps": 6000, "holdout": 0.0}
CARD = {
    "recipe": {"trainer": {"use": "trainer/segmenter", "with": TRAINING}},
    "data": {"use": "dataset/scenes", "with": DATA},
    "seed": 0,
}


def train(checkpoints: Path | None) -> None:
    """Train, and ship the weights in half precision, with what is measured of them in that precision."""
    runtime = gx.Runtime(device="cpu", seed=CARD["seed"], checkpoints=checkpoints)
    trained = gx.create("trainer/segmenter", **TRAINING).fit(gx.create("dataset/scenes", **DATA), runtime)
    ship(trained.segmenter)


def ship(segmenter: Any) -> None:
    """Ship a trained network; its figures are those of the weights as they are shipped, rounded to half precision."""
    segmenter.half().float()
    card = {**CARD, "metrics": measured(segmenter)}
    pretrained.ship(segmenter.half(), WEIGHTS, card)


def measured(segmenter: Any) -> dict[str, Any]:
    """Accuracy on test scenes by size, as they are and degraded."""
    found = {}
    for size, n in ((16, N_TEST), (32, N_TEST), (64, N_TEST), (128, N_TEST // 5)):
        scenes = gx.create("dataset/scenes", n=n, size=size, seed=DATA["seed"], start=N_TRAIN)[:]
        for what, samples in ((f"{size} px", scenes), (f"{size} px, degraded", degrade(scenes, 1, range(n)))):
            found[what] = measure(segmenter, samples, range(n), gx.Runtime(device="cpu"))
            print(what, saving.describe(found[what]), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--checkpoints", type=Path)
    given = parser.parse_args()
    torch.set_flush_denormal(True)  # tiny numbers cost a CPU many times the time of others
    if given.measure:
        measured(gx.create("segmenter/unet", pretrained=WEIGHTS))
    else:
        train(given.checkpoints)
