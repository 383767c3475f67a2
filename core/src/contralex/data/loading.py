"""Which samples make a batch, and how a sample becomes views.

Everything random here is a function of (seed, epoch, sample, view), so a run sees the same batches and the
same pixels on any number of processes and workers, and after a resume.
"""

from __future__ import annotations

import atexit
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Protocol, TypedDict
from weakref import WeakSet

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from contralex.data import workers
from contralex.data.base import Split, Unreadable
from contralex.data.packed import PackedViews
from contralex.data.parcels import Parcel
from contralex.data.photographs import Photograph, ScaledImage
from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.lookup.view import ViewBatch, map_pixels, stack_views

_PIXELS = 1 << 19  # of the images that a worker holds decoded before it makes views of them
_TOGETHER = 1  # beside the seed: what a batch draws, and no sample alone
_BAD_IN_A_ROW = 100  # more than this is a disk that went away, not a broken image


Place = tuple[int, int] | tuple[int, int, int]  # (epoch, index), or (epoch, index, place in the epoch's order)


class Item(TypedDict):
    index: int
    views: dict[int, ViewBatch]
    unreadable: dict[str, str]


class Batch(TypedDict):
    """``index`` (B,); ``views``: for each view (B, ...), alone or in company; ``unreadable``: the paths of those that
    others were taken for, with the reason."""

    index: Tensor
    views: dict[int, ViewBatch]
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
        return torch.randperm(self.population, generator=torch.Generator().manual_seed(mix_seed(self.seed, epoch)))

    def stand_ins(self, epoch: int, index: int, twice: bool = False) -> Iterator[int]:
        """Who may stand in for a sample: those at its place in the other batches, the next batch first.

        So two samples of a batch never get the same stand-in, nor one that is in the batch itself. With ``twice``, a
        sample may be in a batch twice, so those of its own batch follow.
        """
        order, places = _order_and_places(self, epoch)
        step, place = divmod(int(places[index]), self.batch)
        for later in range(1, self.steps):
            yield int(order[(step + later) % self.steps * self.batch + place])
        for later in range(1, self.batch if twice else 1):
            yield int(order[step * self.batch + (place + later) % self.batch])


@lru_cache(maxsize=1)  # 16 bytes for each sample, in processes that have met an unreadable one
def _order_and_places(order: Order, epoch: int) -> tuple[Tensor, Tensor]:
    """(population,) who stands where, and where each stands."""
    drawn = order.of(epoch)
    return drawn, torch.argsort(drawn)


class Items(Protocol):
    """What a loader reads: as many items as it is long, those of a batch together, by their indices."""

    def __len__(self) -> int: ...

    def __getitems__(self, wanted: Sequence[Any]) -> list[Any]: ...


@dataclass(frozen=True)
class _Sample:
    """An item as the split gives it, under its own index, and which could not be read before it. ``share``: of what its
    batch has drawn."""

    epoch: int
    index: int
    raw: Any
    unreadable: dict[str, str]
    share: Any


class ViewDataset(Dataset[Item]):
    """The views of (epoch, index), for global batches of ``batch`` samples; those of ``only``, where not all are made.

    Batches must have the same samples on any number of processes, so an unreadable item cannot be left out: a sample
    of another batch stands in, under its own index, and the item says which was unreadable. ``packed``: the views are
    what :meth:`Views.pack_drawn` gives, and :func:`unpack` makes views of a batch of them. ``twice``: where no other
    batch has a stand-in, it may be of the same batch, in which it is then twice: for losses that compare no samples
    with each other. Where the views of a batch share draws, an item may be asked for by (epoch, index, place in the
    epoch's order), else the place is looked up.
    """

    def __init__(
        self,
        split: Split,
        views: Views,
        seed: int,
        batch: int,
        only: Sequence[int] | None = None,
        packed: bool = False,
        twice: bool = False,
    ) -> None:
        self.split = split
        self.views = views
        self.made = range(views.count) if only is None else tuple(only)
        self.seed = seed
        self.order = Order(len(split), batch, seed)
        self.packed = packed
        self.twice = twice
        self._together = DrawnTogether(views, self.order) if views.shares_draws else None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, at: Place) -> Item:
        return self.__getitems__([at])[0]

    def __getitems__(self, wanted: Sequence[Place]) -> list[Item]:
        """Several items, which a ``DataLoader`` asks for at once: small images are then worked on together."""
        before = torch.random.get_rng_state()  # in the main process, training draws from this generator too
        try:
            return [item for samples in self._read(wanted) for item in self._make(samples)]
        finally:
            torch.random.set_rng_state(before)

    def _read(self, wanted: Sequence[Place]) -> Iterator[list[_Sample]]:
        """The samples, in groups that have few pixels, because a group is held in memory."""
        group: list[_Sample] = []
        pixels = 0
        for epoch, index, *place in wanted:
            share = self._together.share(epoch, index, *place) if self._together else None
            sample = self._readable(epoch, index, share)
            group.append(sample)
            pixels += _count_pixels(sample.raw)
            if pixels >= _PIXELS:
                yield group
                group, pixels = [], 0
        if group:
            yield group

    def _make(self, samples: Sequence[_Sample]) -> Iterator[Item]:
        views = {view: self._make_view(samples, view) for view in self.made}
        for at, sample in enumerate(samples):
            made: dict[int, Any] = {view: each[at] for view, each in views.items()}
            yield {"index": sample.index, "views": made, "unreadable": sample.unreadable}

    def _make_view(self, samples: Sequence[_Sample], view: int) -> Sequence[ViewBatch | PackedViews]:
        make = self.views.pack_drawn if self.packed else self.views.make_drawn
        return make([sample.raw for sample in samples], view, self._draw(samples, view))

    def _draw(self, samples: Sequence[_Sample], view: int) -> Sequence[Any]:
        draw = self.views.draw(view)
        seeds = [mix_seed(self.seed, sample.epoch, sample.index, draw) for sample in samples]
        if self._together:
            return self._draw_with_shares(samples, view, seeds)
        return self.views.draw_seeded([sample.raw for sample in samples], view, seeds)

    def _draw_with_shares(self, samples: Sequence[_Sample], view: int, seeds: Sequence[int]) -> Sequence[Any]:
        parameters = []
        for sample, seed in zip(samples, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            parameters.append(self.views.draw_with_share(sample.raw, view, sample.share))
        return parameters

    def _read_sample(self, epoch: int, index: int, unreadable: dict[str, str], share: Any) -> _Sample:
        if not self.views.decodes_scaled:
            return _Sample(epoch, index, self.split[index], unreadable, share)
        sample = _Sample(epoch, index, self.split.open_item(index), unreadable, share)
        photograph = sample.raw
        if not isinstance(photograph, Photograph):
            return sample
        divisor = 1
        if self.views.may_scale(photograph.size):
            drawn = [self._draw([sample], view)[0] for view in range(self.views.count)]
            divisor = self.views.choose_divisor(drawn)
        return replace(sample, raw=photograph.decode(divisor))

    def _readable(self, epoch: int, wanted: int, share: Any) -> _Sample:
        try:
            return self._read_sample(epoch, wanted, {}, share)
        except Unreadable as error:
            unreadable = {error.path: error.reason}
        for index in islice(self.order.stand_ins(epoch, wanted, self.twice), _BAD_IN_A_ROW - 1):
            try:
                return self._read_sample(epoch, index, unreadable, share)
            except Unreadable as error:
                unreadable[error.path] = error.reason
        if len(unreadable) == _BAD_IN_A_ROW or self.twice:
            last, reason = list(unreadable.items())[-1]
            raise ContralexError(
                f"{len(unreadable)} items in a row cannot be read, the last of them {last}; see whether the "
                f"disk that holds the data is still there. The reason: {reason}"
            )
        first, reason = next(iter(unreadable.items()))
        raise ContralexError(
            f"{first} cannot be read, and no sample of another batch can be taken for it, of which there are "
            f"{self.order.steps - 1}; remove the file, or set train.batch_size to a smaller number. "
            f"The reason: {reason}"
        )


def _count_pixels(raw: Any) -> int:
    """Of an item that may be held in memory beside others. What is neither an image nor numbers is held alone."""
    image = raw.image if isinstance(raw, ScaledImage) else raw
    if isinstance(image, Image):
        return image.width * image.height
    return image.numel() if isinstance(image, Tensor) else _PIXELS


class DrawnTogether:
    """What the samples of a global batch draw together; that of the last batch is kept, for all its samples."""

    def __init__(self, views: Views, order: Order) -> None:
        self._views = views
        self._order = order
        self._drawn: tuple[int, Sequence[Any]] = (-1, ())

    def share(self, epoch: int, index: int, place: int | None = None) -> Any:
        """That of the sample ``index``, which stands at ``place`` of this epoch's order."""
        if place is None:
            place = int(_order_and_places(self._order, epoch)[1][index])
        within, at = divmod(place, self._order.batch)
        step = epoch * self._order.steps + within
        if self._drawn[0] != step:
            generator = torch.Generator().manual_seed(mix_seed(self._order.seed, _TOGETHER, step))
            shares = self._views.draw_for_batch(self._order.batch, generator)
            if len(shares) != self._order.batch:
                raise ContralexError(
                    f"{type(self._views).__name__}.draw_for_batch gave {len(shares)} shares for a batch of "
                    f"{self._order.batch} samples; it must give one for each."
                )
            self._drawn = step, shares
        return self._drawn[1][at]


def collate(items: Sequence[Item]) -> Batch:
    return {
        "index": torch.tensor([item["index"] for item in items]),
        "views": {view: _join([item["views"][view] for item in items]) for view in items[0]["views"]},
        "unreadable": {path: reason for item in items for path, reason in item["unreadable"].items()},
    }


def _join(views: Sequence[Any]) -> Any:
    return PackedViews.join(views) if isinstance(views[0], PackedViews) else stack_views(views)


def unpack(batch: Batch, views: Views) -> Batch:
    """The batch with its views, where it has what they travel as."""
    made = {view: _unpack_view(packed, views, view) for view, packed in batch["views"].items()}
    return {**batch, "views": made}


def _unpack_view(packed: Any, views: Views, view: int) -> ViewBatch:
    if isinstance(packed, PackedViews):
        return views.unpack(packed, view)
    return map_pixels(partial(views.unpack, view=view), packed)


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

    def __getitems__(self, wanted: Sequence[int]) -> list[tuple[int, Tensor | Unreadable]]:
        return [self[index] for index in wanted]


def collate_plain(items: Sequence[tuple[int, Tensor | Unreadable]]) -> tuple[Tensor, Tensor | None, list[Unreadable]]:
    """Indices (B',) and inputs (B', ...) of the items that could be read (None where none could), and the faults."""
    readable = [(index, item) for index, item in items if isinstance(item, Tensor)]
    inputs = torch.stack([item for _, item in readable]) if readable else None
    index = torch.tensor([index for index, _ in readable], dtype=torch.long)
    return index, inputs, [item for _, item in items if isinstance(item, Unreadable)]


def load(
    dataset: Items, collate_fn: Callable[[Any], Any], *, num_workers: int = 0, pin_memory: bool = False, **options: Any
) -> Iterator[Any]:
    """The batches of a torch ``DataLoader`` with these options. Its workers begin and end as
    :mod:`contralex.data.workers` says; where one dies, :class:`contralex.data.workers.WorkerDied` is raised, here or
    wherever the main thread is just then. A user's mistake that a worker meets is raised here as it was; of itself
    torch would hand on its traceback as text."""
    loader = DataLoader(
        _Caught(dataset),
        collate_fn=partial(_collated, collate_fn, pin_memory),
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=workers.quiet_worker,
        multiprocessing_context=workers.worker_context() if num_workers else None,
        **options,
    )
    loaded = _open_batches(loader)
    _begun.add(loaded)
    return loaded


_begun: WeakSet[Generator[Any, None, None]] = WeakSet()


def _open_batches(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    try:
        for sent in _begin(loader):
            batch = sent.open() if isinstance(sent, Parcel) else sent
            if isinstance(batch, ContralexError):
                raise batch
            yield batch
    except GeneratorExit:  # nobody asks for more, and nothing has failed here
        raise
    except BaseException as error:
        died = workers.explain_death(error) if loader.num_workers else None
        _let_workers_go(error)
        if died is not None:
            raise died from error
        raise


def _begin(loader: DataLoader[Any]) -> Iterator[Any]:
    begun = iter(loader)
    if loader.num_workers:
        workers.watch_workers()
    return begun


@atexit.register  # after multiprocessing's own, so that it is called before that one, which waits for the workers
def _end_workers() -> None:
    """Of loaders that something still holds when the process ends, such as the traceback of an uncaught error."""
    for loaded in list(_begun):
        with suppress(ValueError):  # another thread is in it
            loaded.close()


def _let_workers_go(error: BaseException | None) -> None:
    """The frames of a failed loader hold its workers. Those end with the loader; at the end of the process they would
    be waited for in vain, because they leave SIGTERM to the main process (:func:`workers.quiet_worker`)."""
    with _without_word_of_workers():
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__


@contextmanager
def _without_word_of_workers() -> Iterator[None]:
    """The handler of SIGCHLD raises for a dead worker wherever Python is just then. Where a loader is ended because
    of that worker, it would be a second time, inside of ``__del__``, which can only print it."""
    if not workers.hears_of_children():
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler if handler is not None else signal.SIG_DFL)


class _Caught(Dataset[Any]):
    """With a user's mistake in place of the items that it was met in."""

    def __init__(self, dataset: Items) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, wanted: Sequence[Any]) -> list[Any]:
        try:
            return self.dataset.__getitems__(wanted)
        except ContralexError as error:
            return [error]


def _collated(collate_fn: Callable[[Any], Any], pinned: bool, items: Sequence[Any]) -> Any:
    """Memory is pinned by torch's thread, which has to see the tensors."""
    mistakes = (item for item in items if isinstance(item, ContralexError))
    batch = next(mistakes, None) or collate_fn(items)
    return batch if pinned or get_worker_info() is None else Parcel(batch)


class EpochSampler(Sampler[list[Place]]):
    """The batches of a whole run, from ``start_step`` on, as lists of (epoch, index), or of (epoch, index, place in the
    epoch's order) with ``places``.

    Global batch s of an epoch is ``order[s·B:(s+1)·B]``, and rank r of W takes its r-th part of B/W: joined in the
    order of the ranks, the parts are the batch of one process. Where each batch is ``parts`` look-ups, rank r takes its
    r-th part of each of them, one after the other. One iteration covers all epochs, so a loader's workers never
    restart.
    """

    def __init__(
        self,
        population: int,
        batch: int,
        seed: int,
        epochs: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        parts: int = 1,
        places: bool = False,
    ) -> None:
        if batch % (world * parts) or population < batch:
            raise ValueError(
                f"{world} processes cannot share batches of {batch}, each in {parts} parts, of {population} samples"
            )
        self.order = Order(population, batch, seed)
        self.epochs = epochs
        self.start_step = start_step
        self.places = places
        self.own = torch.arange(batch).view(parts, world, -1)[:, rank].flatten()  # (B/W,) places in a batch

    def __len__(self) -> int:
        return max(self.epochs * self.order.steps - self.start_step, 0)

    def __iter__(self) -> Iterator[list[Place]]:
        first, offset = divmod(self.start_step, self.order.steps)
        for epoch in range(first, self.epochs):
            order = self.order.of(epoch)
            for step in range(offset, self.order.steps):
                begin = step * self.order.batch
                batch = order[begin:][: self.order.batch]
                if self.places:
                    found = zip(batch[self.own].tolist(), self.own.tolist(), strict=True)
                    yield [(epoch, index, begin + at) for index, at in found]
                else:
                    yield [(epoch, index) for index in batch[self.own].tolist()]
            offset = 0


def mix_seed(*numbers: int) -> int:
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
