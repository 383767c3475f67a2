"""Data: what a source of samples is, which samples make a batch, and how a sample becomes views.

Everything random here is a function of (seed, epoch, sample, view), so a run sees the same batches and the
same pixels on any number of processes and workers, and after a resume.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from contralex import distributed
from contralex.data.skipped import NAMED, Skipped
from contralex.errors import ContralexError, remedy
from contralex.spec import code
from contralex.spec.sizes import advice

if TYPE_CHECKING:
    from contralex.parts.views import Views

_log = logging.getLogger("contralex")
_NAMED = 10  # classes whose names are listed
_BAD_IN_A_ROW = 100  # more than this is a disk that went away, not a broken image


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


class Split(ABC):
    """A list of raw items: for images, RGB images of PIL. :class:`Unreadable` is raised for a broken one.

    ``labels`` stand in the order of the items; None where there are none, -1 for a single item without one.
    ``classes`` are the labels' names. ``origin``: where the items are from, if that says more than the kind of data
    does, such as ``folder val``. ``skipped``: the items that could not be read, for the count at the end of a run.
    """

    labels: Sequence[int] | None = None
    classes: Sequence[str] | None = None
    origin: str = ""

    def __init__(self) -> None:
        self.skipped = Skipped()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...

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


class Item(TypedDict):
    index: int
    views: dict[int, Tensor]
    unreadable: dict[str, str]


class Batch(TypedDict):
    """``index`` (B,); ``views``: for each view (B, ...); ``unreadable``: the paths of those that others were taken for,
    with the reason."""

    index: Tensor
    views: dict[int, Tensor]
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Order:
    """Which sample stands where: a shuffle for each epoch, cut into global batches. A function of (seed, epoch)."""

    population: int
    batch: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches of an epoch. An incomplete last one is left out; filling it up would repeat samples, and a sample's
        second copy is a false negative."""
        return self.population // self.batch

    def of(self, epoch: int) -> Tensor:
        """(population,) the samples in the order of this epoch."""
        return torch.randperm(self.population, generator=torch.Generator().manual_seed(mix(self.seed, epoch)))

    def stand_ins(self, epoch: int, index: int) -> Iterator[int]:
        """Who may stand in for a sample: those at its place in the other batches, the next batch first.

        So two samples of a batch never get the same stand-in, nor one that is in the batch itself.
        """
        order, places = _order_and_places(self, epoch)
        step, place = divmod(int(places[index]), self.batch)
        for later in range(1, self.steps):
            yield int(order[(step + later) % self.steps * self.batch + place])


@lru_cache(maxsize=1)  # 16 bytes for each sample, in processes that have met an unreadable one
def _order_and_places(order: Order, epoch: int) -> tuple[Tensor, Tensor]:
    """(population,) who stands where, and where each stands."""
    drawn = order.of(epoch)
    return drawn, torch.argsort(drawn)


class ViewDataset(Dataset[Item]):
    """The views of (epoch, index), for global batches of ``batch`` samples.

    Batches must have the same samples on any number of processes, so an unreadable item cannot be left out: a sample
    of another batch stands in, under its own index, and the item says which was unreadable.
    """

    def __init__(self, split: Split, views: Views, seed: int, batch: int) -> None:
        self.split = split
        self.views = views
        self.seed = seed
        self.order = Order(len(split), batch, seed)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, at: tuple[int, int]) -> Item:
        epoch, wanted = at
        index, raw, unreadable = self._readable(epoch, wanted)
        before = torch.random.get_rng_state()  # in the main process, training draws from this generator too
        try:
            views = {}
            for view in range(self.views.count):
                torch.default_generator.manual_seed(mix(self.seed, epoch, index, self.views.draw(view)))
                views[view] = self.views.make(raw, view)
        finally:
            torch.random.set_rng_state(before)
        return {"index": index, "views": views, "unreadable": unreadable}

    def _readable(self, epoch: int, wanted: int) -> tuple[int, Any, dict[str, str]]:
        try:
            return wanted, self.split[wanted], {}
        except Unreadable as error:
            unreadable = {error.path: error.reason}
        for index in islice(self.order.stand_ins(epoch, wanted), _BAD_IN_A_ROW - 1):
            try:
                return index, self.split[index], unreadable
            except Unreadable as error:
                unreadable[error.path] = error.reason
        if len(unreadable) == _BAD_IN_A_ROW:
            last, reason = list(unreadable.items())[-1]
            raise ContralexError(
                f"{len(unreadable)} items in a row cannot be read, the last of them {last}; see whether the disk that "
                f"holds the data is still there. The reason: {reason}"
            )
        first, reason = next(iter(unreadable.items()))
        raise ContralexError(
            f"{first} cannot be read, and no sample of another batch can be taken for it, of which there are "
            f"{self.order.steps - 1}; remove the file, or set train.batch_size to a smaller number. "
            f"The reason: {reason}"
        )


def collate(items: Sequence[Item]) -> Batch:
    return {
        "index": torch.tensor([item["index"] for item in items]),
        "views": {view: torch.stack([item["views"][view] for item in items]) for view in items[0]["views"]},
        "unreadable": {path: reason for item in items for path, reason in item["unreadable"].items()},
    }


class EvalDataset(Dataset[tuple[int, Tensor | Unreadable]]):
    """(index, the item as evaluation sees it), without chance; the fault in place of an unreadable item."""

    def __init__(self, split: Split, views: Views) -> None:
        self.split = split
        self.views = views

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[int, Tensor | Unreadable]:
        try:
            return index, self.views.plain(self.split[index])
        except Unreadable as fault:
            return index, fault


def collate_plain(items: Sequence[tuple[int, Tensor | Unreadable]]) -> tuple[Tensor, Tensor | None, list[Unreadable]]:
    """Indices (B',) and inputs (B', ...) of the items that could be read (None where none could), and the faults."""
    readable = [(index, item) for index, item in items if isinstance(item, Tensor)]
    inputs = torch.stack([item for _, item in readable]) if readable else None
    index = torch.tensor([index for index, _ in readable], dtype=torch.long)
    return index, inputs, [item for _, item in items if isinstance(item, Unreadable)]


def load(dataset: Dataset[Any], collate_fn: Callable[[Any], Any], **options: Any) -> Iterator[Any]:
    """The batches of a torch ``DataLoader`` with these options. A user's mistake that a worker meets is raised here
    as it was; of itself torch would hand on its traceback as text."""
    try:
        for batch in DataLoader(_Caught(dataset), collate_fn=partial(_collated, collate_fn), **options):
            if isinstance(batch, ContralexError):
                raise batch
            yield batch
    except Exception as error:
        _let_workers_go(error)
        raise


def _let_workers_go(error: BaseException | None) -> None:
    """The frames of a failed loader hold its workers. Those end with the loader; at the end of the process they would
    be waited for in vain, because they leave SIGTERM to the main process."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class _Caught(Dataset[Any]):
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    # A worker that is not forked reads this from a pickle. Classes of the files that a spec names in ``code`` are
    # known there only once the files were run, so what may hold such classes is a pickle inside.
    def __getstate__(self) -> tuple[list[tuple[str, bytes]], Any]:
        if not code.anything_loaded():
            return [], self.dataset
        pickled = pickle.dumps(self.dataset)
        return code.needed_by(pickled), pickled

    def __setstate__(self, state: tuple[list[tuple[str, bytes]], Any]) -> None:
        files, held = state
        code.run_again(files)
        self.dataset = pickle.loads(held) if isinstance(held, bytes) else held

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, at: Any) -> Any:
        try:
            return self.dataset[at]
        except ContralexError as error:
            return error


def _collated(collate_fn: Callable[[Any], Any], items: Sequence[Any]) -> Any:
    mistakes = (item for item in items if isinstance(item, ContralexError))
    return next(mistakes, None) or collate_fn(items)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """The batches of a whole run, from ``start_step`` on, as lists of (epoch, index).

    Global batch s of an epoch is ``order[s·B:(s+1)·B]``, and rank r of W takes its r-th part of B/W: joined in the
    order of the ranks, the parts are the batch of one process. One iteration covers all epochs, so a loader's workers
    never restart.
    """

    def __init__(
        self, population: int, batch: int, seed: int, epochs: int, rank: int = 0, world: int = 1, start_step: int = 0
    ) -> None:
        check_share(batch, world)
        check_population(population, batch, None, "The data set")
        self.order = Order(population, batch, seed)
        self.epochs = epochs
        self.start_step = start_step
        self.part = slice(rank * batch // world, (rank + 1) * batch // world)

    def __len__(self) -> int:
        return max(self.epochs * self.order.steps - self.start_step, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first, offset = divmod(self.start_step, self.order.steps)
        for epoch in range(first, self.epochs):
            order = self.order.of(epoch)
            for step in range(offset, self.order.steps):
                batch = order[step * self.order.batch :][: self.order.batch]
                yield [(epoch, index) for index in batch[self.part].tolist()]
            offset = 0


def mix(*numbers: int) -> int:
    """A hash of integers, stable across processes and versions, whose every bit depends on every number.

    Source: SplitMix64's finaliser (Steele, Lea & Flood, 2014, section 4), folded over the numbers.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _BITS
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _BITS
        state ^= state >> 31
    return state


_BITS = (1 << 64) - 1


def check_share(batch: int, processes: int) -> None:
    """Whether every process can have an equal part of a batch."""
    if batch % processes:
        lower = batch - batch % processes
        nearest = lower if lower >= 2 * processes else 2 * processes  # one sample each is too few for most methods
        raise ContralexError(
            f"train.batch_size is {batch} over all processes, which {processes} processes cannot share evenly. Try:"
            + remedy("--set", f"train.batch_size={nearest}")
        )


def check_population(population: int, batch: int, queue: tuple[str, int] | None, where: str) -> None:
    """Whether so many samples can fill a batch and a queue. ``queue``: the field that says its size, and the size.
    ``where`` names the data: ``image_folder at ./photos``."""
    if population < batch:
        raise ContralexError(
            f"{where} has {population} sample{'s' if population != 1 else ''} to train on, fewer than one batch of "
            f"{batch}. {advice(population, distributed.world())}"
        )
    if queue is not None and queue[1] > population:
        raise ContralexError(
            f"method.negatives.{queue[0]} ({queue[1]}) is larger than the data set ({population}), so that every "
            f"sample would meet its own old keys; set it to at most {population}:"
            + remedy("--set", f"method.negatives.{queue[0]}={population}")
        )
