"""The page on the weights that ship: what they draw, how far that is from real images, how well the classifiers do.

    python benchmarks/pretrained.py            # writes docs/results/pretrained.md and its picture, from the cards

The figures are measured when the weights are made: python plugins/genxai-zoo/recipes/train.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import genxai_core as gx
from genxai_core import pretrained, registry

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "pretrained.md"
PICTURE = ROOT / "docs" / "images" / "pretrained.png"
DATA = {"digits": ("dataset/digits", 16), "scenes-32": ("dataset/scenes", 32), "scenes-64": ("dataset/scenes", 64)}
GENERATORS = ("generator/dcgan", "generator/vae", "generator/flow")


def shipped(use: str) -> dict[str, dict[str, Any]]:
    """Return the cards of a component."""
    return pretrained.cards(registry.resolve(use))


def size_of(use: str, name: str) -> int:
    """Return the bytes of a model's weights."""
    return (Path(registry.resolve(use).pretrained_folder) / name / "model.safetensors").stat().st_size


def page() -> str:
    """Return the page, from the cards."""
    rows = []
    for name in DATA:
        for use in GENERATORS:
            if name in shipped(use):
                m = shipped(use)[name]["metrics"]
                cells = [
                    f"{m[k]:.3f} ({m[f'{k}_low']:.3f} to {m[f'{k}_high']:.3f})"
                    for k in ("kid", "real_kid", "gaussian_kid")
                ]
                rows.append(f"| `{use}` | `{name}` | {' | '.join(cells)} | {size_of(use, name) / 1000:,.0f} kB |")
    judges = []
    for name, card in sorted(shipped("discriminator/classifier").items()):
        m = card["metrics"]
        found = m.get("accuracy", m["held_out_accuracy"])
        size = size_of("discriminator/classifier", name) / 1000
        judges.append(f"| `discriminator/classifier` | `{name}` | {100 * found:.1f} % | {size:,.0f} kB |")
    return _TEXT.format(generators="\n".join(rows), judges="\n".join(judges))


_TEXT = """# Pretrained models

Small models that come with `genxai-zoo`, so that an explainer can be tried on something trained at once, and that
pages and examples mean the same model.

```python
import genxai_core as gx

generator = gx.create("generator/dcgan", pretrained="digits")
critic = gx.create("discriminator/dcgan", pretrained="digits")
classifier = gx.create("discriminator/classifier", pretrained="digits")
```

In a pipeline: `gan: {{use: generator/dcgan, with: {{pretrained: digits}}}}`, and then `$gan`. The architecture
comes with the weights; a parameter that contradicts it is refused. Files are checked against the hash on their card
before anything is built, and hold tensors only.

![Real images and samples, not chosen](../images/pretrained.png)

*For each data set real images, then the first samples of each family with seed 0, not chosen.*

| model | weights | KID to real images | real to real | Gaussian to real | size |
|---|---|---|---|---|---|
{generators}

KID is on the features of the classifier of the same data, with 95 % intervals; lower is better, and only rows of
one data set compare. Of digits, of which there are 1,797, samples are compared with the first half, which the
training saw, too; the floor is that of the second half from the first. Of scenes, 2,000 that no training saw. The
Gaussian has the data's mean and full covariance, its samples clipped to the value range: what a family must beat to
have learnt more than that. KID and the accuracy on scenes are of the weights as they are shipped, in half
precision; the accuracy on digits is the training's own, in single precision.

| model | weights | accuracy on images that it never saw | size |
|---|---|---|---|
{judges}

The class of a scene is the shape of its *largest* object, and others of nearly its size may be beside it.

The cards (`genxai_core.pretrained.cards`) hold recipe, data, seed, figures and hash. One command trains a model
again, goes on where it was stopped, and measures it:

```bash
python plugins/genxai-zoo/recipes/train.py digits-dcgan
```

On other hardware the weights come out different in their last bits, and training carries these on: the figures will
agree within their intervals, the images will not be the same.

**When not to use them.** They are small and were trained for minutes: objects of the scenes are blobs more often
than stars, and the VAE's are blurred. What an explainer says of these models holds for these models.
"""


def picture() -> Figure:
    """Draw real images and samples of all families, not chosen."""
    rows: list[tuple[str, gx.Samples]] = []
    for name, (use, size) in DATA.items():
        rows.append((f"{name}: real", gx.create(use, size=size)[:14]))
        rows += [
            (family.partition("/")[2], gx.create(family, pretrained=name).sample(14, seed=0))
            for family in GENERATORS
            if name in shipped(family)
        ]
    figure = Figure(figsize=(14, 1.02 * len(rows)), dpi=80)
    for i, (label, samples) in enumerate(rows):
        images = ((samples.images - samples.value_range[0]) / 2).clamp(0, 1)
        strip = torch.cat(list(torch.nn.functional.pad(images, (1, 1, 1, 1), value=1.0)), 2).permute(1, 2, 0)
        axes = figure.add_axes((0.11, 1 - (i + 1) / len(rows), 0.89, 1 / len(rows)))
        axes.imshow(strip.expand(-1, -1, 3).numpy(), interpolation="nearest")
        axes.axis("off")
        figure.text(0.105, 1 - (i + 0.5) / len(rows), label, ha="right", va="center", fontsize=12)
    return figure


if __name__ == "__main__":
    PAGE.write_text(page())
    picture().savefig(PICTURE)
