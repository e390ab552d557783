"""From a run folder to one HTML file that needs nothing else: no scripts, no network, nothing of the run but text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from .. import registry, storage
from ..errors import StorageError
from . import graph
from .chapters import Chapter, chapters
from .figures import Embedded, embed
from .section import Picture
from .steps import FINISHED, Notify, Step, read_step
from .text import Facts, as_yaml, clip, linked, printable, short

MAX_BYTES = 10_000_000
"""Size of a report."""

HERE = Path(__file__).parent


def write_report(run: Path | str, *, notify: Notify | None = None) -> Path:
    """Write ``report.html`` into a run folder: the same folder gives the same bytes.

    Everything that the folder holds is taken for untrusted: names and texts are escaped, pictures are decoded and
    encoded again, nothing outside the folder is opened, and the page forbids itself scripts and the network.

    Parameters
    ----------
    run
        A run folder with its ``manifest.json``. A step that failed, did not run, or whose result cannot be read is
        shown with the reason.
    notify
        Calls a hook on all plugins; default: the installed plugins' host.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    StorageError
        If there is no manifest, or it is not one.
    """
    run = Path(run)
    manifest = _manifest(run)
    page = render(run, manifest, notify or registry.default().host.notify)
    target = run / "report.html"
    storage.write_text(target, page)
    return target


MAX_STEPS = 1000
"""As many as a pipeline may have."""


def render(run: Path, manifest: Mapping[str, Any], notify: Notify, max_bytes: int = MAX_BYTES) -> str:
    """Return the page, below ``max_bytes`` whatever pictures there are."""
    entries = _entries(manifest)
    seed = manifest.get("seed")
    steps = [read_step(run, i, name, entry, seed, notify) for i, (name, entry) in enumerate(entries.items(), 1)]
    told = chapters(steps)
    context = _context(run, manifest, entries, steps, told)
    pictures = list(_pictures(told))
    bare = _page(context, {}, "")
    margin = 2_000 + 600 * len(pictures)  # notes on what was left out, and sizes
    embedded, note = embed(pictures, max_bytes - len(bare.encode()) - margin)
    return _page(context, {id(p): e for p, e in zip(pictures, embedded)}, note)


def _manifest(run: Path) -> Mapping[str, Any]:
    path = run / "manifest.json"
    manifest = storage.read_json(path)
    steps = manifest.get("steps") if isinstance(manifest, dict) else None
    if not isinstance(steps, dict) or not all(isinstance(entry, dict) for entry in steps.values()):
        raise StorageError(f"{path}: not the manifest of a genxai run (it has no steps); name the folder of a run")
    return manifest  # type: ignore[no-any-return]


def _entries(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the steps in their order; one that only the order or only the steps name is shown too."""
    steps, order = manifest["steps"], manifest.get("order")
    names = [n for n in order if isinstance(n, str)] if isinstance(order, list) else []
    shown = list(dict.fromkeys([*names, *sorted(steps)]))
    if len(shown) > MAX_STEPS:
        raise StorageError(
            f"a manifest of {len(shown):,} steps was not written by genxai; at most {MAX_STEPS:,} are shown"
        )
    return {name: steps.get(name, {}) for name in shown}


def _context(
    run: Path,
    manifest: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
    steps: list[Step],
    told: list[Chapter],
) -> dict[str, Any]:
    name = clip(manifest.get("name") or run.resolve().name, 200)
    environment = manifest.get("environment")
    environment = environment if isinstance(environment, dict) else {}
    distributions = environment.get("distributions")
    machine = Facts()
    for key, value in environment.items():
        if key != "distributions":
            machine.add(key, value)
    versions = Facts()
    for key, value in distributions.items() if isinstance(distributions, dict) else ():
        versions.add(key, value)
    hashes = manifest.get("hashes")
    return {
        "title": clip(manifest.get("title") or name, 300),
        "name": name,
        "description": [p for p in clip(manifest.get("description") or "", 5000).split("\n\n") if p.strip()],
        "status": clip(manifest.get("status") or "unknown", 40),
        "genxai": clip(manifest.get("genxai") or "?", 40),
        "seed": short(manifest.get("seed")),
        "command": clip(manifest.get("command") or ""),
        "steps": steps,
        "chapters": told,
        "counts": {state: sum(s.status == state for s in steps) for state in ("done", "cached", "failed", "not run")},
        "seconds": sum(s.seconds or 0.0 for s in steps),
        "finished": FINISHED,
        "sketch": graph.sketch(entries),
        "numbers": {s.name: s.number for s in steps},
        "pipeline": _pipeline(run),
        "machine": machine,
        "versions": versions,
        "hashes": as_yaml(hashes) if isinstance(hashes, dict) else "",
    }


def _pipeline(run: Path) -> str:
    path = run / "pipeline.yaml"
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return clip(file.read(1_000_000).decode("utf-8", "replace"), 200_000)


def _pictures(told: list[Chapter]) -> Iterator[Picture]:
    for chapter in told:
        yield from chapter.compared
        for step in chapter.steps:
            yield from step.pictures
            for section, _, _ in step.sections:
                yield from section.figures


def _page(context: Mapping[str, Any], embedded: Mapping[int, Embedded], note: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"linked": linked, "duration": _duration}
    style = (HERE / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("report.html.j2").render(
        **context,
        style=Markup(style),  # our own file; the page's policy holds its hash
        style_hash=digest,
        embedded=lambda picture: embedded.get(id(picture), Embedded(reason="not encoded")),
        size_note=note,
    )
    return printable(page)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
