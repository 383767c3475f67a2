"""The core's own vocabulary keeps to the kit that plugins are held to."""

from __future__ import annotations

from contralex.testing import Conformance
from tests.kit_forks import kit_forks

__all__ = ["kit_forks"]


class TestConformance(Conformance):
    distribution = "contralex"
