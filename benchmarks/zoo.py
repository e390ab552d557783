"""What the trainers and sampling cost beside plain PyTorch that does the same arithmetic.

    python benchmarks/zoo.py            # measure, keep results/zoo.json, write docs/results/zoo.md
    python benchmarks/zoo.py --write    # only write the page again from the kept figures
    python benchmarks/zoo.py --check    # measure and exit with 1 if a ratio misses its goal; keep nothing

Trainer and plain loop take turns step by step, ways to sample call by call, in the other order every second time; a
ratio is that of one round. One thread, and CPU time of this process, which other programs stretch little. The C library
is told to keep freed memory: by default it returns large blocks and asks for them again, which takes a quarter of the
time of drawing, and takes it from whichever side the rest of the heap happens to disfavour.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
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

SIZE, BATCH, WARM, STEPS, DRAWN, MANY, CALLS = 32, 64, 3, 20, 256, 2048, 4
TRAINERS = ("gan", "vae", "classifier", "flow")
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "2000000000"}
Step = Callable[[int], None]


class SideBySide(Runtime):
    """A runtime whose progress runs a step of the plain loop after each step of a training, and clocks both."""

    @contextlib.contextmanager
    def progress(self, name: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """Add the seconds of both to the list that is this object's ``took``, by ``plain``."""
        plain, took, mark = self.plain, self.took, time.process_time()  # type: ignore[attr-defined]

        def advance(*_: Any, **__: Any) -> None:
            nonlocal mark
            ended = time.process_time()
            plain(len(took))
            plain_ended = time.process_time()
            took.append((ended - mark, plain_ended - ended))
            mark = time.process_time()

        yield advance


def steps(name: str, digits: Any) -> tuple[float, float]:
    """Return the median seconds of a step of the trainer, and of a loop as one writes it.

    The plain one takes batches and noise from torch and notes the same figures. The two take turns step by step; the
    first steps, which warm up, do not count.
    """
    runtime, took = SideBySide(device="cpu", quiet=True), list[tuple[float, float]]()
    object.__setattr__(runtime, "plain", globals()[f"plain_{name}"](digits))
    object.__setattr__(runtime, "took", took)
    held = {} if name == "gan" else {"holdout": 0.0}
    gx.create(f"trainer/{name}", steps=WARM + STEPS, batch=BATCH, **held).fit(digits, runtime)
    ours, plain = zip(*took[WARM:], strict=True)
    return statistics.median(ours), statistics.median(plain)


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


def fitting(model: Any, lr: float, digits: Any, figures: Callable[[torch.Tensor, torch.Tensor], Any]) -> Step:
    """Return a step of Adam on the first of some figures, which are all noted; its learning rate falls linearly."""
    images, labels = digits.images, digits.labels
    (optimizer,) = adam(model, lr=lr)
    notes: list[float] = []

    def step(i: int) -> None:
        rows = torch.randint(len(images), (BATCH,))
        optimizer.param_groups[0]["lr"] = lr * (1 - i / (WARM + STEPS))
        loss, *others = figures(images[rows], labels[rows])
        update(optimizer, loss)
        notes.extend(figure.item() for figure in (loss, *others))

    return step


def plain_vae(digits: Any) -> Step:
    """The negative ELBO of Gaussian pixels."""
    model = gx.create("generator/vae", size=SIZE)

    def figures(images: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, log_variance = model.posterior(images)
        latents = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        likelihood = model.log_likelihood(images, latents).mean()
        return kl - likelihood, likelihood - kl, kl

    return fitting(model, 4e-3, digits, figures)


def plain_classifier(digits: Any) -> Step:
    """Cross-entropy; the accuracy is noted, too."""
    model = gx.create("discriminator/classifier", size=SIZE)

    def figures(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = model(images)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()

    return fitting(model, 2e-3, digits, figures)


def plain_flow(digits: Any) -> Step:
    """Minus the log density of dequantised digits, standardised as the trainer does it before its first step."""
    model = gx.create("generator/flow", size=SIZE)
    gx.create("trainer/flow")._prepare(model, digits, list(range(len(digits))))

    def figures(images: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
        v = model.to_native(images).round()
        loss = -model.density(v + torch.rand_like(v) - 0.5).mean()
        return loss, loss / (math.log(2) * v[0].numel())

    return fitting(model, 2e-3, digits, figures)


def sampling() -> dict[str, dict[str, Callable[[], object]]]:
    """Return ways to draw the same images of each family: some in one batch, many in batches of that size."""
    runtime = Runtime(device="cpu", quiet=True, batch_size=DRAWN)
    ways = {}
    for family in ("dcgan", "vae"):
        model = gx.create(f"generator/{family}", size=SIZE).eval()

        def module(n: int, model: Any = model) -> torch.Tensor:
            with torch.no_grad():
                return torch.cat([model(model.sample_latents(DRAWN, 0, start)) for start in range(0, n, DRAWN)])

        def sample(model: Any = model) -> torch.Tensor:
            return model.sample(DRAWN, 0).images

        def generated(n: int, model: Any = model) -> torch.Tensor:
            return gx.create("dataset/generated", n=n).load(model=model, runtime=runtime).images

        if not torch.equal(module(DRAWN), sample()) or not torch.equal(module(MANY), generated(MANY)):
            raise SystemExit(f"{family}: the ways draw different images; there is nothing to compare")
        ways[family] = {
            "module": functools.partial(module, DRAWN),
            "sample": sample,
            "generated": functools.partial(generated, DRAWN),
            "module, many": functools.partial(module, MANY),
            "generated, many": functools.partial(generated, MANY),
        }
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
    sides = {
        f"{family}, {way}": lambda call=call: clock(call)
        for family, ways in sampling().items()
        for way, call in ways.items()
    }
    took: dict[str, list[float]] = {f"{name}, {side}": [] for name in TRAINERS for side in ("ours", "plain")}
    took |= {name: [] for name in sides}
    for k in range(-1, rounds):  # the first round fills caches and is not counted
        found = {}
        for name in TRAINERS:
            found[f"{name}, ours"], found[f"{name}, plain"] = steps(name, digits)
        calls: dict[str, list[float]] = {name: [] for name in sides}
        for j in range(CALLS):
            for name, call in list(sides.items())[:: 1 if j % 2 else -1]:
                calls[name].append(clock(call))
        found |= {name: statistics.median(seconds) for name, seconds in calls.items()}
        if k >= 0:
            for name, seconds in found.items():
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


def compared(kept: dict[str, Any]) -> list[tuple[str, str, str, float | None]]:
    """Return what is compared: what it is, the side measured, the plain side, and the goal, if it has one."""
    rows: list[tuple[str, str, str, float | None]] = [
        (f"`trainer/{n}`, a step", f"{n}, ours", f"{n}, plain", kept["goals"]["training"]) for n in TRAINERS
    ]
    goal = kept["goals"]["sampling"]
    for family in ("dcgan", "vae"):
        what, module = f"`generator/{family}`,", f"{family}, module"
        rows.append((f"{what} {DRAWN} images by `.sample`", f"{family}, sample", module, goal))
        rows.append((f"{what} {DRAWN} by `dataset/generated`", f"{family}, generated", module, None))
        many = f"{family}, generated, many", f"{module}, many"
        rows.append((f"{what} {MANY:,} by `dataset/generated`", *many, None))
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
            f"| {found[quarter]:.3f} to {found[-1 - quarter]:.3f} | {goal or '—'} |"
        )
    facts = kept["machine"]
    held = [goal >= statistics.median(ratios(kept, a, b)) for _, a, b, goal in compared(kept) if goal]
    return "\n".join(
        [
            "# What the zoo's trainers and sampling cost",
            "",
            f"Digits at {SIZE} px, batches of {BATCH}, each trainer with its defaults, beside a plain PyTorch loop of "
            f"the same model, optimiser and loss, from images in memory; and images drawn in batches of {DRAWN}, "
            "beside calling the module on the same latents, which both draw.",
            "",
            "| what | plain (ms) | genxai (ms) | ratio, median | middle half | goal, at most |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"{sum(held)} of {len(held)} goals are met.",
            "",
            "Over the plain loop a trainer addresses every draw by seed and index, so that a resumed or distributed "
            "training sees the same, checks each loss and gradient for NaN and infinity before it steps, and keeps the "
            "history. `dataset/generated` looks up and builds the component, checks what the model returns and leaves "
            "the model as it was, which takes some 4 ms, however many images it draws: it has no goal of its own.",
            "",
            f"{kept['rounds']} rounds. In each, a trainer and its plain loop take turns step by step ({kept['steps']} "
            f"steps each, after {WARM} that warm up), and the ways to sample call by call ({CALLS} calls each, in the "
            f"other order every second time); a ratio is that of two medians of one round. CPU time of one thread, "
            "with freed memory kept "
            f"({', '.join(f'{k}={v}' for k, v in KEEP_MEMORY.items())}). "
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
    if not asked.write and os.environ.keys().isdisjoint(KEEP_MEMORY):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    kept = json.loads(FIGURES.read_text()) if asked.write else measure(asked.rounds)
    missed = False
    for what, side, beside, goal in compared(kept):
        median = statistics.median(ratios(kept, side, beside))
        missed |= bool(goal) and median > goal
        print(f"{what}: {median:.3f} of the plain time" + (f" (goal {goal})" if goal else ""))
    if not asked.check:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(kept))
    sys.exit(asked.check and missed)


if __name__ == "__main__":
    main()
