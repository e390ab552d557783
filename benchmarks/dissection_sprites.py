"""Dissection of a GAN of real pixel art: the figures and pictures of docs/results/dissection.md.

genxai run examples/data/dissect-sprites.yaml --data DATA      # about twenty minutes on two CPU cores; resumable
python benchmarks/dissection_sprites.py runs/dissect-sprites   # keeps the figures, draws the pictures
python benchmarks/dissection_sprites.py                        # writes the page from the kept figures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from genxai_core import Samples
from genxai_core.pipeline.run import load_run

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "results" / "dissection_sprites.json"
PAGE = ROOT / "docs" / "results" / "dissection.md"
IMAGES = ROOT / "docs" / "images"
CONCEPTS = ("hair", "shoes")


def kept(run: Path) -> dict[str, Any]:
    """Return the figures of a finished run."""
    parts, dissection = load_run(run, "parts"), load_run(run, "dissection")
    layers = {}
    for layer in dissection.layers:
        above = dissection.above(0.05)
        layers[layer] = {"units": len(dissection.scores[layer]), "detectors": sum(name == layer for name, _ in above)}
    best = {}
    for concept in dissection.concepts:
        first = dissection.ranking(concept)[0]
        low, high = dissection.intervals[first.layer][first.unit, dissection.concepts.index(concept)].tolist()
        best[concept] = {"layer": first.layer, "unit": first.unit, "iou": first.score, "low": low, "high": high}
    causes = {}
    for concept in CONCEPTS:
        found = load_run(run, concept)
        column = found.concepts.index(concept)
        causes[concept] = {
            "layer": found.layer,
            "units": found.chosen.tolist(),
            "effects": found.effect_table(),
            "left": {
                _named(name, len(curve) - 1, len(found.chosen)): 1 + float(curve[-1, column] / found.shares[0, column])
                for name, curve in found.curves.items()
            },
        }
    return {
        "held_out_iou": parts.info["held_out_iou"],
        "layers": layers,
        "best": best,
        "causes": causes,
        "samples": dissection.notes.get("samples"),
    }


def _named(order: str, units: int, most: int) -> str:
    """Return an order's name, and how many units are in it if they are fewer: those of alpha 0 are left out."""
    return order if units == most else f"{order} ({units} units)"


def draw(run: Path) -> None:
    """Draw the pictures of a finished run."""
    sprites, gan, dissection = load_run(run, "sprites"), load_run(run, "gan").generator, load_run(run, "dissection")
    pictures = {"real": sprites[:10], "generated": gan.sample(10, seed=0)}
    strips(pictures).savefig(IMAGES / "sprites.png", dpi=90)
    dissection.layer_figure().savefig(IMAGES / "sprites-layers.png", dpi=80)
    for concept in CONCEPTS:
        found = load_run(run, concept)
        pictures = {"images": found.images_figure(), "curves": found.curve_figure()}
        if concept == CONCEPTS[0]:
            pictures["units"] = dissection.concept_figure(concept)
        for what, figure in pictures.items():
            if figure is not None:
                figure.savefig(IMAGES / f"sprites-{concept}-{what}.png", dpi=80)


def strips(pictures: dict[str, Samples]) -> Figure:
    """Draw rows of images, magnified."""
    figure = Figure(figsize=(10, len(pictures)))
    for i, (label, samples) in enumerate(pictures.items()):
        low, high = samples.value_range
        images = ((samples.images - low) / (high - low)).clamp(0, 1)
        axes = figure.add_axes((0.1, 1 - (i + 1) / len(pictures), 0.9, 1 / len(pictures)))
        axes.imshow(torch.cat(list(images), 2).permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.axis("off")
        figure.text(0.095, 1 - (i + 0.5) / len(pictures), label, ha="right", va="center")
    return figure


def page(figures: dict[str, Any]) -> str:
    """Return the page, from kept figures."""
    ious = ", ".join(f"{name} {value:.2f}" for name, value in figures["held_out_iou"].items())
    layers = "\n".join(f"| `{n}` | {v['units']} | {v['detectors']} |" for n, v in figures["layers"].items())
    best = "\n".join(
        f"| {name} | `{v['layer']}`, {v['unit']} | {v['iou']:.3f} ({v['low']:.3f} to {v['high']:.3f}) |"
        for name, v in figures["best"].items()
    )
    sections = "\n\n".join(_section(name, cause) for name, cause in figures["causes"].items())
    return _PAGE.format(ious=ious, layers=layers, best=best, sections=sections)


def _section(concept: str, cause: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {r['concept']} | {r['unedited']:.4f} | {r['ablated']:.4f} | {r['inserted']:.4f} | "
        f"{r['effect']:+.4f} ({r['low']:+.4f} to {r['high']:+.4f}) |"
        for r in cause["effects"]
    )
    left = ", ".join(f"{100 * value:.0f} % in the order {name}" for name, value in cause["left"].items())
    units = ", ".join(map(str, cause["units"]))
    return _CAUSE.format(
        concept=concept, Concept=concept.capitalize(), layer=cause["layer"], units=units, rows=rows, left=left
    )


_CAUSE = """## {Concept}: units {units} of `{layer}`

The units of the layer with the best IoU for {concept}, switched off together, and put in together at all places, in
the same samples.

| concept | share of pixels | units off | units put in | effect (put in less off) |
|---|---|---|---|---|
{rows}

With so many units off there is left of the {concept}: {left}. The random order is of all units of the layer; alpha is
the optimised vector of the paper's section 3.2.

![Samples with much {concept}, with the units off, and put in](../images/sprites-{concept}-images.png)

![What is left of {concept} as more units are switched off](../images/sprites-{concept}-curves.png)"""

_PAGE = """# Dissection of a GAN of real pixel art

8,000 characters of the Liberated Pixel Cup (composited from sprite sheets, with exact masks of their parts), at 32 px;
a `generator/dcgan` trained on them for 5,000 steps; a segmenter (`trainer/segmenter`) trained on their masks. Its IoU
on characters that it never saw is: {ious}.
Sprites by the Liberated Pixel Cup artists, CC-BY-SA 3.0 or GPL 3.0; neither they nor these weights are shipped.

![Real characters, and the first samples of the GAN](../images/sprites.png)

*Real characters, and the GAN's first samples with seed 0, not chosen.*

## Which units go with which part

`explainer/gan-dissection` over 1,000 samples, thresholds from 1,000 others with `threshold: iqr`. (At the paper's top
0.5 % of pixels no IoU can much exceed 0.005 over the part's share of all pixels: 0.08 for hair.) A unit with an IoU
of 0.05 for some part is a detector, as the paper calls it.

| layer | units | detectors |
|---|---|---|
{layers}

| part | best unit | IoU (95 % interval) |
|---|---|---|
{best}

![Layers and concepts](../images/sprites-layers.png)

![The best units for hair: the images that excite them most, their regions outlined](../images/sprites-hair-units.png)

{sections}

## Again

```bash
genxai run examples/data/dissect-sprites.yaml --data DATA
python benchmarks/dissection_sprites.py runs/dissect-sprites
```

**How to read it.** The segmenter was trained on real characters. What it sees in broken ones, as edited ones often are,
is a guess, and nobody has checked its masks of them. Units put in everywhere disturb more than the part that they are
for, as the tables show; `locations` puts them in at chosen places, which was not tried here. An order by alpha was no
better than one by IoU. One seed, one GAN.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="the folder of a finished run")
    given = parser.parse_args()
    if given.run is not None:
        FIGURES.write_text(json.dumps(kept(given.run), indent=2) + "\n")
        draw(given.run)
    PAGE.write_text(page(json.loads(FIGURES.read_text())))
