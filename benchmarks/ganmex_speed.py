"""What GANMEX's baselines, and attributions from them, cost beside the other ways to the same.

    python benchmarks/ganmex_speed.py            # measure, keep results/ganmex_speed.json, write the page
    python benchmarks/ganmex_speed.py --write    # only write docs/results/ganmex-speed.md from the kept figures

The sides of a comparison take turns call by call, in the other order every second round; a ratio is that of one round,
and what is said is the median of the rounds. One thread, and CPU time of this process, which other programs stretch
little. What must be equal is checked first: baselines of one pass and of several, maps and captum's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

import genxai_core as gx
from genxai_core import Runtime, Spec, draws

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "ganmex_speed.json"
PAGE = HERE.parent / "docs" / "results" / "ganmex-speed.md"

BATCH, STEPS = 32, (16, 64)
PARITY, SERVING = 1.05, 50.0
"""At most captum's time; at least as many times as fast as an optimisation of each image."""
OPTIMISED = {"gradient": "least change of pixels, 40 steps", "vae": "least change of a latent, 100 steps"}


class Made(nn.Module):
    """A generator whose images are there already, so that only the attribution is measured."""

    value_range = (-1.0, 1.0)

    def __init__(self, images: Tensor, made: Tensor) -> None:
        super().__init__()
        self.images, self.made = images, made

    def translate(self, images: Tensor, target: Tensor) -> Tensor:
        """Look them up."""
        return self.made[(images[:, None] == self.images).flatten(2).all(2).int().argmax(1)]


def sides() -> dict[str, dict[str, Callable[[], Any]]]:
    """Return the comparisons: each a few ways, by what is measured."""
    data = gx.create("dataset/digits", size=16)
    held = data[draws.permutation(0, 0, len(data), stream="holdout").tolist()[: round(0.2 * len(data))]]
    classifier = gx.create("discriminator/classifier", pretrained="digits").eval()
    generator = gx.create("generator/stargan", pretrained="digits").eval()
    runtime = Runtime(device="cpu", quiet=True, batch_size=BATCH)
    images = held.images[:BATCH]
    with torch.no_grad():
        ranked = classifier(images).argsort(1, descending=True)
    one, other = ranked[:, 0], ranked[:, 1]

    maker = gx.create("explainer/counterfactual", maker="ganmex", generator=generator, classifier=classifier)
    found: dict[str, dict[str, Callable[[], Any]]] = {
        "targets": {
            "one pass of all targets": lambda: maker.all_targets(images),
            "one pass per target": lambda: per_target(maker, classifier, images),
            "one pass per image and target": lambda: per_pair(maker, classifier, images),
        }
    }
    made = maker.make(classifier, images, other)
    everyone = classifier(held.images).argmax(1).detach()
    common = int(everyone.mode().values)
    same, same_other = held.images[everyone == common][:BATCH], (common + 1) % 10  # of one class, against one other
    pairs = {
        "one pair": (same, common, same_other, maker.make(classifier, same, goal(same, same_other))),
        "each its own pair": (images, one, None, made),
    }
    for name, (shown, target, against, baselines) in pairs.items():
        of = target if isinstance(target, Tensor) else goal(shown, target)
        to = other if against is None else goal(shown, against)
        for steps in STEPS:
            explainer = gx.create(
                "explainer/ganmex-attribution",
                baseline=made_before(shown, baselines),
                against=against,
                method=Spec("explainer/integrated-gradients", {"steps": steps}),
                tolerance=10.0,  # no warning: steps are given, and equal
            )
            found[f"integrated gradients, {name}, {steps}"] = {
                "genxai": lambda e=explainer, x=shown, t=target: (
                    e.explain(classifier, x, target=t, runtime=runtime).maps
                ),
                "captum": lambda x=shown, b=baselines, c=of, t=to, k=steps: captums(classifier, x, b, c, t, k),
            }
    vae = gx.create("generator/vae", pretrained="digits").eval()
    slow = {
        "gradient": gx.create("explainer/counterfactual", maker="gradient"),
        "vae": gx.create("explainer/counterfactual", maker="vae", generator=vae, steps=100),
    }
    for n in (BATCH, 1):
        x, t = images[:n], other[:n]
        found[f"serving, {n}"] = {"ganmex": lambda x=x, t=t: maker.make(classifier, x, t)} | {
            name: lambda m=m, x=x, t=t: m.make(classifier, x, t) for name, m in slow.items()
        }
    return found


def made_before(images: Tensor, made: Tensor) -> Any:
    """Return a maker of these counterfactuals of these images."""
    return gx.create("explainer/counterfactual", maker="ganmex", generator=Made(images, made))


def goal(images: Tensor, target: int) -> Tensor:
    """Return the target for each image."""
    return torch.full((len(images),), target, dtype=torch.long)


def per_target(maker: Any, classifier: Any, images: Tensor) -> Tensor:
    """Return ``[N, K, C, H, W]`` by K passes."""
    return torch.stack([maker.make(classifier, images, goal(images, t)) for t in range(10)], 1)


def per_pair(maker: Any, classifier: Any, images: Tensor) -> Tensor:
    """Return ``[N, K, C, H, W]`` by N·K passes."""
    return torch.cat([per_target(maker, classifier, images[i : i + 1]) for i in range(len(images))])


def captums(classifier: Any, images: Tensor, baselines: Tensor, one: Tensor, other: Tensor, steps: int) -> Tensor:
    """Return captum's maps of the difference of two logits, in one call for all pairs."""

    def difference(x: Tensor, one: Tensor, other: Tensor) -> Tensor:
        logits: Tensor = classifier(x)
        return (logits.gather(1, one[:, None]) - logits.gather(1, other[:, None]))[:, 0]

    maps: Tensor = IntegratedGradients(difference).attribute(
        images, baselines, additional_forward_args=(one, other), n_steps=steps
    )
    return maps


def check(found: dict[str, dict[str, Callable[[], Any]]]) -> dict[str, float]:
    """Return the largest differences between what must be equal.

    Raises
    ------
    SystemExit
        If it is not: there is nothing to compare then.
    """
    apart = {}
    for name, ways in found.items():
        if name.startswith("serving"):
            continue
        first, *others = (way() for way in ways.values())
        apart[name] = max(float((first - x).abs().max() / first.abs().max()) for x in others)
        if apart[name] > 1e-3:
            raise SystemExit(f"{name}: the ways differ by {apart[name]:.2g} of the largest value")
    return apart


def clock(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(rounds: int) -> dict[str, Any]:
    """Let the sides take turns."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    load = [round(os.getloadavg()[0], 1)]
    found = sides()
    apart = check(found)  # warms up, too
    took: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways} for name, ways in found.items()}
    for k in range(rounds):
        for name, ways in found.items():
            for way, call in list(ways.items())[:: 1 if k % 2 else -1]:
                took[name][way].append(round(clock(call), 6))
    load.append(round(os.getloadavg()[0], 1))
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    machine = {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": load,
    }
    return {"rounds": rounds, "apart": apart, "machine": machine, "seconds": took}


def ratio(took: dict[str, list[float]], side: str, beside: str) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios, and their middle half."""
    found = sorted(a / b for a, b in zip(took[side], took[beside], strict=True))
    quarter = len(found) // 4
    return statistics.median(found), found[quarter], found[-1 - quarter]


def ms(took: dict[str, list[float]], side: str) -> str:
    """Return a median in milliseconds."""
    value = 1000 * statistics.median(took[side])
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    seconds, facts = kept["seconds"], kept["machine"]
    targets = seconds["targets"]
    rows = [
        f"| {way} | {ms(targets, way)} | {ratio(targets, way, 'one pass of all targets')[0]:.2f} |" for way in targets
    ]
    integrated = {name: took for name, took in seconds.items() if name.startswith("integrated")}
    maps, held = [], 0
    for name, took in integrated.items():
        middle, low, high = ratio(took, "genxai", "captum")
        held += middle <= PARITY
        _, pair, steps = name.split(", ")
        maps.append(
            f"| {pair} | {steps} | {ms(took, 'captum')} | {ms(took, 'genxai')} | **{middle:.2f}** | {low:.2f} to "
            f"{high:.2f} | {kept['apart'][name]:.0e} |"
        )
    served, goals = [], []
    for n in (BATCH, 1):
        took = seconds[f"serving, {n}"]
        for way, what in OPTIMISED.items():
            middle, low, high = ratio(took, way, "ganmex")
            goals.append((way, n, middle))
            served.append(
                f"| {what} (`{way}`) | {n} | {ms(took, way)} | {ms(took, 'ganmex')} | **{middle:.0f}** | {low:.0f} to "
                f"{high:.0f} |"
            )
    reached = [f"{way}, {'one at a time' if n == 1 else f'batch of {n}'}" for way, n, x in goals if x >= SERVING]
    missed = [f"{way}, {'one at a time' if n == 1 else f'batch of {n}'}" for way, n, x in goals if x < SERVING]
    per_sample = {
        way: statistics.median(seconds["serving, 1"][way])
        / (statistics.median(seconds[f"serving, {BATCH}"]["ganmex"]) / BATCH)
        for way in OPTIMISED
    }
    at_once = ratio(targets, "one pass of all targets", "one pass per target")[0]
    return "\n".join(
        [
            "# GANMEX, measured",
            "",
            f"Serving by a generator is at least {SERVING:.0f} × as fast as an optimisation"
            + (f" in {len(reached)} of {len(goals)} comparisons ({'; '.join(reached)})" if reached else " nowhere")
            + (f", and not in {len(missed)} ({'; '.join(missed)})" if missed else "")
            + f". Integrated gradients are the same maps as captum's, and at parity (at most {PARITY:g} of its time) "
            f"in {held} of {len(integrated)} comparisons: ours has a fixed cost for every pair of classes. "
            f"One pass of all targets takes {at_once:.1f} × the time of one pass per target, on one core.",
            "",
            "Held-out digits of 16 px, the classifier and the generator as they are shipped "
            "([counterfactual baselines](../reference/ganmex.md)).",
            "",
            "## Baselines of all targets",
            "",
            f"{BATCH} images as each of ten digits. The first two differ in how often the generator is called, not in "
            "what it computes; the third is what calls image by image come to.",
            "",
            "| | ms | beside the first |",
            "|---|---|---|",
            *rows,
            "",
            "## Integrated gradients beside captum",
            "",
            "`explainer/ganmex-attribution` with as many steps as captum's `IntegratedGradients` (Gauss-Legendre), "
            "baselines made before. "
            f"*One pair* is {BATCH} images of one class against one other; *each its own pair* is {BATCH} images, each "
            "of its class against its second: captum takes the pairs as arguments of its function and all images in "
            "one call, ours go pair by pair, which is why they take longer. Ours also checks images and maps, guards "
            "the model, says which baselines failed, and computes the completeness error, which captum was not asked "
            "for. The difference is a share of the largest value of the maps.",
            "",
            "| images | steps | captum (ms) | genxai (ms) | ratio, median | middle half | largest difference |",
            "|---|---|---|---|---|---|---|",
            *maps,
            "",
            "## Serving beside optimisation",
            "",
            "The same images toward their second class, once by the generator and once by an optimisation of each "
            "image, in one batch and alone.",
            "",
            "| optimisation | images at once | it takes (ms) | GANMEX (ms) | GANMEX is faster, × | middle half |",
            "|---|---|---|---|---|---|",
            *served,
            "",
            "Image for image, GANMEX in a batch beside optimisation one at a time: "
            + ", ".join(f"{x:.0f} × (`{way}`)" for way, x in per_sample.items())
            + ". The training of the generator is not in it: five minutes of one core, once per classifier.",
            "",
            f"{kept['rounds']} rounds, sides taking turns call by call, in the other order every second time; a ratio "
            f"is that of one round. CPU time of one thread. {facts['cpu']}, cores: {facts['cores']}, Python "
            f"{facts['python']}, torch {facts['torch']}. Load average before and after: {facts['load'][0]} and "
            f"{facts['load'][1]}.",
            "",
            "`python benchmarks/ganmex_speed.py` measures again and writes this page; the figures are kept in "
            "`benchmarks/results/ganmex_speed.json`.",
            "",
        ]
    )


def main() -> None:
    """Measure or write, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="calls of each side (at least 7)")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    asked = parser.parse_args()
    if asked.rounds < 7:
        parser.error("--rounds must be at least 7: a median of fewer says little")
    kept = json.loads(FIGURES.read_text()) if asked.write else measure(asked.rounds)
    if not asked.write:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
