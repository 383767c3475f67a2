"""Which rows belong to which view and sample, known on the host from how they were made.

To search the tags on a GPU, the host would wait for it. Rows that are made view after view are known without a search:
the rows of a view are a slice, and the key of the i-th sample's query is the i-th sample's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from operator import is_

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of one view: sample after sample, and of each sample its positions."""

    view: int
    samples: Tensor
    """(B,) the samples of this process. Two blocks are of the same samples where they hold one and the same tensor."""
    per_sample: int
    """P, the rows of each sample."""
    counted: bool = True
    """Whether the positions of each sample are 0, 1, ... P-1."""
    before: int = 0
    """The samples of other processes that stand before this one's."""
    after: int = 0
    """The samples of other processes that stand after this one's."""

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The samples of all processes, and the rows of each."""
        return self.before + self.samples.shape[0] + self.after, self.per_sample

    @cached_property
    def rows(self) -> int:
        samples, per_sample = self.shape
        return samples * per_sample

    @property
    def has_others(self) -> bool:
        """Whether samples of other processes are in it."""
        return bool(self.before or self.after)

    def spread(self, rank: int, world: int) -> Block:
        """The block of all processes, of which this one has the part of its rank."""
        own = len(self.samples)
        return replace(self, before=rank * own, after=(world - rank - 1) * own)


@dataclass(frozen=True, eq=False)
class Layout:
    """The blocks of rows, in their order. ``tags``: the tensors of sample, view and position that they describe."""

    blocks: tuple[Block, ...]
    tags: tuple[Tensor, Tensor, Tensor]

    def describes(self, tags: Sequence[Tensor]) -> bool:
        return all(map(is_, self.tags, tags))

    @cached_property
    def slices(self) -> tuple[tuple[Block, slice], ...]:
        """Each block, and its rows."""
        stops = accumulate(block.rows for block in self.blocks)
        return tuple((block, slice(stop - block.rows, stop)) for block, stop in zip(self.blocks, stops, strict=True))

    @cached_property
    def _by_view(self) -> dict[int, tuple[Block, slice] | None]:
        """The block of each view and its rows; None where it has several."""
        found: dict[int, tuple[Block, slice] | None] = {}
        for block, rows in self.slices:
            found[block.view] = None if block.view in found else (block, rows)
        return found

    def find_view(self, view: int) -> tuple[Block, slice] | None:
        """The block of this view and its rows; None where its rows do not lie together, or there are none."""
        return self._by_view.get(view)

    def find_only(self) -> tuple[Block, slice] | None:
        """The block and its rows, where it is the only one."""
        return self.slices[0] if len(self.blocks) == 1 else None


def find_slice(queries: Layout, keys: Layout, *, same_view: bool, view: int | None = None) -> slice | None:
    """The rows of ``keys`` that are the partners of the queries, in their order; None where they are not known to lie
    so. ``same_view``: whether partners are of the queries' view, or of another ``view`` that stands for it."""
    pair = _pair(queries, keys, same_view, view)
    if pair is None:
        return None
    asking, answering, start = pair
    if not asking.counted or asking.per_sample != answering.per_sample:
        return None
    first = start + (answering.before - asking.before) * answering.per_sample
    fits = asking.before <= answering.before and asking.after <= answering.after
    return slice(first, first + asking.rows) if fits else None


def find_beginnings(queries: Layout, keys: Layout, *, same_view: bool) -> tuple[Tensor, int] | None:
    """(R,) the row of ``keys`` at which the sample of each query begins, and how many rows it has there; None where
    that is not known. A query's partner is as many rows after it as its position says."""
    pair = _pair(queries, keys, same_view)
    if pair is None or pair[0].before or pair[0].after:
        return None
    asking, answering, start = pair
    samples = torch.arange(len(asking.samples), device=asking.samples.device)
    begins = (samples + answering.before) * answering.per_sample + start
    return begins.repeat_interleave(asking.per_sample), answering.per_sample


def _pair(queries: Layout, keys: Layout, same_view: bool, view: int | None = None) -> tuple[Block, Block, int] | None:
    """The block of the queries, the block that answers it, and the row at which that begins."""
    if len(queries.blocks) != 1:
        return None
    asking = queries.blocks[0]
    found = keys.find_view(asking.view if view is None else view) if same_view else keys.find_only()
    if found is None:
        return None
    answering, rows = found
    same = asking.samples is answering.samples and answering.counted
    return (asking, answering, rows.start) if same else None
