"""The values that flow through a step: rows and targets; dictionaries are in :mod:`contralex.lookup.dictionary`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed, kept_indices, late_checks, row_layout
from contralex.lookup.clock import Clock
from contralex.lookup.names import IMAGE, MAIN
from contralex.lookup.row_layout import Block, Layout
from contralex.lookup.weights import DenseWeights, TiledWeights

_Form = TypeVar("_Form", Tensor, TiledWeights)


@dataclass(frozen=True)
class Rows:
    """Encoded vectors, each with three tags that say what it stands for.

    With these tags "the positive of this query" is one question for an image, a patch and a caption.
    """

    vectors: Tensor
    """(R, D)"""
    sample: Tensor
    """(R,) the index of the sample in the data set, or -1 for none."""
    view: Tensor
    """(R,) the number of the view of that sample."""
    position: Tensor
    """(R,) the position inside the view: a patch, a time step. It is 0 where a view is one vector."""

    layout: Layout | None = field(default=None, repr=False, compare=False)
    """What is known on the host of how these rows lie, where they were made view after view. It is for these tags:
    rows with other tags have none."""
    _of_view: dict[int, Rows] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What :meth:`select_view` has found."""

    def __post_init__(self) -> None:
        if self.layout is not None and not self.layout.describes((self.sample, self.view, self.position)):
            object.__setattr__(self, "layout", None)

    def __len__(self) -> int:
        return self.vectors.shape[0]

    @classmethod
    def from_view(cls, vectors: Tensor, sample: Tensor, view: int, positions: Tensor | None = None) -> Rows:
        """Make the B or B·P rows of one view.

        ``vectors`` is (B, D), or (B, P, D) with ``positions`` (P,), or (B, P) where each sample has positions of its
        own (MAE hides other patches of each). Without ``positions`` they are 0, 1, ... P-1.
        """
        return cls.from_views({view: (vectors, positions)}, sample)

    @classmethod
    def from_views(cls, encoded: Mapping[int, tuple[Tensor, Tensor | None]], sample: Tensor) -> Rows:
        """Rows of several views, view after view: vectors and positions as :meth:`Encoder.keys` returns them."""
        blocks = [
            Block(view, sample, 1 if vectors.dim() == 2 else vectors.shape[1], counted=positions is None)
            for view, (vectors, positions) in encoded.items()
        ]
        parts = [vectors if vectors.dim() == 2 else vectors.flatten(0, 1) for vectors, _ in encoded.values()]
        return cls._from_blocks(parts, [sample] * len(parts), [at for _, at in encoded.values()], blocks)

    @classmethod
    def _from_blocks(
        cls,
        vectors: Sequence[Tensor],
        samples: Sequence[Tensor],
        positions: Sequence[Tensor | None],
        blocks: Sequence[Block],
    ) -> Rows:
        """``vectors`` (R, D) of each block, with its ``samples``, which are those of all processes where the block has
        others' samples."""
        device = vectors[0].device
        tags = (
            _repeat_samples(samples, [block.per_sample for block in blocks]),
            kept_indices.make_runs([(block.view, block.rows) for block in blocks], device),
            _join_positions(positions, blocks, device),
        )
        return cls(_join(vectors), *tags, Layout(tuple(blocks), tags))

    @classmethod
    def cat(cls, parts: Sequence[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        vectors, *tags = (torch.cat([getattr(part, name) for part in parts]) for name in _ROW_FIELDS)
        layouts = [part.layout for part in parts]
        known = [layout for layout in layouts if layout is not None]
        blocks = tuple(block for layout in known for block in layout.blocks)
        layout = Layout(blocks, (tags[0], tags[1], tags[2])) if len(known) == len(layouts) else None
        return cls(vectors, tags[0], tags[1], tags[2], layout)

    @classmethod
    def join(cls, parts: Sequence[Rows], sample: Tensor) -> Rows:
        """Rows of a batch ``sample`` that was encoded in parts: view after view, and in each view part after part."""
        if len(parts) == 1:
            return parts[0]
        joined = cls.cat([part.select_view(view) for view in parts[0].views for part in parts])
        if joined.layout is None or parts[0].layout is None:
            return joined
        blocks = tuple(replace(block, samples=sample) for block in parts[0].layout.blocks)
        return replace(joined, layout=replace(joined.layout, blocks=blocks))

    @classmethod
    def join_batches(cls, batches: Sequence[Rows]) -> Rows:
        """Rows of several batches with the same views: view after view, and in each view batch after batch."""
        if len(batches) == 1:
            return batches[0]
        return cls.cat([cls._join_view([batch.select_view(view) for batch in batches]) for view in batches[0].views])

    @classmethod
    def _join_view(cls, parts: Sequence[Rows]) -> Rows:
        joined, first = cls.cat(parts), parts[0].layout
        if joined.layout is None or first is None:
            return joined
        block = first.blocks[0]
        everyone = replace(block, samples=joined.sample[:: block.per_sample], before=0, after=0)
        return replace(joined, layout=replace(joined.layout, blocks=(everyone,)))

    def select_view(self, view: int) -> Rows:
        known = self._of_view.get(view)
        if known is not None:
            return known
        found = self.layout.find_view(view) if self.layout is not None else None
        if found is None:
            return self[self.view == view]
        block, rows = found
        if rows.stop - rows.start == len(self):
            return self
        selected = self._select_block(block, rows)
        if torch.is_grad_enabled() or not self.vectors.requires_grad:  # else no gradient would come back through it
            self._of_view[view] = selected
        return selected

    def _select_block(self, block: Block, rows: slice) -> Rows:
        is_own = block.per_sample == 1 and not block.has_others
        device, count = self.vectors.device, block.rows
        tags = (
            block.samples if is_own else self.sample[rows],
            kept_indices.make_constant(block.view, count, device),
            kept_indices.make_positions([block.shape], device) if block.counted else self.position[rows],
        )
        return Rows(self.vectors[rows], *tags, Layout((block,), tags))

    def with_view(self, view: int) -> Rows:
        """The same rows, tagged with another view."""
        views = kept_indices.make_constant(view, len(self), self.view.device)
        layout = self.layout
        if layout is not None:
            blocks = tuple(replace(block, view=view) for block in layout.blocks)
            layout = Layout(blocks, (self.sample, views, self.position))
        return Rows(self.vectors, self.sample, views, self.position, layout)

    def __getitem__(self, which: Tensor | slice) -> Rows:
        return Rows(*(getattr(self, name)[which] for name in _ROW_FIELDS))

    def detach(self) -> Rows:
        return Rows(self.vectors.detach(), self.sample, self.view, self.position, self.layout)

    @property
    def views(self) -> tuple[int, ...]:
        """The views of these rows, in the order in which they stand."""
        if self.layout is not None:
            return tuple(block.view for block in self.layout.blocks)
        return tuple(torch.unique_consecutive(self.view).tolist())

    @property
    def per_sample(self) -> int:
        """P, the rows of each sample, where all have as many and they stand together."""
        counts = {block.per_sample for block in self.layout.blocks} if self.layout is not None else set()
        return counts.pop() if len(counts) == 1 else int((self.sample == self.sample[0]).sum())

    @property
    def has_positions(self) -> bool:
        """Whether every view is known to have several rows of each sample."""
        return self.layout is not None and all(block.per_sample > 1 for block in self.layout.blocks)

    @property
    def is_counted(self) -> bool:
        """Whether the positions of each sample are known to be 0, 1, ... P-1."""
        return self.layout is not None and all(block.counted for block in self.layout.blocks)

    def gather(self, *, gradient: bool) -> Rows:
        """The rows of every process in the order that one process would have: view after view, and in each view rank
        after rank. With ``gradient``, backward returns the gradient of the vectors to their process. A collective."""
        if distributed.world() == 1:
            return self if gradient else self.detach()
        vectors = distributed.gather(self.vectors, gradient=gradient)
        if self.layout is not None and not any(block.has_others for block in self.layout.blocks):
            return self._gather_blocks(vectors, self.layout)
        sample, view, position = (distributed.gather(tag) for tag in (self.sample, self.view, self.position))
        everyone = Rows(vectors, sample, view, position)
        if len(self.views) == 1:
            return everyone
        return everyone[torch.cat([(everyone.view == view).nonzero().flatten() for view in self.views])]

    def _gather_blocks(self, vectors: Tensor, layout: Layout) -> Rows:
        """The rows of every process; ``vectors`` (W·R, D) are gathered already, rank after rank."""
        rank, world = distributed.rank(), distributed.world()
        gathered: dict[int, Tensor] = {}
        by_rank = vectors.unflatten(0, (world, -1))
        parts, samples, positions = [], [], []
        for block, rows in layout.slices:
            if id(block.samples) not in gathered:
                gathered[id(block.samples)] = distributed.gather(block.samples)
            everyone = gathered[id(block.samples)]
            samples.append(everyone)
            parts.append(by_rank[:, rows].flatten(0, 1))
            positions.append(
                None if block.counted else distributed.gather(self.position[rows]).unflatten(0, (len(everyone), -1))
            )
        return Rows._from_blocks(parts, samples, positions, [block.spread(rank, world) for block in layout.blocks])

    def select_views(self, views: Sequence[int]) -> Rows:
        """The rows of these views, view after view; the rows themselves where they are of no other."""
        return self if self.views == tuple(views) else Rows.cat([self.select_view(view) for view in views])

    def select_matching(self, queries: Rows, match: Match) -> Rows:
        """The key of each query, as N rows in the order of the queries: the row of view ``match.key`` with the query's
        sample and position. RuntimeError where a query has none."""
        keys = self.select_view(match.key)
        known = queries.find_slice_in(keys)
        if known is None:
            return keys[queries.index_in(keys)]
        return keys if known == slice(0, len(keys)) else keys[known]

    def index_in(self, others: Rows, *, same_view: bool = False) -> Tensor:
        """(R,) the index in ``others`` of the row of the same sample and position. RuntimeError where it is absent: at
        once, or in training as soon as that is known on the host."""
        index = self.find_in(others, same_view=same_view)
        if kept_indices.find_range(index) is None:  # it was searched for
            sentence = "a query has no partner among the keys: it asks for a sample or position that none has"
            late_checks.refuse_if((index < 0).any(), RuntimeError(sentence))
        return index

    def find_slice_in(self, others: Rows, *, same_view: bool = False, view: int | None = None) -> slice | None:
        """The rows in ``others`` of the same samples and positions, where they are known to stand there in this order;
        None where they have to be searched for. It never waits for a GPU. ``view``: that of the rows that are asked
        for, where it is neither the same nor the only one."""
        if self.layout is None or others.layout is None:
            return None
        same_view = same_view or view is not None
        return row_layout.find_slice(self.layout, others.layout, same_view=same_view, view=view)

    def find_in(self, others: Rows, *, same_view: bool) -> Tensor:
        """(R,) as :meth:`index_in`, but a number below 0 where a row is absent, as ``str.find`` beside ``str.index``.

        As an index, that number would be one of the last rows: prefer :meth:`index_in` and :meth:`select_matching`.
        """
        if not len(others):
            return torch.full_like(self.sample, -1)
        known = self.find_slice_in(others, same_view=same_view)
        if known is not None:
            return kept_indices.make_range(known.start, known.stop, self.sample.device)
        if self.layout is not None and others.layout is not None:
            found = row_layout.find_beginnings(self.layout, others.layout, same_view=same_view)
            if found is not None:
                begins, per_sample = found
                is_there = (self.position >= 0) & (self.position < per_sample)
                return torch.where(is_there, begins + self.position, -1)
        return self._search(others, same_view)

    def _search(self, others: Rows, same_view: bool) -> Tensor:
        """As :meth:`find_in`, by the tags. Of rows with the same tags, of a sample that is twice in a batch, the second
        finds the second; the first, where there is no second."""
        mine, theirs = _tags(self, same_view), _tags(others, same_view)
        base = torch.stack([tags.max(dim=0).values for tags in (mine, theirs)]).max(dim=0).values + 1
        mine_key, their_key = _pack(mine, base), _pack(theirs, base)
        order = torch.argsort(their_key, stable=True)
        ordered = their_key[order]
        first = torch.searchsorted(ordered, mine_key)
        first, again = (at.clamp(max=len(order) - 1) for at in (first, first + _count_before(mine_key)))
        candidate = order[torch.where(ordered[again] == mine_key, again, first)]
        is_there = (their_key[candidate] == mine_key) & (self.position >= 0)  # -1 stands for none, and packs as another
        return torch.where(is_there, candidate, torch.full_like(candidate, -1))


_ROW_FIELDS = ("vectors", "sample", "view", "position")


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _repeat_samples(samples: Sequence[Tensor], per_sample: Sequence[int]) -> Tensor:
    """The samples (B,) of each block, each as often as the block has rows of it."""
    first = samples[0]
    if len(set(per_sample)) == 1 and all(each is first for each in samples):
        repeated = first.repeat_interleave(per_sample[0]) if per_sample[0] > 1 else first
        return repeated.repeat(len(samples)) if len(samples) > 1 else repeated
    return torch.cat([each.repeat_interleave(times) for each, times in zip(samples, per_sample, strict=True)])


def _join_positions(positions: Sequence[Tensor | None], blocks: Sequence[Block], device: torch.device) -> Tensor:
    """Those that are given, (P,) or (B, P), and of a block without 0, 1, ... P-1."""
    if all(at is None for at in positions):
        return kept_indices.make_positions([block.shape for block in blocks], device)
    return _join(
        [
            kept_indices.make_positions([block.shape], device)
            if at is None
            else at.to(device).expand(block.shape).flatten()
            for at, block in zip(positions, blocks, strict=True)
        ]
    )


def _tags(rows: Rows, with_view: bool) -> Tensor:
    view = rows.view if with_view else torch.zeros_like(rows.view)
    return torch.stack([rows.sample, view, rows.position], dim=1)


def _count_before(key: Tensor) -> Tensor:
    """(R,) how many rows before this one have the same key (R,)."""
    order = torch.argsort(key, stable=True)
    ordered = key[order]
    among = torch.arange(len(key), device=key.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(among).scatter_(0, order, among)


def _pack(tags: Tensor, base: Tensor) -> Tensor:
    return (tags[:, 0] * base[1] + tags[:, 1]) * base[2] + tags[:, 2]


class Targets:
    """What each query should find: one entry of the dictionary, a distribution over its entries, or a vector.

    ``weights`` are a tensor, or made tile by tile where all of them would be too many.

    They hold at least one of the three. Reading what they do not hold raises a RuntimeError that says so; ask
    ``has_index``, ``has_weights`` or ``has_vectors`` where several may come.
    """

    def __init__(
        self,
        index: Tensor | None = None,
        weights: Tensor | TiledWeights | None = None,
        vectors: Tensor | None = None,
    ) -> None:
        if index is None and weights is None and vectors is None:
            raise ValueError("targets hold nothing: give Targets an index, weights or vectors")
        self._index = index
        self._weights = DenseWeights(weights) if isinstance(weights, Tensor) else weights
        self._vectors = vectors

    @property
    def index(self) -> Tensor:
        """(N,) the entry of the dictionary that each query should find."""
        return self._read(self._index, "index")

    @property
    def has_index(self) -> bool:
        return self._index is not None

    @property
    def weights(self) -> Tensor:
        """(N, P+M) a distribution over the entries of the dictionary for each query."""
        return self.tiled_weights.dense()

    @property
    def tiled_weights(self) -> TiledWeights:
        """``weights`` tile by tile, for a dictionary's :meth:`~contralex.plugin.Dictionary.soft_cross_entropy`."""
        return self._read(self._weights, "weights")

    @property
    def has_weights(self) -> bool:
        return self._weights is not None

    @property
    def vectors(self) -> Tensor:
        """(N, D) the vector that each query should predict."""
        return self._read(self._vectors, "vectors")

    @property
    def has_vectors(self) -> bool:
        return self._vectors is not None

    def tensors(self) -> dict[str, Tensor]:
        """What these targets hold, by name."""
        weights = None if self._weights is None else self._weights.dense()
        forms = {"index": self._index, "weights": weights, "vectors": self._vectors}
        return {name: tensor for name, tensor in forms.items() if tensor is not None}

    def _read(self, form: _Form | None, name: str) -> _Form:
        if form is None:
            held = " and ".join(self.tensors())
            raise RuntimeError(
                f"targets.{name} is absent: these targets hold {held}; use a loss that reads {held}, or targets that "
                f"give {name}"
            )
        return form


@dataclass(frozen=True)
class Match:
    """Which query view looks up which key view.

    >>> import contralex
    >>> both_ways = [contralex.Match(query=0, key=1), contralex.Match(query=1, key=0)]
    """

    query: int
    key: int


class _ClosedCache(dict[Any, Any]):
    """The cache of a step of several look-ups, each of which has its own."""

    def _refuse(self, *_: object) -> NoReturn:
        raise ContralexError(
            "update() reads step.cache, and with train.accumulate a step has one for each look-up; the part must read "
            "step.caches. Until it does:" + remedy("--set", "train.accumulate=1")
        )

    __getitem__ = __contains__ = get = pop = _refuse


@dataclass
class Step:
    """The moment of training at which a step happens. Randomness is a function of it and of nothing else.

    >>> import contralex
    >>> step = contralex.Step(contralex.Clock(step=0, total=10, per_epoch=2), seed=0, batch=32)
    """

    clock: Clock
    seed: int
    """The seed of the run."""
    batch: int
    """The number of samples that are looked up together, over all processes."""
    cache: dict[Any, Any] = field(default_factory=dict)
    """It lives as long as the step: a target generator keeps here what several matches share, or what ``update`` needs,
    which reads it in :attr:`caches`."""
    micro_batch: int | None = None
    """The most samples that each process encodes at once; None: its whole part of the batch."""
    part: int = 0
    """Which of the optimiser step's look-ups this is, where ``train.accumulate`` has it make several."""
    look_ups: tuple[Step, ...] = ()
    """In ``update``, where the optimiser step was several look-ups: theirs, in order."""
    queries: dict[str, Rows] = field(default_factory=dict)
    """This process's queries, by the output of the encoder that they are; after the look-up, without gradient."""
    keys: dict[str, Rows] = field(default_factory=dict)
    """The keys, by the output: of every process where they were gathered; after the look-up, without gradient."""
    output: str = IMAGE
    """The output of the encoder that the present look-up asks for: ``queries`` and ``keys`` have the rows of all its
    views under this name."""
    _others: dict[str, Step] = field(default_factory=dict, repr=False)
    """What :meth:`of_look_up` has made."""

    def of_look_up(self, name: str) -> Step:
        """The same moment for the parts of a look-up, with a cache of its own: parts of one class in two look-ups keep
        different things under one name. The main one's is the step itself."""
        if name == MAIN:
            return self
        if name not in self._others:
            self._others[name] = (
                Step.join([step.of_look_up(name) for step in self.look_ups])
                if self.look_ups
                else replace(self, cache={}, _others={})
            )
        own = self._others[name]
        own.queries, own.keys = self.queries, self.keys
        return own

    def asked(self, output: str) -> Rows:
        """The queries of an output. RuntimeError where nothing was looked up in this step."""
        if output not in self.queries:
            raise RuntimeError("nothing was looked up in this step; update() needs the Step that look_up() had")
        return self.queries[output]

    def detach_rows(self) -> None:
        """Leave the graph of the look-up behind."""
        asked, found = self.queries, self.keys
        self.queries = {output: rows.detach() for output, rows in asked.items()}
        self.keys = {
            output: self.queries[output] if rows is asked.get(output) else rows.detach()
            for output, rows in found.items()
        }

    @classmethod
    def join(cls, look_ups: Sequence[Step]) -> Step:
        """The step that ``update`` gets after these look-ups."""
        first = look_ups[0]
        if len(look_ups) == 1:
            return first
        batch = sum(step.batch for step in look_ups)
        queries, keys = (
            {of: Rows.join_batches([rows(step)[of] for step in look_ups]) for of in rows(first)}
            for rows in (attrgetter("queries"), attrgetter("keys"))
        )
        return replace(
            first, batch=batch, cache=_ClosedCache(), look_ups=tuple(look_ups), queries=queries, keys=keys, _others={}
        )

    @property
    def caches(self) -> list[dict[Any, Any]]:
        """For ``update``: the cache of each look-up that the optimiser step was made of, mostly one."""
        return [step.cache for step in self.look_ups] or [self.cache]

    def generator(self, purpose: int | str) -> torch.Generator:
        """A new random generator on the CPU that every process seeds alike, one for each purpose and step. Two parts
        that name the same purpose draw the same, so a plugin names its own: ``step.generator("contralex-mine")``."""
        number = zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose
        mixed = (self.seed * 1_000_003 + self.clock.step) * 1_000_003 + number
        if self.part:  # each look-up of a step draws its own
            mixed = mixed * 1_000_003 + self.part
        return torch.Generator().manual_seed(mixed % (2**63 - 1))


@dataclass(frozen=True)
class Answer:
    """What a look-up gave."""

    loss: Tensor
    """The mean loss over this process's queries, without the look-up's weight, a scalar."""
    accuracy: Tensor
    """The fraction of this process's queries whose best entry is the one that they should find (top-1), a scalar."""
    entries: int
    """The number of entries that a query was compared with; 0 where there is no dictionary."""
    keys: Rows
    """The keys in which was looked up, of every process where they were gathered."""
    added: int = 1
    """How many losses were added, where the loss is a sum."""

    def detach(self) -> Answer:
        return replace(self, loss=self.loss.detach(), keys=self.keys.detach())


@dataclass(frozen=True)
class StepResult:
    """What a step of :class:`~contralex.lookup.step.LookUp` returns."""

    loss: Tensor
    """The mean loss over this process's queries, a scalar with gradient."""
    accuracy: Tensor
    """The fraction of this process's queries whose best entry is the one that they should find (top-1), a scalar."""
    keys: Rows
    """The keys of every process, which :meth:`LookUp.update` takes."""
    entries: int
    """The number of entries that a query was compared with; 0 where there is no dictionary."""
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """What each look-up gave, by its name, where there are several: the method's own first, whose accuracy, keys and
    entries are above. They are without gradient."""
