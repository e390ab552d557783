"""Class-conditional models in adversarial training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genxai_core import models

if TYPE_CHECKING:
    from torch import Tensor

    from genxai_core import Discriminator


def classes(model: Any) -> int:
    """Return the number of classes that a model is conditional on; 0 where it is not."""
    return int(model.num_classes) if isinstance(model, models.Conditional) else 0


def given(discriminator: Any, labels: int | Tensor | None) -> Discriminator:
    """Return a discriminator as it judges images of one class, or of one label each; itself where there are none."""
    judge: Discriminator = discriminator if labels is None else discriminator.given(labels=labels)
    return judge
