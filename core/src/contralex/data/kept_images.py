"""Decoded images that are kept in memory, for data sets of many small files, which take longer to read than to use."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from contralex.data import workers
from contralex.data.base import Split
from contralex.data.photographs import Photograph

_PART = 4  # of the memory that may be taken, the part that images may fill
_WITHOUT_ANSWER = 1 << 28  # bytes, where the system does not say what is available


def bytes_to_keep(available: int | None) -> int:
    """How many bytes of images are kept at most: a quarter of the memory that is available."""
    return _WITHOUT_ANSWER if available is None else available // _PART


class KeptImages(Split):
    """The items of a split. Images that were read once come from memory, in which all processes that are forked share
    them, as long as there is room: ``most`` bytes. Each is equal to what is read, byte by byte.

    Photographs of a size that the views ``may_scale`` are not kept, if they come undecoded: else views would depend on
    what is kept.
    """

    def __init__(self, split: Split, most: int, may_scale: Callable[[tuple[int, int]], bool]) -> None:
        super().__init__()
        self._split = split
        self._may_scale = may_scale
        self._memory = mmap.mmap(-1, max(most, 1))  # taken from the machine where it is written to, and not before
        self._most = most
        # Where each image begins, plus one, its width and its height; nothing for those that are not kept.
        self._table = np.frombuffer(mmap.mmap(-1, max(24 * len(split), 1)), np.int64, 3 * len(split)).reshape(-1, 3)
        self._filled = workers.worker_context().Value("q", 0)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Any:
        return self._find(index) or self._keep(index, self._split[index])

    def open_item(self, index: int) -> Any:
        if kept := self._find(index):
            return kept
        item = self._split.open_item(index)
        if not isinstance(item, Photograph):
            return self._keep(index, item)
        return item if self._may_scale(item.size) else self._keep(index, item.decode())

    def item_name(self, index: int) -> str:
        return self._split.item_name(index)

    def _find(self, index: int) -> Image.Image | None:
        with self._filled.get_lock():
            first, width, height = self._table[index].tolist()
        if not first:
            return None
        levels = self._memory[first - 1 : first - 1 + 3 * width * height]
        return Image.frombytes("RGB", (width, height), levels)

    def _keep(self, index: int, item: Any) -> Any:
        if isinstance(item, Image.Image) and item.mode == "RGB" and not item.info:
            self._write(index, item)
        return item

    def _write(self, index: int, image: Image.Image) -> None:
        length = 3 * image.width * image.height
        with self._filled.get_lock():
            first = self._filled.value
            if first + length > self._most or self._table[index, 0]:
                return
            self._filled.value = first + length
        self._memory[first : first + length] = image.tobytes()
        with self._filled.get_lock():
            self._table[index] = first + 1, image.width, image.height
