"""Train the weights that this package ships: as the recipe says, and measured as they are shipped.

    python plugins/genxai-ganmex/recipes/train.py                 # five minutes of one idle core

The recipe is a pipeline of two steps. What was stopped goes on from its checkpoint. Images that were held out are moved
to all other classes, and judged by the classifier that the training satisfied and by a witness that it never saw:
another classifier, wider, of another seed, trained on the same images as the first. Weights that one of them does not
believe are reported, and not shipped.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from genxai_ganmex.measuring import measured

import genxai_core as gx
from genxai_core import Runtime, Samples, Spec, draws, pipeline, pretrained, saving

RECIPES = Path(__file__).resolve().parent
NAME = "digits"
WITNESS = {"model": Spec("discriminator/classifier", {"width": 48, "feature_size": 96}), "steps": 1500}
WITNESS_SEED = 11
LEAST = {"flips": 0.97, "witness_flips": 0.9}


def main() -> None:
    """Train, measure and ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders go")
    runs = parser.parse_args().runs
    torch.set_flush_denormal(True)  # tiny numbers cost a CPU many times the time of others
    source = pipeline.read(RECIPES / f"{NAME}-ganmex.yaml")
    run = pipeline.run(pipeline.plan(source), out=runs / "digits-ganmex", command="train.py")
    step = pipeline.plan(source).steps["ganmex"]
    data, generator = run.result("data"), run.result("ganmex").generator
    train, held = split(len(data), step.seed)
    witness = gx.create("trainer/classifier", **WITNESS).fit(data[train], Runtime(seed=WITNESS_SEED)).classifier
    half = copy.deepcopy(generator).half()
    classifier = gx.create("discriminator/classifier", pretrained=NAME)
    metrics = judged(copy.deepcopy(half).float(), classifier, witness, data[held])
    print(metrics)
    if any(metrics[name] < least for name, least in LEAST.items()):
        print(f"not shipped: {LEAST} are asked for")
        return
    card = {
        "recipe": f"recipes/{NAME}-ganmex.yaml",
        "data": saving.describe(data),
        "training": saving.describe(Spec(step.use, step.params)),
        "seed": step.seed,
        "precision": "float16",
        "torch": torch.__version__.partition("+")[0],
        "metrics": metrics,
    }
    print(pretrained.ship(half, NAME, card))


def split(n: int, seed: int, share: float = 0.2) -> tuple[list[int], list[int]]:
    """Return the rows that the training of a seed sees, and those that it holds out."""
    order = [int(i) for i in draws.permutation(seed, 0, n, stream="holdout")]
    return order[round(n * share) :], order[: round(n * share)]


@torch.no_grad()
def judged(generator: Any, classifier: Any, witness: Any, held: Samples) -> dict[str, float]:
    """Return what both see in held-out images that were moved to all other classes."""
    classes = classifier(held.images).argmax(1)
    found = {"images": float(len(held))}
    for prefix, sees in (("", classifier), ("witness_", witness)):
        values = measured(generator.translate, sees, held.images, classes, generator.num_classes, 2.0, 500)
        found |= {f"{prefix}{name}": value for name, value in values.items() if not prefix or name not in DISTANCES}
        found[f"{prefix}accuracy"] = float((sees(held.images).argmax(1) == held.labels).float().mean())
    return found


DISTANCES = ("change", "identity", "cycle")


if __name__ == "__main__":
    main()
