"""Run a plan: what is done is not done again, and a run that was killed goes on where it was."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from .. import registry, saving, storage
from ..errors import GenxaiError, GenxaiWarning, InputError, Interrupted, StepFailed, StorageError
from ..guard import guard
from ..interfaces import Dataset
from ..plugins import Plugin
from ..runtime import Runtime
from . import cache as caching
from . import manifest, references
from .cache import Cache
from .plan import Plan, Planned
from .references import Reference


@dataclass(frozen=True)
class Run:
    """What became of a run.

    Attributes
    ----------
    out
        The run folder.
    ran, found
        Names of the steps that ran, and of those whose results were in the cache.
    report
        The HTML report.
    """

    out: Path
    ran: tuple[str, ...]
    found: tuple[str, ...]
    report: Path | None
    _load: Callable[[str], Any] = field(repr=False, default=lambda name: None)

    def result(self, step: str) -> Any:
        """Load the result of a step."""
        return self._load(step)


def run(
    plan: Plan,
    *,
    out: Path | str,
    cache: Path | str | None = None,
    runtime: Runtime | None = None,
    command: str = "",
    report: bool = True,
) -> Run:
    """Run every step that is not done, and write the run folder.

    Under torchrun or accelerate every process calls this: rank 0 plans, looks up and writes; trainers and distributed
    explainers run on all.

    Parameters
    ----------
    plan
        A checked pipeline.
    out
        The run folder: made if need be; a folder that holds something else is refused.
    cache
        Where results are kept; default: ``$GENXAI_CACHE``, else the user's cache folder.
    runtime
        Device, precision, batch size, progress. Its seed and checkpoint folder are set per step.
    command
        The command line, for the report.
    report
        Whether to write ``report.html``.

    Raises
    ------
    StepFailed
        If a step raises; the cause is chained. What was done before is kept.
    Interrupted
        On Ctrl-C, with how to go on.
    """
    runner = _Runner(plan, Path(out), Cache(Path(cache or caching.default_folder())), runtime or Runtime(), command)
    with guard():  # without a model it restores the caller's random generators
        return runner.run(report)


class _Runner:
    """One run of one plan."""

    def __init__(self, plan: Plan, out: Path, cache: Cache, runtime: Runtime, command: str) -> None:
        self.plan, self.out, self.cache, self.runtime = plan, out, cache, runtime
        self.host = registry.default().host
        self.notes: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.datasets: dict[str, Dataset] = {}
        self.manifest = manifest.Manifest(plan, runtime, command)

    def run(self, report: bool) -> Run:
        if self.runtime.is_main:
            _claim(self.out)
            self.manifest.begin(self.out)
            storage.write_text(self.out / "pipeline.yaml", self.manifest.pipeline_text())
        ran: list[str] = []
        for name, step in self.plan.steps.items():
            if self._step(name, step):
                ran.append(name)
        found = tuple(n for n in self.plan.steps if n not in ran)
        written = None
        if self.runtime.is_main:
            before = self.out / "report.html"
            unchanged = self.manifest.complete(self.out) and before.is_file()
            written = before if unchanged else self._report() if report else None
        self.runtime.wait()
        return Run(self.out, tuple(ran), found, written, self._load)

    def _report(self) -> Path:
        from ..report import write_report

        return write_report(self.out)

    # -- one step -------------------------------------------------------------------------------------------------

    def _step(self, name: str, step: Planned) -> bool:
        """Do one step, or find it done. Returns whether it ran."""
        if not self.runtime.is_main:
            return self._follow(name, step)
        key = self._key(step)
        self.keys[name] = key
        with self.cache.lock(key):
            note = self.cache.lookup(key)
            self.runtime.share((key, note))
            self._notify("genxai_before_step", step, cached=note is not None)
            started = time.perf_counter()
            try:
                note_now = self._execute(step, key) if note is None else note
                self.notes[name] = note_now
                self._export(name, note_now)
            except BaseException as error:
                self._failed(name, step, error)
                raise self._told(step, error) from error
        seconds = time.perf_counter() - started
        self.manifest.done(name, key, note_now, cached=note is not None)
        if note is None:
            self.manifest.write(self.out, "running")
            if self.runtime.processes > 1:
                self.runtime.share(note_now)
            self._notify("genxai_after_step", step, result=self._load(name), seconds=seconds)
        return note is None

    def _follow(self, name: str, step: Planned) -> bool:
        """Do what a process other than the first does: take part where all do, else wait for the result."""
        key, note = self.runtime.share(None)
        self.keys[name] = key
        if note is None:
            if self._on_all(step):
                self._work(step, key)
            note = self.runtime.share(None)
            self.notes[name] = note
            return True
        self.notes[name] = note
        return False

    def _on_all(self, step: Planned) -> bool:
        return step.kind == "trainer" or bool(getattr(step.target, "distributed", False))

    def _execute(self, step: Planned, key: str) -> dict[str, Any]:
        started = time.perf_counter()
        with registry.recording() as created:
            result = self._work(step, key)
        plugins = list({c.plugin.distribution: c.plugin for c in created}.values())
        return self.cache.store(key, result, seconds=time.perf_counter() - started, created=plugins)

    def _work(self, step: Planned, key: str) -> Any:
        """Build the component and call its kind's verb."""
        runtime = self.runtime.with_(seed=step.seed, checkpoints=self.cache.checkpoints(key))
        if not self._on_all(step):
            runtime = runtime.alone()
        place = self.plan.source.document.place("steps", step.name, "with")
        params = references.replace(dict(step.params), self._value)
        call = references.replace(dict(step.call), self._value)
        runtime.seed_global()
        component = registry.default().create(step.provided_name, where=place, params=params)
        return VERBS[step.kind](component, call, runtime)

    def _value(self, reference: Reference) -> Any:
        """Return what a reference stands for; a model is the step's own copy, on the device of the run."""
        value = references.follow(self._load(reference.step), reference)
        return value.to(self.runtime.torch_device) if isinstance(value, nn.Module) else value

    def _load(self, name: str) -> Any:
        """Return a step's result, read anew for whoever asks: a step may write into what it is given."""
        if name in self.datasets:
            return self.datasets[name]
        step, key = self.plan.steps[name], self.keys[name]
        result = saving.load_result(self.cache.result(key), build=lambda: self._work(step, key))
        if isinstance(result, Dataset):  # these hand out copies, and opening one may mean reading a folder of images
            self.datasets[name] = result
        return result

    # -- keys -----------------------------------------------------------------------------------------------------

    def _key(self, step: Planned) -> str:
        """Hash everything that the step's result depends on and that is known before it runs."""
        plugins: dict[str, Plugin] = {step.provided.plugin.distribution: step.provided.plugin}
        plugins |= {p.distribution: p for p in caching.plugins_in([dict(step.params), dict(step.call)])}
        core = next(p for p in self.host.plugins if p.distribution == caching.CORE)
        plugins[caching.CORE] = core
        content = {name: self.notes[name]["content"] for name in step.needs}
        return storage.digest(
            {
                "format": caching.FORMAT,
                "use": f"{step.use}@{step.provided.plugin.distribution}",
                "with": caching.canonical_value(dict(step.params), content, self.plan.roots),
                "call": caching.canonical_value(dict(step.call), content, self.plan.roots),
                "seed": step.seed,
                "device": self.runtime.torch_device.type,
                "precision": self.runtime.precision,
                "batch_size": self.runtime.batch_size,
                "sources": {name: caching.sources(plugin) for name, plugin in plugins.items()},
                "versions": {name: caching.versions(name) for name in plugins},
            }
        )

    # -- what others see --------------------------------------------------------------------------------------------

    def _export(self, name: str, note: Mapping[str, Any]) -> None:
        """Copy a result into the run folder, with its pictures, unless it is there already."""
        folder, key = self.out / "steps" / name, self.keys[name]
        # the key alone is not enough: the paths in a recipe count in it from the granted folder on
        content = {"key": key, "parameters": storage.digest(repr(dict(self.plan.steps[name].params)))}
        if storage.is_complete(folder) and storage.read_json(folder / "content.json") == content:
            return
        with storage.directory(folder) as new:
            if note["type"] in caching.RECIPES:  # not the cache's: its recipe may name the same files in another place
                saving.save_result(self._load(name), new / "result")
            else:
                shutil.copytree(self.cache.result(key), new / "result")
            (new / "figures").mkdir()
            for figure_name, picture in _pictures(self._load(name), name).items():
                (new / "figures" / f"{figure_name}.png").write_bytes(picture)
            storage.write_json(new / "content.json", content)

    def _notify(self, hook: str, step: Planned, **more: Any) -> None:
        self.host.notify(hook, step=step.name, use=step.use, **more)

    def _failed(self, name: str, step: Planned, error: BaseException) -> None:
        self._notify("genxai_step_failed", step, error=error)
        status = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
        self.manifest.failed(name, f"{type(error).__name__}: {error}")
        self.manifest.write(self.out, status)

    @staticmethod
    def _told(step: Planned, error: BaseException) -> BaseException:
        if isinstance(error, Interrupted):
            return Interrupted(f"steps.{step.name}: {error}")
        if isinstance(error, KeyboardInterrupt):
            return Interrupted(
                f"steps.{step.name}: interrupted; the steps before it are kept, the same command goes on"
            )
        if not isinstance(error, Exception):
            return error
        kind = "" if isinstance(error, GenxaiError) else f"{type(error).__name__}: "
        told = StepFailed(f"steps.{step.name} ({step.use}): {kind}{error}")
        told.exit_code = error.exit_code if isinstance(error, GenxaiError) else 1
        return told


def _pictures(result: Any, name: str) -> dict[str, bytes]:
    """Draw a result. A drawing that fails costs the picture, not the result."""
    from ..plots import png
    from ..report import figures_of

    try:
        return {figure_name: png(figure) for figure_name, figure in figures_of(result).items()}
    except Exception as error:
        told = f"steps.{name}: its result cannot be drawn: {type(error).__name__}: {error}"
        warnings.warn(told, GenxaiWarning, stacklevel=2)
        return {}


def _claim(out: Path) -> None:
    """Make the run folder, refusing one that holds something else."""
    if out.exists() and not out.is_dir():
        raise StorageError(f"--out {out}: is a file; choose a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise StorageError(f"--out {out}: holds something that is not a genxai run; choose a new or empty folder")
    links = [p for p in (out / "manifest.json", out / "steps", *out.glob("steps/*")) if p.is_symlink()]
    if links:
        raise StorageError(f"--out {out}: {links[0]} is a link and may lead elsewhere; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from None


# -- the verb of each kind --------------------------------------------------------------------------------------

Verb = Callable[[Any, dict[str, Any], Runtime], Any]


def _itself(component: Any, call: dict[str, Any], runtime: Runtime) -> Any:
    return component


def _target(value: Any) -> Any:
    """Return labels as class indices: samples stand for their labels."""
    return getattr(value, "labels", value)


def _explain(component: Any, call: dict[str, Any], runtime: Runtime) -> Any:
    model, inputs = call.pop("model", None), call.pop("inputs", None)
    return component.explain(model, inputs, target=_target(call.get("target")), runtime=runtime)


VERBS: Mapping[str, Verb] = {
    "dataset": lambda component, call, runtime: component.load(**call, runtime=runtime),
    "trainer": lambda component, call, runtime: component.fit(**call, runtime=runtime),
    "explainer": _explain,
    "metric": lambda component, call, runtime: component.measure(**call, runtime=runtime),
    "generator": _itself,
    "discriminator": _itself,
    "segmenter": _itself,
}


def load_run(out: Path | str, step: str) -> Any:
    """Load a step's result from a run folder.

    Raises
    ------
    StorageError
        If the folder is not a run, has no such step, or is damaged.
    """
    out = Path(out)
    if not (out / "manifest.json").is_file():
        raise StorageError(f"{out}: is not a run folder (it has no manifest.json)")
    steps = storage.read_json(out / "manifest.json")["steps"]
    if step not in steps:
        raise InputError(f"{out} has no step {step!r}; it has: {', '.join(steps)}")
    return saving.load_result(out / "steps" / step / "result")
