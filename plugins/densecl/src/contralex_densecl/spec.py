"""The specs of DenseCL's queue, and of its match for dictionaries that hold places."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import OutputName, Placement, Spec, StoredIn


class PlaceQueueSpec(Spec):
    """A vector of each of the last ``size`` images, first in, first out, and the key of the place that matches a query
    best in the other view of its own image, as its positive."""

    kind: Literal["place_queue"] = "place_queue"
    size: int = Field(gt=0, le=2**30)
    """Number of images in the queue."""
    match: OutputName | None = None
    """The output of the encoder whose vectors say which places match: by their cosine. Null: the look-up's own."""
    pooled: OutputName | None = None
    """The output whose keys enter the queue, one for each image. Null: the mean of an image's own keys."""
    placement: Placement = "replicated"
    """Every process holds all vectors (``replicated``), or each holds a part (``sharded``), which saves memory and
    changes no result."""
    dtype: StoredIn = "float32"
    """The type in which vectors are stored; look-ups are in float32."""
    builds = ".places:PlaceQueue"
    gives = frozenset({"entries", "positive", "tagged entries"})
    source = "DenseCL, arXiv:2011.09157, sections 3.2 and 3.3; code: openselfsup/models/densecl.py"
    example = {"size": 12}

    def queued(self) -> tuple[str, int]:
        return "size", self.size

    def reads_outputs(self) -> tuple[str, ...]:
        return tuple(name for name in (self.match, self.pooled) if name is not None)


class BestPlaceSpec(Spec):
    """The entry of the place that matches a query best in the other view of its own image, in a dictionary that holds
    the places of a batch: with it any method looks places up."""

    kind: Literal["best_place"] = "best_place"
    match: OutputName | None = None
    """The output of the encoder whose vectors say which places match: by their cosine. Null: the look-up's own."""
    builds = ".places:BestPlaceTargets"
    needs = {"negatives": frozenset({"entries of the batch"})}
    gives = frozenset({"index"})
    source = "DenseCL, arXiv:2011.09157, section 3.3, Eq. 3"

    def reads_outputs(self) -> tuple[str, ...]:
        return (self.match,) if self.match is not None else ()
