"""What the trainers and sampling cost beside plain PyTorch that does the same arithmetic.

    python benchmarks/zoo.py            # measure, keep results/zoo.json, write docs/results/zoo.md
    python benchmarks/zoo.py --write    # only write the page again from the kept figures
    python benchmarks/zoo.py --check    # measure and exit with 1 if a ratio misses its goal; keep nothing

Both sides take turns in short blocks, in the other order every second round, and a ratio is that of one round. One
thread, and CPU time of this process, which other programs stretch little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Runtime

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "results" / "zoo.json"
PAGE = HERE.parent / "docs" / "results" / "zoo.md"
GOALS = {"training": 1.03, "sampling": 1.02}
"""At most how many times the plain one's time."""

SIZE, BATCH, STEPS, DRAWN = 32, 64, 5, 256
TRAINERS = ("gan", "vae", "classifier", "flow")
Step = Callable[[int], None]


class Clocked(Runtime):
    """A runtime whose progress notes when each step of a training ended."""

    @contextlib.contextmanager
    def progress(self, name: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """Collect the ends of the steps in the list that is this object's ``ends``."""
        ends: list[float] = []
        object.__setattr__(self, "ends", ends)
        yield lambda *_, **__: ends.append(time.process_time())


def ours(name: str, digits: Any) -> float:
    """Return the seconds per step of a short training, whose first step, a warm-up, does not count."""
    runtime = Clocked(device="cpu", quiet=True)
    held = {} if name == "gan" else {"holdout": 0.0}
    gx.create(f"trainer/{name}", steps=STEPS + 1, batch=BATCH, **held).fit(digits, runtime)
    ends = runtime.ends  # type: ignore[attr-defined]
    return (ends[-1] - ends[0]) / STEPS


def plain(name: str, digits: Any) -> float:
    """Return the same of a loop as one writes it: batches and noise by torch, the loss noted, nothing else."""
    step = globals()[f"plain_{name}"](digits)
    step(0)
    start = time.process_time()
    for i in range(1, STEPS + 1):
        step(i)
    return (time.process_time() - start) / STEPS


def adam(*models: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> list[torch.optim.Adam]:
    """Return one for each model."""
    return [torch.optim.Adam(model.train().parameters(), lr=lr, betas=betas) for model in models]


def update(optimizer: torch.optim.Adam, loss: torch.Tensor) -> None:
    """One step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def plain_gan(digits: Any) -> Step:
    """Non-saturating, one step of each; the generator runs forward once."""
    G = gx.create("generator/dcgan", size=SIZE)
    D = gx.create("discriminator/dcgan", size=SIZE)
    images = digits.images
    for_g, for_d = adam(G, D, lr=2e-3, betas=(0.0, 0.9))
    notes: list[float] = []

    def step(i: int) -> None:
        real = images[torch.randint(len(images), (BATCH,))]
        fake = G(torch.randn(BATCH, *G.latent_shape))
        d_loss = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
        update(for_d, d_loss)
        D.requires_grad_(False)
        g_loss = F.softplus(-D(fake)).mean()
        update(for_g, g_loss)
        D.requires_grad_(True)
        notes.extend((d_loss.item(), g_loss.item()))

    return step


def fitting(model: Any, lr: float, digits: Any, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Step:
    """Return a step of Adam whose learning rate falls linearly."""
    images, labels = digits.images, digits.labels
    (optimizer,) = adam(model, lr=lr)
    notes: list[float] = []

    def step(i: int) -> None:
        rows = torch.randint(len(images), (BATCH,))
        optimizer.param_groups[0]["lr"] = lr * (1 - i / (STEPS + 1))
        loss = loss_of(images[rows], labels[rows])
        update(optimizer, loss)
        notes.append(loss.item())

    return step


def plain_vae(digits: Any) -> Step:
    """The negative ELBO of Gaussian pixels."""
    model = gx.create("generator/vae", size=SIZE)

    def loss(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        mean, log_variance = model.posterior(images)
        latents = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return kl - model.log_likelihood(images, latents).mean()

    return fitting(model, 4e-3, digits, loss)


def plain_classifier(digits: Any) -> Step:
    """Cross-entropy."""
    model = gx.create("discriminator/classifier", size=SIZE)
    return fitting(model, 2e-3, digits, lambda images, labels: F.cross_entropy(model(images), labels))


def plain_flow(digits: Any) -> Step:
    """Minus the log density of dequantised digits."""
    model = gx.create("generator/flow", size=SIZE)

    def loss(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        v = model.to_native(images).round()
        return -model.density(v + torch.rand_like(v) - 0.5).mean()

    return fitting(model, 2e-3, digits, loss)


def sampling() -> dict[str, dict[str, Callable[[], object]]]:
    """Return ways to draw the same images of each family."""
    runtime = Runtime(device="cpu", quiet=True, batch_size=DRAWN)
    ways = {}
    for family in ("dcgan", "vae"):
        model = gx.create(f"generator/{family}", size=SIZE).eval()

        def module(model: Any = model) -> torch.Tensor:
            with torch.no_grad():
                return model(model.sample_latents(DRAWN, 0))

        def sample(model: Any = model) -> torch.Tensor:
            return model.sample(DRAWN, 0).images

        def generated(model: Any = model) -> torch.Tensor:
            return gx.create("dataset/generated", n=DRAWN).load(model=model, runtime=runtime).images

        if not torch.equal(module(), sample()) or not torch.equal(module(), generated()):
            raise SystemExit(f"{family}: the ways draw different images; there is nothing to compare")
        ways[family] = {"module": module, "sample": sample, "generated": generated}
    return ways


def clock(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(rounds: int) -> dict[str, Any]:
    """Let the sides take turns."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    load = [round(os.getloadavg()[0], 1)]
    digits = gx.create("dataset/digits", size=SIZE)[:]
    sides: dict[str, Callable[[], float]] = {}
    for name in TRAINERS:
        sides[f"{name}, plain"] = lambda name=name: plain(name, digits)
        sides[f"{name}, ours"] = lambda name=name: ours(name, digits)
    for family, ways in sampling().items():
        sides |= {f"{family}, {way}": lambda call=call: clock(call) for way, call in ways.items()}
    took: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(-1, rounds):  # the first round fills caches and is not counted
        for name, call in list(sides.items())[:: 1 if k % 2 else -1]:
            seconds = call()
            if k >= 0:
                took[name].append(round(seconds, 6))
    load.append(round(os.getloadavg()[0], 1))
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    machine = {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": load,
    }
    return {"goals": GOALS, "steps": STEPS, "rounds": rounds, "machine": machine, "seconds": took}


def compared(kept: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    """Return what is compared: what it is, the side measured, the plain side, and the goal."""
    rows = [(f"`trainer/{n}`, a step", f"{n}, ours", f"{n}, plain", kept["goals"]["training"]) for n in TRAINERS]
    for family in ("dcgan", "vae"):
        for way, said in (("sample", "`.sample`"), ("generated", "`dataset/generated`")):
            what = f"`generator/{family}`, {DRAWN} images by {said}"
            rows.append((what, f"{family}, {way}", f"{family}, module", kept["goals"]["sampling"]))
    return rows


def ratios(kept: dict[str, Any], side: str, beside: str) -> list[float]:
    """Return the ratio of every round, in order of size."""
    return sorted(a / b for a, b in zip(kept["seconds"][side], kept["seconds"][beside], strict=True))


def page(kept: dict[str, Any]) -> str:
    """Write the page from the kept figures."""
    rows = []
    for what, side, beside, goal in compared(kept):
        took, plain_took = (1000 * statistics.median(kept["seconds"][name]) for name in (side, beside))
        found = ratios(kept, side, beside)
        quarter = len(found) // 4
        rows.append(
            f"| {what} | {plain_took:.1f} | {took:.1f} | **{statistics.median(found):.3f}** "
            f"| {found[quarter]:.3f} to {found[-1 - quarter]:.3f} | {goal} |"
        )
    facts = kept["machine"]
    met = sum(statistics.median(ratios(kept, side, beside)) <= goal for _, side, beside, goal in compared(kept))
    return "\n".join(
        [
            "# What the zoo's trainers and sampling cost",
            "",
            f"Digits at {SIZE} px, batches of {BATCH}, each trainer with its defaults, beside a plain PyTorch loop of "
            f"the same model, optimiser and loss, from images in memory; and {DRAWN} images drawn, beside calling the "
            "module on the same latents, which both draw.",
            "",
            "| what | plain (ms) | genxai (ms) | ratio, median | middle half | goal, at most |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"{met} of {len(rows)} goals are met.",
            "",
            "Over the plain loop a trainer addresses every draw by seed and index, so that a resumed or distributed "
            "training sees the same, checks each loss and gradient for NaN and infinity before it steps, and keeps the "
            "history. `dataset/generated` checks what the model returns and leaves the model as it was.",
            "",
            f"{kept['rounds']} rounds, in each of which every side has one block ({kept['steps']} steps after one of "
            "warm-up, or one draw), in turn; a ratio is that of two blocks of one round. CPU time of one thread. "
            f"{facts['cpu']}, cores: {facts['cores']}, Python {facts['python']}, torch {facts['torch']}. Load average "
            f"before and after: {facts['load'][0]} and {facts['load'][1]}.",
            "",
            "`python benchmarks/zoo.py` measures again and writes this page; the figures are kept in "
            "`benchmarks/results/zoo.json`.",
            "",
        ]
    )


def main() -> None:
    """Measure or write, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="blocks of each side (at least 7)")
    parser.add_argument("--write", action="store_true", help="only write the page from the kept figures")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio misses its goal; keep nothing")
    asked = parser.parse_args()
    if asked.rounds < 7:
        parser.error("--rounds must be at least 7: a median of fewer says little")
    kept = json.loads(FIGURES.read_text()) if asked.write else measure(asked.rounds)
    missed = False
    for what, side, beside, goal in compared(kept):
        median = statistics.median(ratios(kept, side, beside))
        missed |= median > goal
        print(f"{what}: {median:.3f} of the plain time (goal {goal})")
    if not asked.check:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(kept))
    sys.exit(asked.check and missed)


if __name__ == "__main__":
    main()
