"""Tables whose newest rows overwrite the oldest: queues of keys, support sets.

The tensors are buffers of the part that keeps them, so their names in a checkpoint are that part's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.lookup.shards import own_indices


def ring_indices(start: Tensor | int, count: int, size: int, device: torch.device | None = None) -> Tensor:
    """(count,) the indices from ``start`` on in a ring of ``size`` rows, which goes on at 0 after its last row."""
    return (start + torch.arange(count, device=device)) % size


def write_to_ring(table: Tensor, rows: Tensor, start: Tensor | int, *, total: int | None = None) -> int:
    """Write the newest of ``rows`` (R, ...) into ``table`` (M, ...), in place, from the index ``start`` modulo M on.

    Return the number of rows that were written: R, or M where there are more. The caller moves its pointer by it.
    ``total``: the rows M of a table that is sharded (see :mod:`contralex.lookup.shards`); ``table`` is then this
    process's part. ``rows`` are the same on every process.
    """
    size = len(table) if total is None else total
    newest = rows[-size:]
    count = len(newest)
    if total is None and isinstance(start, int):
        first = min(count, size - start % size)  # rows up to the table's end
        table[start % size :][:first] = newest[:first]
        if first < count:
            table[: count - first] = newest[first:]
        return count
    index = ring_indices(start, count, size, table.device)
    if total is not None:
        here, index = own_indices(index, total)
        newest = newest[here]
    table[index] = newest.to(table)
    return count
