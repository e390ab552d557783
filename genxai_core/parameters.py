"""What a component's constructor accepts: read from its signature and docstring, checked before it is called."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import pretrained
from .component import Spec
from .errors import BadParameter

EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One constructor or call parameter: its name, annotation as written, default, and documentation."""

    name: str
    annotation: str
    default: Any = EMPTY
    doc: str = ""

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is EMPTY


def of(target: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Read the parameters of a class's constructor or of a function, in order, with their numpydoc texts."""
    docs = _numpydoc(target)
    return tuple(
        Parameter(
            p.name,
            "" if p.annotation is EMPTY else _spell(p.annotation),
            p.default,
            docs.get(p.name, ""),
        )
        for p in _signature(target).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    )


def check(
    target: Callable[..., Any],
    params: Mapping[str, Any],
    *,
    name: str,
    where: str = "",
    unknown_values: Callable[[Any], bool] = lambda value: False,
    partial: bool = False,
) -> dict[str, Any]:
    """Check parameters against a signature: their names, that none is missing, and their types.

    Parameters
    ----------
    target
        The class or function that is to be called.
    params
        What it is to be called with.
    name
        The component's full name, for the message.
    where
        The place in a file (``pipeline.yaml: steps.cams.with``), for the message.
    unknown_values
        Says of a value that it stands for one not known yet (a reference); its type is not checked.
    partial
        Whether parameters may be missing still, because the data will decide them.

    Returns
    -------
    dict
        The parameters, literals converted to what the annotation says (a YAML list to a tuple, a string to a Path).

    Raises
    ------
    BadParameter
        With the accepted names, or the type that was expected.
    """
    signature = _signature(target)
    accepted = [p.name for p in of(target)]
    place = f"{where}." if where else f"{name}: "
    for key in params:
        if key not in accepted:
            near = difflib.get_close_matches(str(key), accepted, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            listed = ", ".join(accepted) if accepted else "none"
            raise BadParameter(f"{place}{key}: {name} has no such parameter{hint} (it accepts: {listed})")
    missing = [p.name for p in of(target) if p.required and p.name not in params]
    chosen = params.get(pretrained.PARAMETER) if pretrained.is_own(target) else None
    if missing and not partial and chosen is None:
        raise BadParameter(f"{where or name}: {name} needs {', '.join(map(repr, missing))}, which is not given")
    checked: dict[str, Any] = {}
    for key, value in params.items():
        if unknown_values(value):
            checked[key] = value
        else:
            checked[key] = _typed(target, signature.parameters[key], value, f"{place}{key}", unknown_values)
    if isinstance(chosen, str):
        known = {k: v for k, v in checked.items() if k != pretrained.PARAMETER and not unknown_values(v)}
        pretrained.agree(target, chosen, known, use=name, where=where)
    return checked


def _signature(target: Callable[..., Any]) -> inspect.Signature:
    """Return the signature; a class without a constructor of its own takes nothing, not ``*args, **kwargs``."""
    if inspect.isclass(target) and target.__init__ is object.__init__:
        return inspect.Signature()
    return pretrained.extend(inspect.signature(target), target)


def resolved(target: Callable[..., Any], annotation: Any) -> Any:
    """Return what an annotation names where the target was written.

    It stays the text that it is if a name in it exists for type checkers only (such as Tensor).
    """
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    try:
        return eval(annotation, getattr(function, "__globals__", {}), {"Literal": Literal})  # noqa: S307 - the plugin's own source
    except (NameError, AttributeError):
        return annotation


def _spell(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _typed(
    target: Callable[..., Any],
    parameter: inspect.Parameter,
    value: Any,
    place: str,
    unknown_values: Callable[[Any], bool],
) -> Any:
    from pydantic import ValidationError

    annotation = parameter.annotation
    if annotation is EMPTY or _contains(value, unknown_values):
        return value
    annotation = resolved(target, annotation)
    if isinstance(annotation, str):
        return value  # the constructor will see
    mend = "; make it a step of its own and refer to that: $step" if isinstance(value, Spec) else ""
    refused = BadParameter(f"{place}: {_shown(value)} does not fit {_spell(parameter.annotation)}{mend}")
    adapter = _adapter(annotation)
    if adapter is None:
        if not _is_instance(value, annotation):
            raise refused
        return value
    try:
        if _is_literal(value):  # JSON's strict rules: a list may become a tuple and a string a Path, "3" never an int
            return adapter.validate_json(json.dumps(value), strict=True)
        adapter.validate_python(value, strict=True)
        return value
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "needs_python_object":  # a literal where an object is wanted: pydantic speaks of itself
            raise refused from None
        raise refused if mend else BadParameter(f"{refused} ({problem['msg']})") from None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else text[:57] + "..."


def _adapter(annotation: Any) -> Any:
    """Return pydantic's validator; None where it cannot read the annotation, such as a dataclass of tensors."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    for config in (ConfigDict(arbitrary_types_allowed=True), None):
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=config)
            adapter.rebuild(raise_errors=True)
        except (PydanticUserError, NameError):
            continue
        return adapter
    return None


def _is_instance(value: Any, annotation: Any) -> bool:
    try:
        return isinstance(value, annotation)
    except TypeError:  # such as list[Samples]: the constructor will see
        return True


def _is_literal(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_literal(v) for v in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_literal(v) for k, v in value.items())
    return value is None or type(value) in (bool, int, float, str)


def _contains(value: Any, wanted: Callable[[Any], bool]) -> bool:
    if isinstance(value, list | tuple):
        return any(_contains(v, wanted) for v in value)
    if isinstance(value, dict):
        return any(_contains(v, wanted) for v in value.values())
    return wanted(value)


def _numpydoc(target: Callable[..., Any]) -> dict[str, str]:
    """Read the ``Parameters`` section of a numpydoc docstring: name -> text on one line."""
    docs: dict[str, str] = {}
    sources = [target.__init__, target] if inspect.isclass(target) else [target]
    for source in sources:
        lines = (inspect.getdoc(source) or "").splitlines()
        for start in range(len(lines) - 1):
            if lines[start].strip() == "Parameters" and set(lines[start + 1].strip()) == {"-"}:
                docs.update(_section(lines[start + 2 :]))
                break
    return docs


def _section(lines: list[str]) -> dict[str, str]:
    docs: dict[str, list[str]] = {}
    names: list[str] = []
    for i, line in enumerate(lines):
        underlined = i + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[i + 1].strip())
        if underlined:
            break
        if line and not line.startswith(" "):
            names = [n.strip().lstrip("*") for n in line.split(":")[0].split(",")]
            docs.update({n: [] for n in names})
        elif names:
            for n in names:
                docs[n].append(line.strip())
    return {n: " ".join(" ".join(t).split()) for n, t in docs.items()}
