"""Specs of the core's target generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from contralex.spec.base import Spec

if TYPE_CHECKING:
    from contralex.parts.base import BuildContext, TargetGenerator


class Instance(Spec):
    """The sample itself: its entry in the dictionary."""

    kind: Literal["instance"] = "instance"
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"index"})
    source = "InstDisc, arXiv:1805.01978, section 3.1"

    def build(self, context: BuildContext) -> TargetGenerator:
        from contralex.parts.targets import Instance as Part

        return Part()


class KeyVector(Spec):
    """The sample's key, to regress on."""

    kind: Literal["key_vector"] = "key_vector"
    gives = frozenset({"vectors"})
    source = "BYOL, arXiv:2006.07733, section 3.1"

    def build(self, context: BuildContext) -> TargetGenerator:
        from contralex.parts.targets import KeyVector as Part

        return Part()
