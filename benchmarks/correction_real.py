"""Artifact units of two trained GANs: the figures and pictures of docs/results/correction.md.

    python benchmarks/correction_real.py scenes                              # a GAN that comes with genxai-zoo
    python benchmarks/correction_real.py sprites --run runs/dissect-sprites --data DATA
    python benchmarks/correction_real.py                                     # writes the page from the kept figures

The second needs a finished run of examples/data/dissect-sprites.yaml, and the folder that it was given. What is broken
is said by a stated measure of the images, so that it can be said of other images too, and looked at: the page shows the
first ones of each kind.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Runtime, Samples, Spec
from genxai_core.pipeline.run import load_run

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "results" / "correction_real.json"
PAGE = ROOT / "docs" / "results" / "correction.md"
IMAGES = ROOT / "docs" / "images"
LABELLED, SECOND, PROOF = 3000, 40_000, 2000
LAYERS = ("layers.0", "layers.1", "layers.2")
RUNTIME = Runtime(device="cpu", quiet=True)
WAYS: dict[str, dict[str, Any]] = {
    "one layer, broken images only": {"strategy": "one-layer", "conditional": True},
    "sequential, broken images only": {"strategy": "sequential", "conditional": True},
    "sequential, all images": {"strategy": "sequential", "conditional": False},
}
DRAWN = "sequential, broken images only"


def static(images: Tensor) -> Tensor:
    """Return the share of pixels ``[N]`` that differ from the median of their 3 × 3 by over 7.5 % of the range."""
    around = F.pad(images, (1, 1, 1, 1), mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    return ((images - around.median(-1).values).abs().mean(1) > 0.15).double().mean((1, 2))


def speck_masks(images: Tensor) -> Tensor:
    """Return bool ``[N, 1, H, W]``: pixels brighter than 6 % of the range outside of the largest connected region."""
    masks = []
    for picture in (images.amax(1) > -0.88).numpy():
        labels, n = ndimage.label(picture, ndimage.generate_binary_structure(2, 2))
        sizes = ndimage.sum_labels(picture, labels, range(1, n + 1)) if n else []
        masks.append(
            torch.from_numpy(picture & (labels != 1 + int(np.argmax(sizes)))) if n else torch.zeros(32, 32).bool()
        )
    return torch.stack(masks)[:, None]


def specks(images: Tensor) -> Tensor:
    """Return how many pixels ``[N]`` these are."""
    return speck_masks(images).double().sum((1, 2, 3))


class Measured(gx.Discriminator):
    """A judge that is the measure itself: P(artifact) is above 1/2 exactly where it reaches the cut."""

    class_names = ("artifact",)
    image_shape = (3, 32, 32)

    def __init__(self, measure: Callable[[Tensor], Tensor], cut: float) -> None:
        super().__init__()
        self.measure, self.cut = measure, cut

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        return torch.where(self.measure(images) >= self.cut, 10.0, -10.0)[:, None].float()


@dataclass(frozen=True)
class Case:
    """A GAN, real images, and what makes an image broken: at least ``bad`` of a measure; at most ``fine``, not."""

    generator: gx.Generator
    real: Samples
    measure: Callable[[Tensor], Tensor]
    bad: float
    fine: float
    masks: Callable[[Tensor], Tensor] | None
    quantile: float


def case(name: str, run: Path | None, data: Path | None) -> Case:
    """Return the case."""
    if name == "scenes":
        generator = gx.create("generator/dcgan", pretrained="scenes-32").eval()
        real = gx.create("dataset/scenes", n=2000, size=32)[:]
        return Case(generator, real, static, 0.0575, 0.035, None, 0.9)
    if run is None or data is None:
        raise SystemExit("sprites need --run, a run of examples/data/dissect-sprites.yaml, and --data, its data")
    real = gx.create("dataset/npz", file=data / "lpc-sprites" / "lpc_sprites_8000.npz", size=32, limit=2000)[:]
    return Case(load_run(run, "gan").generator.eval(), real, specks, 3, 0, speck_masks, 0.99)


def labelled(found: Case, start: int) -> Samples:
    """Return samples from ``start`` on that are surely broken or surely not, with the masks of what is broken."""
    drawn = gx.create("dataset/generated", n=LABELLED, start=start).load(model=found.generator, runtime=RUNTIME)
    score = found.measure(drawn.images)
    rows = ((score >= found.bad) | (score <= found.fine)).nonzero()[:, 0].tolist()
    kept, labels = drawn[rows], (score[rows] >= found.bad).long()
    more = {} if found.masks is None else {"masks": found.masks(kept.images), "concepts": ("artifact",)}
    return replace(kept, labels=labels, class_names=("normal", "artifact"), **more)


def judge(data: Samples, seed: int, width: int) -> gx.Trained:
    """Return a trained judge."""
    data = replace(data, masks=None, concepts=(), latents=None)
    spec = Spec("discriminator/classifier", {"width": width})
    return gx.create("trainer/artifact-classifier", model=spec, steps=600).fit(data, replace(RUNTIME, seed=seed))


def proven(found: Case, edits: Any, second: Any, chosen_by: Any, **more: Any) -> Any:
    """Return the proof before a judge."""
    asked = {"condition_judge": chosen_by} if edits.condition else {}
    explainer = gx.create(
        "explainer/correction-proof", edits=edits, judge=second, selected_by=chosen_by, samples=PROOF, **asked, **more
    )
    return explainer.explain(found.generator, runtime=RUNTIME)


def measured(name: str, found: Case) -> dict[str, Any]:
    """Correct in three ways, prove each before two judges, and draw the second one's pictures."""
    first, other = labelled(found, 0), labelled(found, SECOND)
    one, two = judge(first, 0, 32), judge(other, 1, 24)
    classifier, second = one.classifier, two.classifier
    kept: dict[str, Any] = {
        "labels": one.info["labels"],
        "reliability": [one.info["reliability"], two.info["reliability"]],
        "ways": {},
    }
    for way, params in WAYS.items():
        given = {"masks": "given"} if found.masks is not None else {}
        method = gx.create(
            "explainer/correct-units", classifier=classifier, layers=LAYERS, quantile=found.quantile, **given, **params
        )
        edits = method.explain(found.generator, first, runtime=RUNTIME)
        row: dict[str, Any] = {"said": edits.summary(), "units": len(edits), "proofs": {}}
        if len(edits):
            compared = {"real": found.real, "features": second}
            proof = proven(found, edits, second, classifier, **compared)
            exact = proven(found, edits, Measured(found.measure, found.bad), classifier)
            for said, result in (("judge", proof), ("measure", exact)):
                row["proofs"][said] = {
                    "verdict": result.verdict,
                    "rows": result.table(),
                    "against": result.control_table(),
                }
            if way == DRAWN:
                exact.plot().savefig(IMAGES / f"correction-{name}-arms.png", dpi=110, bbox_inches="tight")
                pairs = exact.pairs_figure()
                assert pairs is not None
                pairs.savefig(IMAGES / f"correction-{name}-pairs.png", dpi=110, bbox_inches="tight")
        kept["ways"][way] = row
        print(name, way, row["said"], {k: v["verdict"] for k, v in row["proofs"].items()}, flush=True)
    return kept


TITLES = {"scenes": "Static in a GAN of scenes", "sprites": "Specks in a GAN of pixel art"}
MEASURES = {
    "scenes": "An image is broken if at least 5.75 % of its pixels differ from the median of their 3 × 3 neighbours by "
    "over 7.5 % of the value range, and fine if at most 3.5 % do: coloured static is, and edges of shapes are not. Of "
    "images between the two no label is given. Where an image is broken says Grad-CAM of the first judge.",
    "sprites": "An image is broken if three or more pixels brighter than 6 % of the range lie outside of the largest "
    "connected region, the character, and fine if none does. None of 1,500 real characters has any. Where an image is "
    "broken, these pixels are.",
}
INTRODUCTION = """# Artifact units of two GANs

Units that draw artifacts, switched off by `explainer/correct-units`, and what `explainer/correction-proof` says of it:
2,000 new latents, beside as many random units (three draws) and the units most active overall. Two judges say what is
broken then: a classifier trained on other labels and images and with another seed than the one that chose the units,
and the stated measure itself, which needs no training.

- **It helps, and not much.** By the measure the rate falls by 10 to 34 %; most broken images stay broken.
- **In scenes every way is better than every control, before both judges. In pixel art one of three is.** There the
  judge that chose is weak (faint specks are hard to see for it), and random units sometimes do as well.
- **The judge that chose flatters.** On images that it held out it sees the rate fall to a third in scenes, and to half
  in pixel art, with the way that the pictures show.
- **It costs.** KID rises with every way, with the strongest beyond its interval, and the pictures show what that is:
  colours pale, since the units that draw static and specks draw saturated colours, too."""
CLOSING = """`python benchmarks/correction_real.py` writes this page from `benchmarks/results/correction_real.json`;
with the name of a case it measures that again. How corrections are found and proven:
[Correction](../reference/correction.md). Sprites by the Liberated Pixel Cup artists, CC-BY-SA 3.0 or GPL 3.0; neither
they nor that GAN's weights are shipped."""
SHOWN = ("kid", "fid", "precision", "recall", "coverage", "newly broken", "pixel change")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _labels(name: str, told: dict[str, Any]) -> list[str]:
    first, second = told["reliability"]
    counts = ", ".join(f"{n} {label}" for label, n in told["labels"].items())
    return [
        f"{MEASURES[name]} Of the first {LABELLED:,} samples: {counts}.",
        "",
        f"The judge that chose: {first}. The judge of the proof: {second}.",
        "",
    ]


def _rows(proof: dict[str, Any], measure: str) -> dict[str, tuple[float, float, float]]:
    return {r["arm"]: (r["value"], r["low"], r["high"]) for r in proof["rows"] if r["measure"] == measure}


def _table(told: dict[str, Any]) -> list[str]:
    """Return the artifact rates of every way, before both judges."""
    lines = [
        "| correction | units | judged by | uncorrected | corrected (95 %) | random | most active |",
        "|" + "---|" * 7,
    ]
    for way, row in told["ways"].items():
        if not row["proofs"]:
            lines.append(f"| {way} | 0 | | | none found | | |")
        for judged, proof in row["proofs"].items():
            rates = _rows(proof, "artifact rate")
            random = ", ".join(_share(v[0]) for arm, v in rates.items() if arm.startswith("random"))
            value, low, high = rates["corrected"]
            interval = f"**{_share(value)}** ({_share(low)} to {_share(high)})"
            lines.append(
                f"| {way} | {row['units']} | {'the second classifier' if judged == 'judge' else 'the measure'} "
                f"| {_share(rates['uncorrected'][0])} | {interval} | {random} | {_share(rates['most active'][0])} |"
            )
    return [*lines, ""]


def _words(name: str, told: dict[str, Any]) -> list[str]:
    """Return what it costs, the verdicts, and the pictures."""
    lines = ["What it costs, by the second classifier's features:", ""]
    lines += ["| | " + " | ".join(SHOWN) + " |", "|---|" + "---|" * len(SHOWN)]
    cells: dict[str, list[str]] = {}
    for way, row in told["ways"].items():
        proof = row["proofs"].get("judge")
        for arm in ("uncorrected", "corrected") if proof else ():
            if arm == "uncorrected" and "uncorrected" in cells:
                continue
            found = [_rows(proof, measure).get(arm) for measure in SHOWN]
            said = ["" if v is None else f"{v[0]:.3g} ({v[1]:.3g} to {v[2]:.3g})" for v in found]
            cells["uncorrected" if arm == "uncorrected" else way] = said
    lines += [f"| {way} | {' | '.join(said)} |" for way, said in cells.items()]
    lines += ["", "Verdicts:", ""]
    for way, row in told["ways"].items():
        by = {"judge": "the second classifier", "measure": "the measure"}
        said = "; ".join(f"by {by[judged]}, *{proof['verdict']}*" for judged, proof in row["proofs"].items())
        lines.append(f"- {way}: {said or row['said']['correction']}.")
    if told["ways"][DRAWN]["proofs"]:
        lines += ["", f"![Before and after](../images/correction-{name}-pairs.png)", ""]
        lines += [
            f"*The first twenty that the measure calls broken, not chosen, and the same corrected ({DRAWN}).*",
            "",
        ]
        lines += [f"![Artifact rates and costs](../images/correction-{name}-arms.png)"]
    return lines


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    parts = []
    for name, told in kept.items():
        parts += ["", f"## {TITLES[name]}", "", *_labels(name, told), *_table(told), *_words(name, told)]
    return "\n".join([INTRODUCTION, *parts, "", CLOSING, ""])


def main() -> None:
    """Measure a case, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", nargs="?", choices=("scenes", "sprites"))
    parser.add_argument("--run", type=Path, help="a finished run of examples/data/dissect-sprites.yaml")
    parser.add_argument("--data", type=Path, help="the folder that it was given")
    asked = parser.parse_args()
    kept = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    if asked.case:
        torch.set_flush_denormal(True)
        kept[asked.case] = measured(asked.case, case(asked.case, asked.run, asked.data))
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))


if __name__ == "__main__":
    main()
