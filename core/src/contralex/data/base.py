"""Data: what a source of samples is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from contralex.data.fingerprints import digest
from contralex.data.skipped import NAMED, Skipped
from contralex.lookup import distributed

if TYPE_CHECKING:
    pass

_log = logging.getLogger("contralex")
_NAMED = 10  # classes whose names are listed


class Unreadable(Exception):
    """One item of a split cannot be read: ``path`` (or another name of it) and the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = printable(path)
        self.reason = reason


def compact(numbers: Iterable[int]) -> Sequence[int]:
    """A list of integers in 8 bytes each, which the processes that load data share."""
    return array("q", numbers)


def as_tensor(labels: Sequence[int]) -> Tensor:
    """(N,) int64, of a list as of what :func:`compact` makes, in milliseconds for a million."""
    return torch.from_numpy(np.asarray(labels, dtype=np.int64))


def index_bytes(numbers: Sequence[int]) -> bytes:
    """Integers as bytes, for a digest: the same on every machine."""
    return np.asarray(numbers, dtype="<i8").tobytes()


class Split(ABC):
    """A list of raw items: for images, RGB images of PIL. :class:`Unreadable` is raised for a broken one.

    ``labels`` stand in the order of the items; None where there are none, -1 for a single item without one.
    ``classes`` are the labels' names. ``origin``: where the items are from, if that says more than the kind of data
    does, such as ``folder val``. ``skipped``: the items that could not be read, for the count at the end of a run.
    """

    labels: Sequence[int] | None = None
    classes: Sequence[str] | None = None
    origin: str = ""

    def __init_subclass__(cls) -> None:
        """A split with items of its own opens those, and not what it inherits."""
        if "__getitem__" in vars(cls) and "open_item" not in vars(cls):
            cls.open_item = Split.open_item  # type: ignore[method-assign]

    def __init__(self) -> None:
        self.skipped = Skipped()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...

    def open_item(self, index: int) -> Any:
        """The item; or a :class:`contralex.data.photographs.Photograph`, whose pixels are yet to be decoded into it."""
        return self[index]

    def item_name(self, index: int) -> str:
        """What an item is called: for a file its path, for others the number of it."""
        return str(index)

    def fingerprint(self) -> str | None:
        """A digest of which items these are and of their labels, the same on every machine, for results that name
        their data. None where only reading all of them would tell."""
        return None

    def cache_key(self) -> str | None:
        """A digest of all that reading the items depends on, which another one must have where any of them may have
        changed, so that what was computed from them may be kept. None where nothing may."""
        return None

    def skip(self, path: str, reason: str = "it cannot be read") -> None:
        """Name an unreadable item, once; after many, count it. A reason may end in the command that mends it
        (:func:`errors.remedy`)."""
        path = printable(path)
        if self.skipped.add(path, reason) and distributed.rank() == 0 and get_worker_info() is None:
            if self.skipped.total <= NAMED:
                _log.warning("%s is skipped: %s%s", path, reason, "" if "\n" in reason else ".")
            elif self.skipped.total == NAMED + 1:
                _log.warning("More than %d items cannot be read; the others are counted, and not named.", NAMED)

    def skip_all(self, others: Skipped) -> None:
        """Name and count what was found elsewhere."""
        for path, reason in others.reasons.items():
            self.skip(path, reason)
        self.skipped.merge([others])


class Source(ABC):
    """A data set: a split to train on and, where there is one, another to judge with. ``items``: what they are.
    ``notes``: what else is to be known of them, such as what was left out and why."""

    items: str = "images"
    notes: Sequence[str] = ()

    @abstractmethod
    def train(self) -> Split: ...

    @abstractmethod
    def test(self) -> Split | None: ...

    def describe(self) -> str:
        """What was found, for the line at the start of a run, where the kind of data stands before it:
        ``1,240 images to train on in 2 classes (cat, dog); 310 to evaluate on (folder val)``."""
        train, test = self.train(), self.test()
        found = f"{len(train):,} {self.items} to train on{_from(train)}{_classes(train)}"
        judged = f"{len(test):,} to evaluate on{_from(test)}" if test is not None else "none to evaluate on"
        notes = sorted(self.notes, key=lambda note: "\n" in note)  # a command stands on the last line
        return "; ".join([found, judged, *notes])


def printable(path: object) -> str:
    """A path as text that can be written anywhere: bytes of a name that are not UTF-8 as ``\\udce9``."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _from(split: Split) -> str:
    return f" ({split.origin})" if split.origin else ""


def _classes(split: Split) -> str:
    labels = np.unique(np.asarray(split.labels if split.labels is not None else (), dtype=np.int64))
    labels = labels[labels >= 0]
    if not len(labels):
        return " without labels"
    count = len(split.classes or labels)
    names = list(split.classes or ())
    if count > _NAMED:
        names = [*names[: _NAMED - 1], "..."] if names else []
    listed = f" ({', '.join(names)})" if names else ""
    return f" in {count:,} {'class' if count == 1 else 'classes'}{listed}"


class Subset(Split):
    """Some items of another split, in the order of ``indices``."""

    def __init__(self, split: Split, indices: Sequence[int]) -> None:
        super().__init__()
        self.split = split
        self.indices = indices
        self.skipped = split.skipped
        self.labels = None if split.labels is None else compact(split.labels[index] for index in indices)
        self.classes = split.classes
        self.origin = split.origin

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.split[self.indices[index]]

    def open_item(self, index: int) -> Any:
        return self.split.open_item(self.indices[index])

    def item_name(self, index: int) -> str:
        return self.split.item_name(self.indices[index])

    def fingerprint(self) -> str | None:
        return self._digest(self.split.fingerprint())

    def cache_key(self) -> str | None:
        return self._digest(self.split.cache_key())

    def _digest(self, of_all: str | None) -> str | None:
        return None if of_all is None else digest([of_all, index_bytes(self.indices)])
