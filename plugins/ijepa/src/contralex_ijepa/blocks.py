"""The blocks of an image's patches: their sizes, and where they may be. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    """A rectangle of patches, by its first row and column."""

    top: int
    left: int
    height: int
    width: int

    def places(self, columns: int) -> Iterator[int]:
        """The numbers of its patches, row after row, in a grid of so many columns."""
        for row in range(self.top, self.top + self.height):
            start = row * columns + self.left
            yield from range(start, start + self.width)


class Sample(NamedTuple):
    """The blocks of an image, and how much of the context a batch keeps."""

    targets: tuple[Block, ...]
    context: Block
    avoided: int
    """The first so many targets are taken out of the context."""
    kept: int
    """The number of context patches that every image of the batch has."""

    def context_places(self, columns: int) -> list[int]:
        """The patches of the context, row after row, without those of the targets; the first ``kept``."""
        taken = {place for block in self.targets[: self.avoided] for place in block.places(columns)}
        return [place for place in self.context.places(columns) if place not in taken][: self.kept]


def block_size(rows: int, columns: int, scale: float, aspect: float) -> tuple[int, int]:
    """The height and the width of a block that covers a fraction ``scale`` of the grid, ``aspect`` times as high as
    wide; at most one less than the grid's (code: ijepa multiblock.py, ``_sample_block_size``)."""
    patches = int(rows * columns * scale)
    height, width = round(math.sqrt(patches * aspect)), round(math.sqrt(patches / aspect))
    return min(height, rows - 1), min(width, columns - 1)
