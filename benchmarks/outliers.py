"""How well log p(x) and typicality of a flow tell foreign images from held-out digits: areas under the ROC curve.

    python benchmarks/outliers.py        # writes benchmarks/results/outliers.json; a few minutes

Fits ``trainer/flow`` with its defaults to 1,200 digits at 16 px, one seed; and takes the VAE of scenes that comes
trained.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import interpolate

import genxai_core as gx

RESULT = Path(__file__).resolve().parent / "results" / "outliers.json"
N = 300
Figures = dict[str, dict[str, float]]


def foreign(held: gx.Samples) -> dict[str, torch.Tensor]:
    """Return 300 images of each kind, by name."""
    (low, high), draws = held.value_range, torch.Generator().manual_seed(0)
    grays = torch.rand(N, 1, 1, 1, generator=draws) * (high - low) + low
    noise = torch.rand(N, 1, 8, 8, generator=draws) * (high - low) / 2 + low + (high - low) / 4
    return {
        "black": torch.full((N, 1, 16, 16), low),
        "flat, each of one gray": grays.expand(N, 1, 16, 16).clone(),
        "noise of 8 px": interpolate(noise, size=(16, 16), mode="bilinear", align_corners=False),
        "negatives of the digits": low + high - held.images,
        "the digits, dimmed by half": (held.images - low) / 2 + low,
        "the digits, upside down": held.images.flip(2),
    }


def simpler(scenes: gx.Samples) -> dict[str, torch.Tensor]:
    """Return the scenes with less and less in them: what log p holds for likelier than the scenes themselves."""
    images = scenes.images
    mean = images.mean((2, 3), keepdim=True)
    small = interpolate(images, size=(8, 8), mode="area")
    return {
        "the scenes at half their contrast": (images + mean) / 2,
        "the scenes, blurred to 8 px": interpolate(small, size=(32, 32), mode="bilinear", align_corners=False),
        "the mean colour of each scene, flat": mean.expand_as(images).clone(),
    }


def judged(
    model: torch.nn.Module, held: gx.Samples, reference: gx.Samples, foreign: dict[str, torch.Tensor]
) -> Figures:
    """Return mean log p of held-out and of foreign images, and how well either score tells them from each other."""
    scores = {
        "log-density": gx.create("explainer/outlier-score"),
        "typicality": gx.create("explainer/outlier-score", score="typicality", reference=reference),
    }
    inside = {name: scorer.explain(model, held).scores for name, scorer in scores.items()}
    found: Figures = {"held out": {"mean_log_p": float(inside["log-density"].mean())}}
    for kind, images in foreign.items():
        samples = gx.Samples(images, value_range=held.value_range)
        outside = {name: scorer.explain(model, samples).scores for name, scorer in scores.items()}
        truth = [1] * len(held) + [0] * len(images)
        found[kind] = {"mean_log_p": float(outside["log-density"].mean())} | {
            name: float(roc_auc_score(truth, torch.cat([inside[name], outside[name]]).numpy())) for name in scores
        }
    return found


def main() -> None:
    """Measure, and write the figures."""
    digits = gx.create("dataset/digits", size=16)
    flow = gx.create("trainer/flow").fit(digits[:1200]).generator
    held = digits[1200:1500]
    vae = gx.create("generator/vae", pretrained="scenes-32", samples=16)
    scenes, others = (gx.create("dataset/scenes", n=N, size=32, start=start)[:] for start in (30_000, 40_000))
    found = {
        "digits, flow": judged(flow, held, digits[1500:], foreign(held)),
        "scenes, VAE": judged(vae, scenes, others, simpler(scenes)),
    }
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
