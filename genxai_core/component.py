"""What a plugin declares (`Component`) and what a pipeline nests (`Spec`). Imports neither torch nor a plugin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import BadComponent

API = 1
"""Version of the plugin contract. A component made for another one is refused by name."""

KINDS = (
    "generator",
    "discriminator",
    "explainer",
    "metric",
    "trainer",
    "dataset",
    "segmenter",
    "explanation",
)
"""The kinds of component: four of the framework, four that support them."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Component:
    """One registry entry.

    Parameters
    ----------
    kind
        One of `KINDS`.
    name
        Kebab-case, unique within its kind: ``gan-dissection``. The full name is ``kind/name``.
    target
        ``"package.module:Attribute"``, imported when the component is first used, not before.
    summary
        One line for ``genxai list``.
    api
        Version of the plugin contract that the component was written for.

    Raises
    ------
    BadComponent
        If one of them is malformed.
    """

    kind: str
    name: str
    target: str
    summary: str
    api: int = API

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadComponent(f"component {self.name!r}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise BadComponent(f"component name {self.name!r} is not kebab-case (such as 'integrated-gradients')")
        if not isinstance(self.target, str) or not _TARGET.fullmatch(self.target):
            raise BadComponent(f"{self.full_name}: target {self.target!r} is not 'package.module:Attribute'")
        if not isinstance(self.summary, str) or not self.summary.strip() or self.summary.splitlines() != [self.summary]:
            raise BadComponent(f"{self.full_name}: summary must be one line that is not empty")

    @property
    def full_name(self) -> str:
        """``kind/name``."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Spec:
    """A component by name with its parameters, not built yet: what a nested ``{use:, with:}`` becomes.

    A trainer that receives ``generator=Spec("generator/dcgan")`` builds it when the data have told the image size:
    ``generator.build(size=16, channels=1)``.

    Parameters
    ----------
    use
        Full registry name.
    params
        Constructor parameters (the pipeline's ``with``).
    """

    use: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def build(self, **decided: Any) -> Any:
        """Build the component, filling in what the data decide.

        Parameters
        ----------
        **decided
            Values such as ``size``, ``channels``, ``num_classes``. Each is used only where the constructor has such a
            parameter and the spec does not set it.

        Raises
        ------
        RegistryError, BadParameter
            As `genxai_core.create` does.
        """
        from . import parameters, registry

        accepted = {p.name for p in parameters.of(registry.resolve(self.use))}
        filled = {k: v for k, v in decided.items() if k in accepted and k not in self.params}
        return registry.create(self.use, **{**filled, **self.params})
