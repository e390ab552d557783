"""What a trainer returns: the models, the history of the training, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from torch import nn


@dataclass(frozen=True, eq=False)
class Trained:
    """Trained models, by name and as attributes: ``trained.generator``.

    Parameters
    ----------
    models
        Each built through the registry, so that it can be saved; in eval mode, on the CPU.
    history
        Equally long series, one value per logged step: ``step`` and the losses.
    info
        Plain values on how it was made: steps, batch size, what the trainer decided for itself.
    """

    models: Mapping[str, nn.Module]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.models[name]
        except KeyError:
            raise AttributeError(f"no model {name!r} was trained; there are: {', '.join(self.models)}") from None

    def table(self) -> list[dict[str, float]]:
        """Return one row per logged step."""
        names = list(self.history)
        return [dict(zip(names, row)) for row in zip(*self.history.values())]

    def to_dataframe(self) -> DataFrame:
        """Return `table` as a pandas DataFrame (``pip install pandas``)."""
        import pandas as pd

        return pd.DataFrame(self.table())

    def plot(self) -> Figure | None:
        """Draw every series of the history over the steps."""
        from .plots import curves

        return curves(self.history) if self.history else None
