"""What a run folder says of itself: `hashes`, which two equal runs share bit for bit, and apart from it the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import __version__, registry, storage
from ..component import Spec
from ..errors import StorageError
from ..runtime import Runtime
from .cache import beneath, versions
from .plan import Plan
from .references import Reference


class Manifest:
    """The manifest of a run that is going on.

    Parameters
    ----------
    plan
        What runs.
    runtime
        Where.
    command
        The command line that started it.
    """

    def __init__(self, plan: Plan, runtime: Runtime, command: str) -> None:
        self.before: dict[str, Any] = {}
        pipeline = plan.source.pipeline
        resolved = pipeline.model_dump(by_alias=True, exclude_defaults=True)
        self.value: dict[str, Any] = {
            "genxai": __version__,
            "name": pipeline.name,
            "title": pipeline.title,
            "description": pipeline.description,
            "seed": pipeline.seed,
            "status": "running",
            "command": command,
            "order": list(plan.steps),
            "pipeline": resolved,
            "steps": {
                name: {
                    "use": step.use,
                    "kind": step.kind,
                    "with": plain(dict(step.params), plan.roots),
                    "call": plain(dict(step.call), plan.roots),
                    "seed": step.seed,
                    "status": "not run",
                    "seconds": None,
                    "result": None,
                    "summary": "",
                    "error": None,
                }
                for name, step in plan.steps.items()
            },
            "hashes": {"pipeline": storage.digest(resolved), "steps": {}},
            "environment": environment(runtime),
        }

    def done(self, name: str, key: str, note: Mapping[str, Any], *, cached: bool) -> None:
        """Record a step that ended. Its seconds are those of when it was computed, also where it was found."""
        self.value["steps"][name] |= {
            "status": "cached" if cached else "done",
            "seconds": note["seconds"],
            "result": note["type"],
            "summary": note["summary"],
        }
        self.value["hashes"]["steps"][name] = {"key": key, "files": note["files"]}

    def failed(self, name: str, error: str) -> None:
        """Record a step that raised."""
        self.value["steps"][name] |= {"status": "failed", "error": error}

    def pipeline_text(self) -> str:
        """Spell the pipeline as it runs, changes by ``--set`` included, as a pipeline file."""
        text = yaml.safe_dump(self.value["pipeline"], sort_keys=False, allow_unicode=True, width=100)
        return f"# The pipeline as it ran, by genxai {__version__}.\n{text}"

    def begin(self, out: Path) -> None:
        """Write it where there is none yet. An earlier run's stays until a step of this one has run."""
        path = out / "manifest.json"
        self.before = storage.read_json(path) if path.is_file() else {}
        if not isinstance(self.before, dict):
            raise StorageError(f"{path}: not the manifest of a run; choose another folder with --out")
        if not self.before:
            self.write(out, "running")

    def complete(self, out: Path) -> bool:
        """Write it as complete, and return whether the folder already held this very run, complete."""
        if self.before.get("status") == "complete" and self.before.get("hashes") == self.value["hashes"]:
            return True
        self.write(out, "complete")
        return False

    def write(self, out: Path, status: str) -> None:
        """Write it with a status: running, complete, failed or interrupted."""
        self.value["status"] = status
        storage.write_json(out / "manifest.json", self.value)


def plain(value: Any, roots: Sequence[Path]) -> Any:
    """Spell arguments as the pipeline file would, paths from the granted folder on: a report is passed on."""
    if isinstance(value, Reference):
        return value.text
    if isinstance(value, Spec):
        return {"use": value.use, **({"with": plain(dict(value.params), roots)} if value.params else {})}
    if isinstance(value, Path):
        return beneath(value, roots)
    if isinstance(value, list | tuple):
        return [plain(v, roots) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v, roots) for k, v in value.items()}
    return value


def environment(runtime: Runtime) -> dict[str, Any]:
    """Versions and hardware: what may differ between two runs that are equal in `hashes`."""
    import torch

    device = runtime.torch_device
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "processes": runtime.processes,
        "precision": runtime.precision,
        "distributions": distributions(),
    }


def distributions() -> dict[str, str]:
    """Versions of genxai, its plugins, and what they depend on."""
    names = {p.distribution for p in registry.default().host.plugins}
    found = {library: version for name in names for library, version in versions(name).items()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))
