"""Data that cost nothing, and the clock of a step: for contralex and for its peers alike.

A step's time is the time from the end of one step to the end of the next, less the time from the first read of the
batch's samples to the last. So it has all that a loop does beside making data: sampling, collating, forward, backward,
the optimiser, moving averages, figures, logging and hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.photographs import pictures
from contralex.plugin import Source, Split, Views

PERIOD = 10  # steps from one logged line to the next, on all sides


class StepClock:
    """Counts the reads of a batch, and takes them out of the time of its step. One process reads and trains."""

    def __init__(self) -> None:
        self.start(1)
        self.device = "cpu"
        """On cuda, a step has ended when the device has done it."""
        self.channels_last = False
        """Whether contralex's network was in channels-last, so that the loop beside it can be as well."""

    def start(self, reads: int) -> None:
        """A new run, whose batches take so many reads."""
        self.reads = reads
        self.forget_reads()
        self.ends: list[float] = []
        self.spent: list[float] = []  # on reading, for each step

    def forget_reads(self) -> None:
        self.count, self.reading, self.began = 0, 0.0, 0.0

    def before_read(self) -> None:
        if self.count % self.reads == 0:
            self.began = time.perf_counter()

    def after_read(self) -> None:
        self.count += 1
        if self.count % self.reads == 0:
            self.reading += time.perf_counter() - self.began

    def end_step(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.spent.append(self.reading)
        self.reading = 0.0

    def mean_seconds(self) -> float:
        """The mean seconds of a step with its data, without the first ones', in which threads are chosen."""
        ends = self.ends[len(self.ends) // 6 :]
        return (ends[-1] - ends[0]) / (len(ends) - 1)

    def seconds(self) -> float:
        """The median seconds of a step, over periods of logging, without the first."""
        steps = [
            end - start - spent for start, end, spent in zip(self.ends, self.ends[1:], self.spent[1:], strict=False)
        ]
        if len(steps) < 3 * PERIOD:
            return median(steps[1:] or steps)
        periods = [steps[at : at + PERIOD] for at in range(PERIOD, len(steps) - PERIOD + 1, PERIOD)]
        return median(sum(period) / len(period) for period in periods)


CLOCK = StepClock()
ON_START: list[Callable[[Any], None]] = []
"""Called with a run before its first step."""


class ReadySource(Source):
    """Images of noise, in memory. ``count`` of them, ``size`` pixels wide."""

    def __init__(self, count: int, size: int) -> None:
        self.split = ReadySplit(count, size)

    def train(self) -> Split:
        return self.split

    def test(self) -> None:
        return None


class ReadySplit(Split):
    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.images = noise(count, size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        CLOCK.before_read()
        return self.images[index]


class PictureSource(Source):
    """Photographs in memory: ``count`` of them, as images of PIL."""

    def __init__(self, count: int, width: int, height: int) -> None:
        self.split = PictureSplit(count, (width, height))

    def train(self) -> Split:
        return self.split

    def test(self) -> None:
        return None


class PictureSplit(Split):
    def __init__(self, count: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.images = pictures(count, size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index]


class ReadyViews(Views):
    """Two views, both of which are the image itself."""

    count = 2

    def make(self, item: Any, view: int) -> Tensor:
        if view == 1:
            CLOCK.after_read()
        image: Tensor = item
        return image

    def plain(self, item: Any) -> Tensor:
        image: Tensor = item
        return image


class ReadyDataset(Dataset[tuple[Tensor, Tensor]]):
    """The same for a loader of torch's: both views of a sample."""

    def __init__(self, count: int, size: int) -> None:
        self.images = noise(count, size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        CLOCK.before_read()
        image = self.images[index]
        CLOCK.after_read()
        return image, image


@lru_cache(maxsize=4)
def noise(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
