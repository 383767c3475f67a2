"""The core's own vocabulary keeps to the kit that plugins are held to."""

from __future__ import annotations

from contralex.testing import Conformance


class TestConformance(Conformance):
    distribution = "contralex"
