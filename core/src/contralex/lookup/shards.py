"""Tables that are too large for one process: each holds a part, and results are those of the complete table.

Of a table of M rows, process r of W holds the r-th part of ceil(M/W) rows. Zeros follow the last row, so that all parts
have one shape. Queries travel to the parts, and scores or single rows come back; the table does not travel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contralex.lookup import distributed
from contralex.lookup.precision import at_least_float32

_BLOCK = 4096  # rows that are drawn at a time
_LEAST = 16  # numbers from which on torch draws the same in blocks as at once


@dataclass(frozen=True)
class Shards:
    """A table (M, D) of which this process holds ``part`` (ceil(M/W), D); ``total`` is M."""

    part: Tensor
    total: int

    def __post_init__(self) -> None:
        if len(self.part) != rows_per_process(self.total):
            raise RuntimeError(
                f"a part of {len(self.part)} rows is not one of {distributed.world()} of {self.total} rows; "
                "build the model after the processes have met"
            )

    def scores(self, queries: Tensor) -> Tensor:
        """(N, M) inner products of this process's queries (N, D) with every row, with the queries' gradient."""
        part, processes = self.part.to(queries.dtype), distributed.world()
        everyone = distributed.gather(queries, gradient=True)  # (W·N, D)
        blocks = (everyone @ part.T).unflatten(0, (processes, -1))  # (W, N, M/W): block j is of j's queries
        scores = distributed.exchange(blocks)  # (W, N, M/W): block j is of j's rows
        return scores.transpose(0, 1).flatten(1)[:, : self.total]

    def rows(self, indices: Tensor) -> Tensor:
        """(..., D) the rows at ``indices`` (...) of the complete table, in at least float32. A collective; a row
        that is asked for twice travels once."""
        asked, inverse = indices.unique(return_inverse=True)  # sorted, and so in the order of the owners
        ask = torch.bincount(asked // len(self.part), minlength=distributed.world())  # (W,) how many of whom
        asks, answers = ask.tolist(), distributed.exchange(ask).tolist()
        wanted = distributed.exchange_rows(asked, asks, answers)
        rows = self.part[wanted - distributed.rank() * len(self.part)]
        return at_least_float32(distributed.exchange_rows(rows, answers, asks)[inverse])


def rows_per_process(total: int) -> int:
    """The number of rows that each process holds of ``total``, with the zeros after the last."""
    return -(-total // distributed.world())


def own_range(total: int) -> tuple[int, int]:
    """The rows ``start`` up to ``stop`` that this process holds of ``total``; none where others hold them all."""
    return row_range(total, distributed.rank())


def own_indices(indices: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Which of the ``indices`` (K,) of the complete table this process holds, as a mask (K,), and their indices in its
    own part."""
    start, stop = own_range(total)
    here = (indices >= start) & (indices < stop)
    return here, indices[here] - start


def draw_table(total: int, dim: int, draw: Callable[[int], Tensor], dtype: torch.dtype, *, sharded: bool) -> Tensor:
    """Draw a random table (total, dim), and return it or this process's part. ``draw(R)`` makes R of its rows.

    Every process draws all of it, so that the parts are those of one table, and in blocks, so that it is never complete
    in memory. torch draws the same in blocks as at once, where no block has fewer than 16 numbers.
    """
    start, stop = own_range(total) if sharded else (0, total)
    table = torch.zeros(rows_per_process(total) if sharded else total, dim, dtype=dtype)
    for low in range(0, max(total - _LEAST + 1, 1), _BLOCK):
        high = low + _BLOCK if total - (low + _BLOCK) >= _LEAST else total
        rows = draw(high - low).to(dtype)
        first, last = max(low, start), min(high, stop)
        if first < last:
            table[first - start : last - start] = rows[first - low : last - low]
    return table


def row_range(total: int, rank: int) -> tuple[int, int]:
    """The rows ``start`` up to ``stop`` that the process ``rank`` holds of ``total``."""
    rows = rows_per_process(total)
    return min(rank * rows, total), min((rank + 1) * rows, total)
