"""Tables that are too large for one process: each holds a part, and results are those of the whole table.

Of a table of M rows, process r of W holds the r-th part of ceil(M/W) rows; what lies after the last row is zeros,
so that all parts have one shape. Queries travel to the parts, and scores or single rows come back; the table does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contralex.lookup import distributed

_BLOCK = 4096  # rows that are drawn at a time


@dataclass(frozen=True)
class Shards:
    """A table (M, D) of which this process holds ``part`` (ceil(M/W), D); ``total`` is M."""

    part: Tensor
    total: int

    def __post_init__(self) -> None:
        if len(self.part) != part_rows(self.total):
            raise RuntimeError(
                f"a part of {len(self.part)} rows is not one of {distributed.world()} of {self.total} rows; "
                "build the model after the processes have met"
            )

    def scores(self, queries: Tensor) -> Tensor:
        """(N, M) inner products of this process's queries (N, D) with every row, with the queries' gradient."""
        part, processes = self.part.float(), distributed.world()
        everyone = distributed.gather(queries, gradient=True)  # (W·N, D)
        blocks = (everyone @ part.T).unflatten(0, (processes, -1))  # (W, N, M/W): block j is of j's queries
        found = distributed.exchange(blocks)  # (W, N, M/W): block j is of j's rows
        return found.transpose(0, 1).flatten(1)[:, : self.total]

    def rows(self, places: Tensor) -> Tensor:
        """(..., D) the rows at ``places`` (...) of the whole table, in float32. A row asked for twice travels once."""
        asked, at = places.unique(return_inverse=True)  # sorted, and so in the order of the owners
        ask = torch.bincount(asked // len(self.part), minlength=distributed.world())  # (W,) how many of whom
        asks, answers = ask.tolist(), distributed.exchange(ask).tolist()
        wanted = distributed.exchange_rows(asked, asks, answers)
        given = self.part[wanted - distributed.rank() * len(self.part)]
        return distributed.exchange_rows(given, answers, asks)[at].float()


def part_rows(total: int) -> int:
    """How many rows each process holds of ``total``, counting the zeros after the last."""
    return -(-total // distributed.world())


def own_range(total: int) -> tuple[int, int]:
    """From which row to which this process holds a table of ``total`` rows; nothing where others hold them all."""
    return range_of(total, distributed.rank())


def own_places(places: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Which of ``places`` (K,) of the whole table are here, as a mask (K,), and where they stand in the own part."""
    start, stop = own_range(total)
    here = (places >= start) & (places < stop)
    return here, places[here] - start


def drawn(total: int, draw: Callable[[int], Tensor], dtype: torch.dtype, *, sharded: bool) -> Tensor:
    """A random table (total, D), or this process's part of it; ``draw`` makes as many rows (R, D) as it is told.

    All of it is drawn everywhere, so that parts are those of one table; in blocks, so that it is never whole in memory.
    torch draws the same in blocks as at once, where none has fewer than 16 numbers.
    """
    start, stop = own_range(total) if sharded else (0, total)
    table: Tensor | None = None
    for low in range(0, max(total - 15, 1), _BLOCK):
        high = low + _BLOCK if total - (low + _BLOCK) >= 16 else total
        rows = draw(high - low).to(dtype)
        if table is None:
            table = rows.new_zeros(part_rows(total) if sharded else total, rows.shape[1])
        first, last = max(low, start), min(high, stop)
        if first < last:
            table[first - start : last - start] = rows[first - low : last - low]
    assert table is not None
    return table


def range_of(total: int, rank: int) -> tuple[int, int]:
    rows = part_rows(total)
    return min(rank * rows, total), min((rank + 1) * rows, total)
