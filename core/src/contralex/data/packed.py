"""Views that are made where the network computes: what a worker sends instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedViews:
    """What views of some samples are made of.

    ``levels``: (total,) uint8, the pixels of one image after the other, three bytes each, row after row. ``table``:
    (N, K) float64, a row of numbers for each image, whose first is the index of its first byte in ``levels``.
    ``sizes``: height and width of each, on the host.
    """

    levels: Tensor
    table: Tensor
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def join(cls, parts: Sequence[PackedViews]) -> PackedViews:
        """One after the other."""
        table = torch.cat([part.table for part in parts])
        starts = accumulate((len(part.levels) for part in parts), initial=0)
        table[:, 0] += torch.tensor(
            [start for part, start in zip(parts, starts, strict=False) for _ in part.sizes], dtype=table.dtype
        )
        sizes = tuple(size for part in parts for size in part.sizes)
        return cls(torch.cat([part.levels for part in parts]), table, sizes)

    def to(self, device: torch.device, non_blocking: bool = False) -> PackedViews:
        levels, table = (each.to(device, non_blocking=non_blocking) for each in (self.levels, self.table))
        return PackedViews(levels, table, self.sizes)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Have their memory kept until this stream has read them."""
        for each in (self.levels, self.table):
            each.record_stream(stream)

    def pin_memory(self) -> PackedViews:
        """Called by torch's ``DataLoader``."""
        return PackedViews(self.levels.pin_memory(), self.table.pin_memory(), self.sizes)
