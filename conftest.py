"""For all tests. They may run side by side (``pytest -n auto``): one thread each, or torch waits for cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported, which is after this
