"""Results: frozen dataclasses of tensors and plain values that save, load, plot and tabulate themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from . import storage
from .errors import ExplainerError, RegistryError, StorageError
from .samples import Index, indices

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from torch import Tensor

FORMAT = 1
"""Version of the saved form."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Base of all results. A subclass is a frozen dataclass, names itself in ``type_name``, and is done.

    A third party's type is registered as ``Component("explanation", type_name, "module:Class", …)``, so that
    `Explanation.load` finds it.

    Attributes
    ----------
    type_name
        Its name under kind ``explanation``.
    per_sample
        Fields whose first axis is the sample; they are what indexing and joining act on.
    provenance
        How it was made: explainer, parameters, model, seed, versions. Stamped by `Explainer.explain`.
    """

    type_name: ClassVar[str] = ""
    per_sample: ClassVar[tuple[str, ...]] = ()

    _: KW_ONLY
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    # -- samples --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of samples; 1 for a result that is not per sample."""
        for name in self.per_sample:
            value = getattr(self, name)
            if value is not None:
                return len(value)
        return 1

    def __getitem__(self, index: Index) -> Self:
        """Select samples, keeping what is not per sample."""
        rows = indices(index, len(self))
        return dataclasses.replace(self, **{n: _take(getattr(self, n), rows) for n in self.per_sample})

    def __iter__(self) -> Iterator[Self]:
        """Go through the samples, each as a result of length one."""
        return (self[row] for row in range(len(self)))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Join results of batches. A field per sample that one of them lacks is left out, if its type does not fill it.

        Of notes and provenance the first part's are kept.

        Raises
        ------
        ExplainerError
            If there are none, they are of several types, the type has nothing per sample and there is more than one,
            a field that is not per sample differs, or one that is has samples of several shapes.
        """
        if not parts:
            raise ExplainerError("there are no results to join")
        if len(parts) > 1 and not cls.per_sample:
            raise ExplainerError(
                f"{cls.__name__} declares no per_sample fields, so results of batches cannot be joined"
            )
        kinds = dict.fromkeys(map(type, parts))
        if len(kinds) > 1 or not isinstance(parts[0], cls):
            found = ", ".join(kind.__name__ for kind in kinds)
            raise ExplainerError(f"{cls.__name__}: results of other types cannot be joined: {found}")
        first, *others = parts = parts[0]._aligned(parts)
        for name in (f.name for f in dataclasses.fields(first) if f.name not in (*first.per_sample, *_OF_THE_FIRST)):
            if not all(_same(getattr(first, name), getattr(part, name)) for part in others):
                raise ExplainerError(f"results that differ in their {name} cannot be joined; it is not per sample")
        joined = {name: _join(name, [getattr(part, name) for part in parts]) for name in first.per_sample}
        return dataclasses.replace(first, **joined)

    @classmethod
    def _aligned(cls, parts: Sequence[Self]) -> Sequence[Self]:
        """Bring parts to one form before `concat` joins them, such as by filling in what only some have."""
        return parts

    # -- storage --------------------------------------------------------------------------------------------------

    def save(self, path: Path | str) -> Path:
        """Write a folder with ``explanation.json`` and ``arrays.safetensors``, crash-safely.

        Raises
        ------
        StorageError
            If a field holds what cannot be saved.
        """
        path = Path(path)
        with storage.directory(path) as folder:
            self._write(folder)
        return path

    def _write(self, folder: Path) -> None:
        if not self.type_name:
            raise StorageError(f"{type(self).__name__} has no type_name; set it and register kind 'explanation'")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        self._write_values(folder, self.type_name, values)

    @staticmethod
    def _write_values(folder: Path, type_name: str, values: Mapping[str, Any]) -> None:
        tree, tensors = storage.pack(values)
        storage.write_tensors(folder / "arrays.safetensors", tensors)
        head = {"format": FORMAT, "type": f"explanation/{type_name}", "fields": tree}
        storage.write_json(folder / "explanation.json", head, sort=False)

    @staticmethod
    def load(path: Path | str) -> Explanation:
        """Read what `save` wrote. A type that no installed plugin knows becomes a `GenericExplanation`.

        Raises
        ------
        StorageError
            If files are missing, changed, or of a later format.
        """
        from . import registry

        path = Path(path)
        storage.verify(path)
        head = storage.read_head(path / "explanation.json", FORMAT)
        name = str(head.get("type"))
        if not name.startswith("explanation/"):
            raise StorageError(f"{path}: type {name!r} is not an explanation")
        values = storage.unpack(head.get("fields"), storage.read_tensors(path / "arrays.safetensors"))
        if not isinstance(values, dict):
            raise StorageError(f"{path}: explanation.json has no fields; delete it and run again")
        try:
            kind: type[Explanation] = registry.resolve(name)
        except RegistryError:
            return GenericExplanation(name.partition("/")[2], values)
        try:
            return kind(**values)
        except TypeError as error:
            raise StorageError(f"{path}: was written by another version of {name}: {error}") from None

    # -- to look at -----------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """Return one row per sample (or per whatever the type counts), of plain values."""
        return []

    def to_dataframe(self) -> DataFrame:
        """Return `table` as a pandas DataFrame (``pip install pandas``)."""
        import pandas as pd

        return pd.DataFrame(self.table())

    def plot(self) -> Figure | None:
        """Draw it; None if there is nothing to draw."""
        return None

    def _repr_html_(self) -> str:
        from .plots import html

        count = f", {len(self)} samples" if self.per_sample else ""
        return html(self.plot(), f"{type(self).__name__}{count}")


@dataclass(frozen=True, eq=False)
class GenericExplanation(Explanation):
    """A saved result of a type that no installed plugin provides: its values, by field name."""

    original_type: str
    values: Mapping[str, Any]

    def _write(self, folder: Path) -> None:
        self._write_values(folder, self.original_type, self.values)


@dataclass(frozen=True, eq=False)
class Attribution(Explanation):
    """Maps over the input: how much each pixel speaks for the target. Signed and unnormalised.

    Parameters
    ----------
    maps
        ``[N, H, W]`` or ``[N, C, H, W]``, in the units that the explainer states. Positive speaks for the target.
    target
        ``[N]`` class indices that were explained; an integer stands for all.
    logits
        ``[N]`` the explained logits.
    baseline
        ``[N, C, H, W]`` the reference inputs, for methods that have one.
    delta
        ``[N]`` completeness error: Σ map − (f(x) − f(baseline)), for methods that promise it.
    images
        ``[N, C, H, W]`` what was explained, for the pictures.
    value_range
        That of ``images``.
    notes
        What the method decided for itself, such as the layer: shown under the picture.

    Raises
    ------
    ExplainerError
        If maps have another rank, or a field another length.
    """

    type_name: ClassVar[str] = "attribution"
    per_sample: ClassVar[tuple[str, ...]] = ("maps", "target", "logits", "baseline", "delta", "images")

    maps: Tensor
    target: Tensor | int = 0
    logits: Tensor | None = None
    baseline: Tensor | None = None
    delta: Tensor | None = None
    images: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        if self.maps.ndim not in (3, 4):
            raise ExplainerError(f"attribution maps must be [N, H, W] or [N, C, H, W], not {list(self.maps.shape)}")
        if isinstance(self.target, int):
            object.__setattr__(self, "target", torch.full((len(self.maps),), self.target, dtype=torch.long))
        for name in self.per_sample:
            value = getattr(self, name)
            if value is not None and len(value) != len(self.maps):
                raise ExplainerError(f"attribution: {name} has {len(value)} rows for {len(self.maps)} maps")

    def table(self) -> list[dict[str, Any]]:
        """Return one row per image: target, logit, sum, largest magnitude, share of positive mass, delta."""
        rows = []
        flat = self.maps.detach().double().flatten(1)
        mass = flat.abs().sum(1)
        for i in range(len(self)):
            row: dict[str, Any] = {"sample": i, "target": int(self.target[i])}  # type: ignore[index]
            if self.logits is not None:
                row["logit"] = float(self.logits[i])
            row["sum"] = float(flat[i].sum())
            row["max_abs"] = float(flat[i].abs().max())
            row["positive_share"] = float(flat[i].clamp(min=0).sum() / mass[i]) if mass[i] > 0 else 0.0
            if self.delta is not None:
                row["delta"] = float(self.delta[i])
            rows.append(row)
        return rows

    def plot(self, n: int = 8, title: str = "") -> Figure | None:
        """Draw the first n images with their maps below, in a diverging colour map centred on zero, with its scale.

        None if there are none.
        """
        from .plots import attribution_figure

        return attribution_figure(self, n=n, title=title) if len(self) else None


def _take(value: Any, rows: list[int]) -> Any:
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return type(value)(value[i] for i in rows)
    return value[rows]


_OF_THE_FIRST = ("notes", "provenance")


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a field are equal, tensors and NaN in them too; a list equals a tuple."""
    import numpy as np
    import torch

    if one is other:
        return True
    if any(isinstance(value, torch.Tensor | np.ndarray) for value in (one, other)):
        if one is None or other is None:
            return False
        one, other = torch.as_tensor(one).cpu(), torch.as_tensor(other).cpu()
        return one.shape == other.shape and bool(((one == other) | (one != one) & (other != other)).all())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (one != one and other != other)


def _join(name: str, values: list[Any]) -> Any:
    import torch

    if any(v is None for v in values):
        return None
    if not isinstance(values[0], torch.Tensor):
        return type(values[0])(item for value in values for item in value)
    shapes = list(dict.fromkeys(f"{list(value.shape[1:])} on {value.device}" for value in values))
    if len(shapes) > 1:
        raise ExplainerError(f"results cannot be joined: one sample of their {name} is {' and '.join(shapes)}")
    return torch.cat(values)
