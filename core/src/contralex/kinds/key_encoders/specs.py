"""Specs of the core's key encoders."""

from __future__ import annotations

from typing import Annotated, Literal

from contralex.plugins.spec import Spec
from contralex.recipes.paths import LocalPath
from contralex.recipes.schedules import Fraction


class SharedSpec(Spec):
    """The query's own encoder."""

    kind: Literal["shared"] = "shared"
    builds = ".parts:SharedKeyEncoder"
    gradient: bool
    """Whether keys carry a gradient (SimCLR yes; SwAV, SimSiam, InstDisc no)."""
    gives = frozenset({"keys", "keys with gradient"})
    key_weights = "shared"
    source = "SimCLR, arXiv:2002.05709, section 2.1; SimSiam, arXiv:2011.10566, Algorithm 1"
    example = {"gradient": False}

    def offers(self) -> frozenset[str]:
        return self.gives if self.gradient else self.gives - {"keys with gradient"}


class MomentumSpec(Spec):
    """A moving average of the query encoder, without gradient: θ_k ← m·θ_k + (1−m)·θ_q after each step."""

    kind: Literal["momentum"] = "momentum"
    builds = ".parts:MomentumEncoder"
    momentum: Fraction
    """The weight (m) of the key encoder's own past in each update, in [0, 1]; may follow a schedule."""
    shuffle_bn: bool = False
    """Encode the keys in another order than the queries, so that BatchNorm statistics over parts of the batch
    (``train.batch_norm``) do not tell them apart."""
    init: Literal["copy", "random"] = "copy"
    """Start as a ``copy`` or at ``random``."""
    gives = frozenset({"keys", "keys by a pass of their own"})
    key_weights = "following"
    source = "MoCo, arXiv:1911.05722, Eq. 2 and section 3.3"
    example = {"momentum": 0.9}

    def follows(self) -> tuple[str, Fraction]:
        return "momentum", self.momentum


class FrozenSpec(Spec):
    """An encoder that never changes."""

    kind: Literal["frozen"] = "frozen"
    builds = ".parts:frozen_encoder"
    checkpoint: Annotated[str | None, LocalPath()] = None
    """A run's folder or checkpoint; without one, random weights."""
    gives = frozenset({"keys", "keys by a pass of their own"})
    key_weights = "fixed"
    source = "CRD, arXiv:1910.10699, section 3.1; BYOL, arXiv:2006.07733, section 3.1 (random target)"
