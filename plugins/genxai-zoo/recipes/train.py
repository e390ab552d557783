"""Train the weights that this package ships: as its recipes say, and measured as they are shipped.

    python plugins/genxai-zoo/recipes/train.py                    # all of them; hours on two cores
    python plugins/genxai-zoo/recipes/train.py digits-dcgan       # one; classifiers go first, they measure the others

A recipe is a pipeline of two steps. What was stopped goes on from its checkpoint, and what is done is not done again
until something is shipped: shipped weights are a part of this package, on whose content every result of it depends.
A family of digits that is not clearly better than a Gaussian of full covariance is reported, and not shipped.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import genxai_core as gx
from genxai_core import Samples, draws, pipeline, pretrained, saving

RECIPES = Path(__file__).resolve().parent
DATA = ("digits", "scenes-32", "scenes-64")
FAMILIES = ("classifier", "dcgan", "vae", "flow")
FRESH = 2000
"""Scenes that no training saw, to measure with; of digits there are too few, and all are used."""


def main() -> None:
    """Train what the command line names, then measure and ship it."""
    known = [f"{data}-{family}" for data in DATA for family in FAMILIES]
    known = [name for name in known if (RECIPES / f"{name}.yaml").is_file()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders go")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no recipe {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    torch.set_flush_denormal(True)  # tiny numbers cost a CPU many times the time of others
    # All are trained before any is shipped: what is shipped becomes a part of this package, on which results depend.
    for name, run in [(name, trained(name, arguments.runs)) for name in arguments.names or known]:
        ship(name, run)


def trained(name: str, runs: Path) -> pipeline.Run:
    """Run a recipe, or find that it has been run."""
    plan = pipeline.plan(pipeline.read(RECIPES / f"{name}.yaml"))
    return pipeline.run(plan, out=runs / name, command=f"train.py {name}")


def ship(name: str, run: pipeline.Run) -> None:
    """Measure what a recipe has made, and ship it."""
    data_name, _, family = name.rpartition("-")
    source = pipeline.read(RECIPES / f"{name}.yaml")
    step = pipeline.plan(source).steps[family]
    data, made = run.result("data"), run.result(family)
    card = {
        "recipe": f"recipes/{name}.yaml",
        "data": saving.describe(data),
        "training": saving.describe(gx.Spec(step.use, step.params)),
        "seed": step.seed,
        "precision": "float16",
        "torch": torch.__version__.partition("+")[0],
    }
    for model in made.models.values():
        half = copy.deepcopy(model).half()
        metrics = judged(copy.deepcopy(half).float(), data, data_name) | kept(made.info)
        print(f"{saving.name_of(model)} {data_name}: {metrics}")
        if data_name == "digits" and not metrics.get("kid_high", 0) < metrics.get("gaussian_kid_low", 1):
            print("  not shipped: its KID is not clearly below a Gaussian's")
            return
        print(f"  {pretrained.ship(half, data_name, card | {'metrics': metrics})}")


def kept(info: Any) -> dict[str, float]:
    """Return what the training itself measured, in single precision."""
    return {k: v for k, v in info.items() if k.startswith("held_out_")}


def judged(model: nn.Module, data: gx.Dataset, data_name: str) -> dict[str, float]:
    """Measure a model: a classifier's accuracy on scenes that are new, a generator's KID beside floor and Gaussian."""
    if isinstance(model, gx.Discriminator):
        if len(model.class_names) == 1 or data_name == "digits":
            return {}  # a discriminator has no figure of its own; digits are all used, the trainer held some out
        new = fresh(data, 0)
        return {"accuracy": float((logits(model, new.images).argmax(1) == new.labels).float().mean())}
    real, other = halves(data, data_name)
    extractor = gx.create("discriminator/classifier", pretrained=data_name)
    kid = gx.create("metric/kid", extractor=extractor)
    drawn = gx.create("dataset/generated", n=len(real)).load(model=model)
    found = {
        "kid": (real, drawn),
        "real_kid": (real, other),
        "gaussian_kid": (real, gaussian(data, len(real))),
    }
    metrics: dict[str, float] = {"images": float(len(real))}
    for prefix, (one, two) in found.items():
        values = kid.measure(real=one, generated=two)
        metrics |= {prefix: values["kid"], f"{prefix}_low": values["kid_low"], f"{prefix}_high": values["kid_high"]}
    return metrics


def halves(data: gx.Dataset, data_name: str) -> tuple[Samples, Samples]:
    """Return two sets of real images of one size: halves of the digits, or scenes that no training saw."""
    if data_name == "digits":
        return data[:898], data[898:1796]
    return fresh(data, 0), fresh(data, 1)


def fresh(data: gx.Dataset, part: int) -> Samples:
    """Return scenes that come after those of a dataset."""
    return gx.create("dataset/scenes", n=FRESH, size=data.image_shape[1], start=len(data) + part * FRESH)[:]


def gaussian(data: gx.Dataset, n: int) -> Samples:
    """Draw from the Gaussian of the data's mean and full covariance, clipped to their range."""
    flat = data[:].images.flatten(1)
    mean = flat.mean(0)
    # A sum of the centred images with standard normal weights has exactly their covariance: nothing is decomposed.
    weights = draws.normal(0, range(n), (len(flat),), stream="gaussian") / (len(flat) - 1) ** 0.5
    images = (mean + weights @ (flat - mean)).clamp(*data.value_range)
    return Samples(images.view(n, *data.image_shape), value_range=data.value_range)


@torch.no_grad()
def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return a model's logits, in batches."""
    return torch.cat([model(part) for part in images.split(256)])


if __name__ == "__main__":
    main()
