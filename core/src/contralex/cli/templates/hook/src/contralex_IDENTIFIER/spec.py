"""What a run may set for the hooks. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from contralex.plugin import Spec


class SpreadSettings(Spec):
    """When a run ends: after ``patience`` steps with a spread below ``floor``."""

    floor: float = Field(0.01, ge=0, le=1)
    """The spread below which queries count as one point: about 1 where they fill the sphere, 0 where all are equal."""
    patience: int = Field(100, gt=0, le=1_000_000)
    """Steps in a row after which the run ends."""
