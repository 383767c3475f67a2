"""A sign that something is wrong: what was measured, the bound, where the bound is from, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from contralex.errors import remedy


@dataclass(frozen=True)
class Sign:
    """One thing that is wrong. It prints as sentences, with a line for each setting to try."""

    name: str
    """Which sign it is, such as ``dead_key_encoder``."""
    problem: str
    """What is wrong, with the figures."""
    bound: str
    """The bound that the figures are beyond."""
    source: str
    """The paper, or the reason, for the bound."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """The figures, by name."""
    tries: tuple[str, ...] = ()
    """Settings to try, each as ``--set`` takes it."""

    def __str__(self) -> str:
        text = f"{self.problem} Bound: {self.bound} ({self.source})."
        return text + (" Try:" + "".join(remedy("--set", each) for each in self.tries) if self.tries else "")
