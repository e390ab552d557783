"""The form of a pipeline file, and reading it: every refusal is one line with file, line, place and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from .. import safe_yaml, storage
from ..errors import PipelineError, StorageError

StepName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
ComponentName = Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-z0-9-]+(@[A-Za-z0-9._-]+)?$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Step(BaseModel):
    """One step: a component, its constructor's parameters, and what it is called with."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    use: ComponentName = Field(description="Registry name of the component: kind/name, or kind/name@distribution.")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="Constructor parameters: literals, $references, nested {use:}."
    )
    call: dict[str, Any] = Field(
        default_factory=dict, description="What the component is called with: model, inputs, target, data, real, …"
    )
    seed: Seed | None = Field(default=None, description="This step's own seed; default: the pipeline's.")


class Pipeline(BaseModel):
    """A pipeline file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    genxai: Literal[1] = Field(description="Version of the file format.")
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}$")] = Field(
        description="What the run is called."
    )
    title: Annotated[str, StringConstraints(max_length=200)] = Field(default="", description="The report's title.")
    description: Annotated[str, StringConstraints(max_length=5000)] = Field(
        default="", description="What the report says first."
    )
    seed: Seed = Field(default=0, description="Seed of every step that does not set its own.")
    steps: Annotated[dict[StepName, Step], Field(min_length=1, max_length=1000)] = Field(
        description="The steps, by name. They run in an order that serves their references."
    )


@dataclass(frozen=True)
class Source:
    """A pipeline together with the file that it came from, for messages and for paths in it."""

    pipeline: Pipeline
    document: safe_yaml.Document
    folder: Path

    def error(self, message: str, *path: str | int) -> PipelineError:
        """Return an error that names file, line and place."""
        return PipelineError(f"{self.document.place(*path)}: {message}")


def read(path: Path | str, sets: Sequence[str] = ()) -> Source:
    """Read a pipeline file.

    Parameters
    ----------
    path
        The YAML file.
    sets
        Changes ``a.b.c=value``, applied before validation; the value is read as YAML.

    Raises
    ------
    PipelineError
        One line: file, line, place, what is wrong, how to mend it.
    """
    path = Path(path)
    try:
        document = storage.read_yaml(path)
    except StorageError as error:
        raise PipelineError(str(error)) from None
    return from_document(document, path.resolve().parent, sets)


def from_document(document: safe_yaml.Document, folder: Path, sets: Sequence[str] = ()) -> Source:
    """Validate a parsed document; see `read`."""
    if not isinstance(document.value, dict):
        raise PipelineError(f"{document.place()}: not a pipeline; it must begin with 'genxai: 1' and name its steps")
    for change in sets:
        _set(document.value, change)
    try:
        pipeline = Pipeline.model_validate(document.value)
    except ValidationError as error:
        raise _one_line(error.errors(), document) from None
    return Source(pipeline, document, folder)


def _set(value: dict[str, Any], change: str) -> None:
    """Apply one ``a.b=c``."""
    target, equals, text = change.partition("=")
    parts = target.strip().split(".")
    if not equals or not all(parts):
        raise PipelineError(f"--set {change!r}: write it as a.b.c=value, such as steps.gan.with.steps=10")
    at: Any = value
    for i, part in enumerate(parts[:-1]):
        if not isinstance(at, dict) or (part not in at and part not in ("with", "call")):
            known = ", ".join(at) if isinstance(at, dict) else "nothing"
            raise PipelineError(f"--set {change!r}: {'.'.join(parts[: i + 1])} does not exist; there is: {known}")
        at = at.setdefault(part, {})
    if not isinstance(at, dict):
        raise PipelineError(f"--set {change!r}: {'.'.join(parts[:-1])} is not a mapping")
    try:
        at[parts[-1]] = safe_yaml.parse(text, "--set").value
    except StorageError as error:
        raise PipelineError(f"--set {change!r}: {error}") from None


def _one_line(errors: Sequence[Any], document: safe_yaml.Document) -> PipelineError:
    """Say the most telling of pydantic's errors in our words."""
    error = min(errors, key=lambda e: (e["type"] != "extra_forbidden", len(e["loc"])))
    place = tuple(p for p in error["loc"] if p != "[key]")
    kind, value = error["type"], error.get("input")
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "…"
    if kind == "extra_forbidden":
        allowed = _keys(Step if len(place) > 2 else Pipeline)
        near = difflib.get_close_matches(str(place[-1]), allowed, n=1)
        said = f"unknown key{f'; did you mean {near[0]!r}?' if near else ''} (allowed: {', '.join(allowed)})"
    elif kind == "missing":
        said = f"is missing; add it{_examples().get(str(place[-1]), '')}"
    elif kind == "string_pattern_mismatch" and "[key]" in error["loc"]:
        said = "step names are lower-case letters, digits, '-' and '_', beginning with a letter; rename it"
    elif kind == "string_pattern_mismatch" and place[-1] == "use":
        said = f"{shown} is not a component's name; write kind/name, such as explainer/cam"
    elif kind == "literal_error":
        said = f"{shown} is not a known format version; write 'genxai: 1'"
    else:
        said = f"{shown} does not fit: {_plain(error['msg'])}"
    return PipelineError(f"{document.place(*place)}: {said}")


def _plain(message: str) -> str:
    message = re.sub(r"^Input should", "it should", message)
    return re.sub(r"a valid dictionary", "a mapping (key: value)", message)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _examples() -> Mapping[str, str]:
    return {"genxai": ": 'genxai: 1'", "name": ": 'name: my-run'", "use": ": 'use: kind/name'", "steps": ""}


def json_schema(names: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema of pipeline files, for editors.

    Parameters
    ----------
    names
        Component names that an editor shall offer.
    """
    schema = Pipeline.model_json_schema(by_alias=True)
    use = schema["$defs"]["Step"]["properties"]["use"]
    pattern = use.pop("pattern")
    use.pop("type")
    use["anyOf"] = [{"enum": list(names)}, {"type": "string", "pattern": pattern}]
    schema["properties"]["steps"]["additionalProperties"] = False  # what no pattern matches is not a step's name
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema
