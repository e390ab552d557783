"""What the report says of one step: read from the manifest and from the step's saved result."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import plots, registry, saving
from ..errors import GenxaiError, GenxaiWarning, RegistryError
from ..explanation import Attribution, Explanation, GenericExplanation
from ..interfaces import Dataset
from ..samples import Samples
from ..trained import Trained
from . import graph
from .figures import figures_of
from .section import Picture, Section
from .summary import summary_of, summary_values
from .text import Facts, Piece, Table, as_yaml, clip, linked, tabulate

Notify = Callable[..., list[Any]]

FINISHED = ("done", "cached")


@dataclass(frozen=True)
class About:
    """What a component is, in its plugin's words, and where it comes from; ``named`` where nothing else names it."""

    use: str
    summary: str
    paper: list[Piece]
    named: bool = False


@dataclass
class Step:
    """One step as the page shows it. ``result`` is None where there is none, and ``problem`` then says why."""

    number: int
    name: str
    use: str
    kind: str
    status: str
    seconds: float | None
    summary: str
    parents: list[str]
    about: list[About]
    setup: Facts
    error: str = ""
    problem: str = ""
    result: Any = None
    pictures: list[Picture] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    notes: Facts = field(default_factory=Facts)
    table: Table | None = None
    sections: list[tuple[Section, list[str], Table | None]] = field(default_factory=list)
    provenance: str = ""
    warnings: list[str] = field(default_factory=list)


def read_step(run: Path, number: int, name: str, entry: Mapping[str, Any], seed: Any, notify: Notify) -> Step:
    """Read a step; whatever is wrong with it is said in it, and nothing is raised. ``seed`` is the pipeline's."""
    use, seconds = str(entry.get("use", "")), entry.get("seconds")
    step = Step(
        number=number,
        name=clip(name, 200),
        use=clip(use, 200),
        kind=str(entry.get("kind") or use.partition("/")[0]),
        status=clip(entry.get("status") or "not run", 40),
        seconds=float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else None,
        summary=clip(entry.get("summary") or "", 500),
        parents=[clip(p, 200) for p in graph.parents(entry)],
        about=[_about(u, u != use) for u in dict.fromkeys([use, *_nested(entry.get("with"))])],
        setup=_setup(entry, seed),
        error=clip(entry.get("error") or ""),
    )
    if step.status not in FINISHED:
        return step
    folder = _inside(run, name)
    if folder is None:
        step.problem = "The manifest names a folder outside the run; it was not opened."
        return step
    try:
        step.result = saving.load_result(folder / "result")
    except Exception as error:  # a third party's class is built here; the reader is told, whatever it raises
        step.problem = f"The result cannot be read: {_said(error)}"
        _stored_pictures(step, folder)
        return step
    try:
        _describe(step, entry.get("with"))
    except Exception as error:  # table() may be a third party's
        step.problem = f"The result cannot be told in full: {_said(error)}"
    _draw(step, folder)
    _ask(step, notify)
    return step


def _setup(entry: Mapping[str, Any], seed: Any) -> Facts:
    """Return what a step was told. Its seed is said once, and only where it is not the pipeline's."""
    setup, own = Facts(), entry.get("seed")
    given = {group: dict(v) if isinstance(v := entry.get(group), Mapping) else {} for group in ("with", "call")}
    if given["with"].get("seed") == own:
        given["with"].pop("seed", None)
    for values in given.values():
        for key, value in values.items():
            setup.add(str(key), value)
    if own != seed:
        setup.add("step's seed" if "seed" in given["with"] else "seed", own)
    return setup


# -- the component ----------------------------------------------------------------------------------------------


def _about(use: str, named: bool) -> About:
    entry = registry.catalogue().get(use.partition("@")[0])
    try:
        summary = registry.default().find(use).component.summary
    except RegistryError:
        summary = entry.summary if entry else ""
    return About(clip(use, 200), clip(summary, 500), linked(entry.paper) if entry else [], named)


def _nested(value: Any) -> Iterator[str]:
    """Yield the components that are nested in parameters, however deep."""
    if isinstance(value, Mapping):
        if isinstance(value.get("use"), str):
            yield value["use"]
        for inner in value.values():
            yield from _nested(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _nested(inner)


def directions(use: str) -> dict[str, str]:
    """Return an arrow for each figure of a metric of which more, or less, is better."""
    try:
        declared = getattr(registry.resolve(use), "higher_is_better", {})
    except RegistryError:
        return {}
    better = declared if isinstance(declared, Mapping) else {}
    return {str(k): "↑" if up else "↓" for k, up in better.items() if up is not None}


# -- the result -------------------------------------------------------------------------------------------------


def _inside(run: Path, name: str) -> Path | None:
    named = "\0" not in name and len(name) <= 60
    folder = (run / "steps" / name).resolve() if named else run.resolve()
    return folder if folder.is_relative_to(run.resolve() / "steps") and folder != run.resolve() / "steps" else None


def _said(error: BaseException) -> str:
    return clip(error if isinstance(error, GenxaiError) else f"{type(error).__name__}: {error}", 1000)


def _describe(step: Step, given: Any) -> None:
    result, given = step.result, given if isinstance(given, Mapping) else {}
    step.summary = step.summary or summary_of(result)
    if isinstance(result, Trained):
        for name, model in result.models.items():
            step.facts.add(name, summary_of(model))
        for key, value in result.info.items():
            if key not in given or given[key] != value:  # else it stands among the parameters
                step.facts.add(str(key).replace("_", " "), value)
    elif isinstance(result, Samples | Dataset):
        step.facts.add("images", f"{len(result)} of {'×'.join(map(str, result.image_shape))} (C×H×W)")
        step.facts.add("pixel values", "{:g} to {:g}".format(*result.value_range))
    elif isinstance(result, Mapping):
        if step.kind != "metric":  # metrics are gathered in one table per chapter
            step.table = tabulate([result])
    elif isinstance(result, Explanation):
        step.provenance = as_yaml(result.provenance) if result.provenance else ""
        rows = result.table()
        step.table = tabulate(rows, sortable=True) if rows else None
        notes = getattr(result, "notes", None)
        for key, value in notes.items() if isinstance(notes, Mapping) else ():
            if key == "meaning":  # stands at the scale
                continue
            step.notes.add(str(key).replace("_", " "), value)
        for key, value in summary_values(result).items():
            step.facts.add(key, value)
        if isinstance(result, GenericExplanation):
            kind = clip(result.original_type, 100)
            step.problem = f"No installed plugin knows the result type {kind!r}: only its fields are shown."
            for key, value in result.values.items():
                step.facts.add(key, value)


def _draw(step: Step, folder: Path) -> None:
    if isinstance(step.result, GenericExplanation):
        return _stored_pictures(step, folder)
    try:
        found = figures_of(step.result)
    except Exception as error:  # plot() may be a third party's
        step.problem = f"The pictures could not be drawn: {_said(error)}"
        return _stored_pictures(step, folder)
    for name, figure in found.items():
        alt, caption = _words(step, name)
        step.pictures.append(Picture(figure, alt, caption))
    return None


def _words(step: Step, name: str) -> tuple[str, str]:
    """Return alt text and caption of a standard picture."""
    result = step.result
    if isinstance(result, Attribution):
        return f"Signed maps of {step.name}, each below the image that it explains", maps_caption([result])
    if isinstance(result, Trained):
        return f"Training curves of {step.name}", "Pale: as measured. Bold: running mean."
    if isinstance(result, Explanation):
        captions = getattr(result, "captions", None)
        caption = captions.get(name, "") if isinstance(captions, Mapping) else ""
        return f"The {'explanation' if name == 'explanation' else name} of {step.name}", clip(caption, 1000)
    return f"Grid of images: {step.summary}", ""


def maps_caption(results: Iterable[Attribution]) -> str:
    """Say how to read maps."""
    results = list(results)
    targets = sorted({int(t) for r in results if plots.meaning_of(r) == plots.MEANING for t in r.target})  # type: ignore[union-attr]
    shown = ", ".join(map(str, targets[:8])) + (", …" if len(targets) > 8 else "")
    summed = "; channels are summed" if any(r.maps.ndim == 4 and r.maps.shape[1] > 1 for r in results) else ""
    meanings = list(dict.fromkeys(plots.meaning_of(r) for r in results))
    usual = plots.MEANING in meanings
    said = [f"red pixels speak for the target logit (index {shown}), blue ones against it"] if usual else []
    beside = "beside the scale that says so, " if usual else ""
    said += [f"{beside}red is {top}, blue is {low}" for low, top in meanings if (low, top) != plots.MEANING]
    text = "; ".join([*said, "white is zero"])
    return (
        f"{text[0].upper()}{text[1:]}. Each map has its own scale, symmetric about zero; its end is written "
        f"below{summed}."
    )


def _stored_pictures(step: Step, folder: Path) -> None:
    """Fall back on the pictures that the run left, where its result cannot be drawn."""
    for path in sorted((folder / "figures").glob("*.png")):
        if path.resolve().parent != folder / "figures" or not path.is_file() or path.stat().st_size > 20_000_000:
            step.warnings.append(f"The stored picture {clip(path.name, 100)} was not opened: a link, or too large.")
            continue
        name = clip(path.stem, 100) or "picture"
        step.pictures.append(
            Picture(path.read_bytes(), f"Stored picture {name}", f"{name}, as drawn when the step ran")
        )


def _ask(step: Step, notify: Notify) -> None:
    """Collect the sections of plugins; one that fails is named in the report and warned about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers = notify("genxai_report_sections", result=step.result)
        for answer in answers:
            step.sections += [_section(s) for s in _sections(answer, step)]
    for warning in caught:
        if issubclass(warning.category, GenxaiWarning):
            step.warnings.append(clip(warning.message, 1000))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _sections(answer: Any, step: Step) -> list[Section]:
    """Flatten what a hook returned: a section, or any iterable of them, such as a generator that fails midway."""
    if isinstance(answer, Section):
        return [answer]
    found: list[Section] = []
    try:
        for section in answer:
            if not isinstance(section, Section):
                raise TypeError(f"it holds a {type(section).__name__}, not a Section")
            found.append(section)
    except Exception as error:  # a plugin's generator
        step.warnings.append(f"A plugin's report sections are incomplete: {_said(error)}")
    return found


def _section(section: Section) -> tuple[Section, list[str], Table | None]:
    paragraphs = [p for p in re.split(r"\n\s*\n", clip(section.text, 20_000)) if p.strip()]
    return section, paragraphs, tabulate(section.table, limit=200, sortable=True) if section.table else None
