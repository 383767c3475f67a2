"""Numbers of torch's global generator, many at once.

A call of torch for one number takes two microseconds, which for small images was a third of a view. Here one call
reads the generator's words ahead, and numbers are made of them as torch makes them. In the end the generator stands
where single calls would have left it.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from types import TracebackType

import numpy as np
import torch

_PAIRS = 12  # of words, read at a time; most views take fewer than 24 words
_FRACTION = 1 << 24  # of a float32 between 0 and 1


class Chance:
    """Draws from torch's global generator within a ``with``, as ``torch.rand``, ``uniform_``, ``randint`` and
    ``randperm`` do; of no other calls may the generator be asked meanwhile, but after :meth:`catch_up`.

    Source: ATen/core/TransformationHelper.h (``uniform_real``, ``uniform_int_from_to``) and ``randperm_cpu`` of torch.
    """

    def __enter__(self) -> Chance:
        self._pairs: list[int] = []
        self._used = 0  # words, of which a pair has two
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.catch_up()

    def catch_up(self) -> None:
        """Leave the generator as single calls would have."""
        if self._pairs:
            torch.default_generator.set_state(self._before)
            torch.empty(self._used).uniform_()  # takes a word for each number
            self._pairs, self._used = [], 0

    def _word(self) -> int:
        """32 random bits."""
        at = self._used
        if at == 2 * len(self._pairs):
            self._read_on()
        self._used = at + 1
        pair = self._pairs[at >> 1]
        return (pair if at & 1 else pair >> 32) & 0xFFFFFFFF  # the upper half comes first

    def _read_on(self) -> None:
        if not self._pairs:
            self._before = torch.default_generator.get_state()
        self._pairs += torch.empty(_PAIRS, dtype=torch.int64).random_(-(2**63), None).tolist()

    def fraction(self) -> float:
        """From 0 up to 1, without 1, as ``torch.rand(1)``."""
        return (self._word() & (_FRACTION - 1)) / _FRACTION

    def uniform(self, low: float, high: float) -> float:
        """As ``torch.empty(1).uniform_(low, high)``, which is a float32."""
        start, width = interval(low, high)
        return _round(self.fraction() * width + start)

    def below(self, count: int) -> int:
        """As ``torch.randint(count, ())``, for counts below 2²⁸."""
        return self._word() % count

    def permutation(self, count: int) -> list[int]:
        """As ``torch.randperm(count)``."""
        order = list(range(count))
        for at in range(count - 1):
            other = at + self.below(count - at)
            order[at], order[other] = order[other], order[at]
        return order


@lru_cache(maxsize=64)
def interval(low: float, high: float) -> tuple[float, float]:
    """Where it begins and how wide it is, in float32."""
    start, end = np.float32(low), np.float32(high)
    return float(start), float(end - start)


_FLOAT = struct.Struct("f")


def _round(number: float) -> float:
    """To float32."""
    rounded: float = _FLOAT.unpack(_FLOAT.pack(number))[0]
    return rounded
