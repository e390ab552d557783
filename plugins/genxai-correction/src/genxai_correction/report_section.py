"""What the report shows of this distribution's results, beside their own figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genxai_core.report import Section


def sections(result: Any) -> Iterable[Section]:
    """Return the sections that a result brings: those of its ``report_sections``, if it is one of ours."""
    from .artifact_units import ArtifactUnitScores
    from .correction import Correction
    from .proof import Proof

    return result.report_sections() if isinstance(result, ArtifactUnitScores | Correction | Proof) else ()
