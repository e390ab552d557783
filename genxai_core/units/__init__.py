"""Inside any model: record its units, find their thresholds, count where they agree with concepts, edit them.

A unit is one channel of a layer; a layer is a submodule, by its name in ``model.named_modules()``, whose output is
``[N, U, h, w]`` or ``[N, U]``. All work by forward hooks that are gone when the block ends, also when it raises.
Parameters are never touched, and other threads see nothing of it. Edits come first, in the order in which they were
entered: what is recorded, thresholded and counted is what the layer passes on, edits included.
"""

from __future__ import annotations

from .counting import Tally, tally
from .editing import applied, edit
from .layers import named_layers
from .recording import Activations, record
from .thresholds import Thresholds, threshold

__all__ = [
    "Activations",
    "Tally",
    "Thresholds",
    "applied",
    "edit",
    "named_layers",
    "record",
    "tally",
    "threshold",
]
