"""Specs of the core's negative sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from contralex.lookup.names import MAIN
from contralex.plugins.spec import Least, Spec, leave_out_defaults

Placement = Literal["replicated", "sharded"]
"""Whether every process holds a complete table, or each a part of it."""
StoredIn = Literal["float32", "float16", "bfloat16"]
"""The type that a table of vectors is stored in."""


class NoNegativesSpec(Spec):
    """No negatives: for methods that regress on the key."""

    kind: Literal["none"] = "none"
    builds = ".parts:NoNegatives"
    gives = frozenset({"no entries"})
    source = "BYOL, arXiv:2006.07733"


class InBatchSpec(Spec):
    """The keys of the batch, on all processes."""

    kind: Literal["in_batch"] = "in_batch"
    builds = ".parts:InBatchSource"
    views: Literal["matched", "all"]
    """Keys of the ``matched`` key view, or of ``all`` views (without the query's own view)."""
    gives = frozenset({"entries", "positive", "tagged entries", "entries of the batch"})
    source = "SimCLR, arXiv:2002.05709, Eq. 1 (all); MoCo v3, arXiv:2104.02057, Algorithm 1 (matched)"
    example = {"views": "matched"}

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        # Of several vectors a view, those at other positions are negatives too.
        alone = "one query a view" in offers["encoder"]
        return [Least("batch", 2, "the other samples are the negatives, and one has none")] if alone else []


class QueueSpec(Spec):
    """The last ``size`` keys, first in, first out, and the query's own positive."""

    kind: Literal["queue"] = "queue"
    builds = ".parts:QueueSource"
    size: int = Field(gt=0, le=2**30)
    """Number of keys in the queue."""
    placement: Placement = "replicated"
    """Every process holds all keys (``replicated``), or each holds a part (``sharded``), which saves memory and changes
    no result."""
    dtype: StoredIn = "float32"
    """The type in which keys are stored; look-ups are in float32."""
    positive: bool = True
    """Whether a query's own key is an entry, too; without it, the queue alone is the dictionary (ReSSL)."""
    gives = frozenset({"entries", "positive", "tagged entries", "shared entries alone"})
    added = frozenset({"positive"})
    source = "MoCo, arXiv:1911.05722, section 3.2"
    example = {"size": 12}

    def offers(self) -> frozenset[str]:
        return self.gives - {"shared entries alone" if self.positive else "positive"}

    _written = leave_out_defaults("positive")

    def queued(self) -> tuple[str, int]:
        return "size", self.size


class MemoryBankSpec(Spec):
    """A stored vector for each training sample."""

    kind: Literal["memory_bank"] = "memory_bank"
    builds = ".parts:MemoryBankSource"
    draws: int = Field(ge=0, le=2**24)
    """Rows that are drawn for each query; 0: all rows are compared."""
    redraw: bool = False
    """Whether each match draws rows of its own (PIRL's code); otherwise all matches of a step share them (CMC)."""
    momentum: float = Field(0.5, ge=0, le=1)
    """The weight of the stored vector when it is updated."""
    placement: Placement = "replicated"
    """Every process holds the complete bank (``replicated``), or each holds a part (``sharded``), which saves memory
    and changes no result."""
    dtype: StoredIn = "float32"
    """The type in which vectors are stored; look-ups and updates are in float32."""
    needs = {"encoder": frozenset({"one query a view"})}
    gives = frozenset({"entries", "positive", "tagged entries", "remembered", "drawn"})
    source = "InstDisc, arXiv:1805.01978, section 3.2; code: lemniscate NCEAverage, LinearAverage"
    example = {"draws": 16}

    def offers(self) -> frozenset[str]:
        if self.draws:
            return self.gives - {"tagged entries"}
        # No process holds the whole of a sharded bank, so the remembered vectors can be scored, but not read.
        return self.gives - ({"drawn", "remembered"} if self.placement == "sharded" else {"drawn"})


class PrototypesSpec(Spec):
    """``count`` trainable vectors."""

    kind: Literal["prototypes"] = "prototypes"
    builds = ".parts:PrototypeSource"
    count: int = Field(gt=1, le=2**24)
    """Number of prototypes."""
    normalize: bool = True
    """Whether the prototypes are brought to unit length before each step."""
    gives = frozenset({"entries", "prototypes"})
    learns = True
    source = "SwAV, arXiv:2006.09882, section 3.1"
    example = {"count": 10}


class BorrowedSpec(Spec):
    """The dictionary of another look-up of the method, such as its prototypes."""

    kind: Literal["borrowed"] = "borrowed"
    builds = ".parts:borrowed_source"
    look_up: str = MAIN
    """The name of that look-up, which stands before this one; ``main`` is the one of the method's own slots."""
    source = "iBOT, arXiv:2111.07832, section 3.2; code: shared_head"

    def borrowed_from(self) -> str:
        return self.look_up


class ClassesSpec(Spec):
    """One entry for each of ``count`` classes, as many as vectors have dimensions: the scores of a query are its own
    dimensions, so an encoder that ends in ``count`` logits is a classifier, and its look-up a classification.
    """

    kind: Literal["classes"] = "classes"
    builds = ".parts:ClassSource"
    count: int = Field(gt=1, le=1_000_000)
    """Number of classes, which is the number of dimensions of the encoder's vectors."""
    needs = {"encoder": frozenset({"any length"})}
    gives = frozenset({"entries", "classes", "shared entries alone"})
    source = "SimCLR v2, arXiv:2006.10029, section 2 (fine-tuning, distillation); a classifier as a look-up"
    example = {"count": 8}
