"""The core's negative sources: nothing, the batch, a queue, a memory bank, prototypes, classes.

Used alone, a source is asked for a dictionary in each step, and updated after it::

    queue = QueueSource(4096, 128)
    dictionary = queue(queries, keys, Match(query=0, key=1), step)
    queue.update(keys, step)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.kinds.negatives.resizing import resize_queue
from contralex.kinds.negatives.specs import Placement, StoredIn
from contralex.lookup import distributed
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.host_copies import to_device
from contralex.lookup.host_mirror import HostMirror
from contralex.lookup.kept_indices import make_constant, make_range
from contralex.lookup.own_entries import DrawnEntries
from contralex.lookup.precision import at_least_float32
from contralex.lookup.ring_buffer import write_to_ring
from contralex.lookup.shards import Shards, draw_table, own_indices
from contralex.lookup.slots import KeyEncoder, NegativeSource
from contralex.lookup.values import Match, Rows, Step

_DRAW = 2  # the purpose of the step's generator


class NoNegatives(NegativeSource):
    """No dictionary: regression methods compare with the key alone (BYOL, SimSiam)."""

    compares_samples = False

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return Dictionary()


class InBatchSource(NegativeSource):
    """The keys of the batch, from every process.

    ``views``: those of the ``matched`` key view (MoCo v3, Algorithm 1; CLIP), or of ``all`` views, less the query
    itself (SimCLR, Eq. 1).
    """

    def __init__(self, views: Literal["matched", "all"]) -> None:
        super().__init__()
        self.all_views = views == "all"

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        entries = keys if self.all_views else keys.select_view(match.key)
        if not self.all_views or match.query == match.key:
            return Dictionary(shared=entries.vectors, rows=entries)
        itself = queries.find_in(entries, same_view=True)  # a row is never its own key
        return Dictionary(shared=entries.vectors, rows=entries, hidden=itself)


class QueueSource(NegativeSource):
    """The keys of the last steps, first in, first out (MoCo, section 3.2), beside the query's own positive.

    ``size``: keys in the queue. ``dim``: dimensions of a key. ``placement``: every process holds all keys
    (``replicated``), or each holds a part (``sharded``), which saves memory and changes no result. ``dtype``: what keys
    are stored in; look-ups are in float32. ``positive``: whether the query's own key is an entry, too (not in ReSSL,
    arXiv:2107.09282).

    Buffers: ``vectors`` (size, dim), which start as random unit vectors, as in MoCo's code; ``sample`` (size,), the
    sample of each key, -1 where none was written yet; ``pointer``, where the next key goes. The last two are the same
    on every process.

    >>> import contralex
    >>> contralex.QueueSource(size=4096, dim=128).vectors.shape
    torch.Size([4096, 128])
    """

    vectors: Tensor
    sample: Tensor
    pointer: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        placement: Placement = "replicated",
        dtype: StoredIn = "float32",
        positive: bool = True,
    ) -> None:
        super().__init__()
        self.size = size
        self.positive = positive
        self.sharded = placement == "sharded"

        def draw_unit(rows: int) -> Tensor:
            return F.normalize(torch.randn(rows, dim), dim=1)

        self.register_buffer("vectors", draw_table(size, dim, draw_unit, getattr(torch, dtype), sharded=self.sharded))
        self.register_buffer("sample", torch.full((size,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self._next = HostMirror()

    def resize_buffers(self, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        mine = dict(self.named_buffers(recurse=False))
        is_other = mine.keys() <= stored.keys() and len(stored["sample"]) != self.size
        return resize_queue(stored, mine) if is_other else {}

    def sharded_buffers(self) -> Mapping[str, int]:
        return {"vectors": self.size} if self.sharded else {}

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        positive = keys.select_matching(queries, match).vectors.unsqueeze(1) if self.positive else None  # (N, 1, D)
        none, zero = (make_constant(number, self.size, self.sample.device) for number in (-1, 0))
        rows = Rows(self.vectors, self.sample, none, zero)
        return _entries(self.vectors, rows, sharded=self.sharded, own=positive)

    def update(self, keys: Rows, step: Step) -> None:
        start = int(self._next.read(self.pointer)[0])
        write_to_ring(self.vectors, keys.vectors, start, total=self.size if self.sharded else None)
        following = (start + write_to_ring(self.sample, keys.sample, start)) % self.size
        self.pointer.fill_(following)
        self._next.remember(self.pointer, [following])


class MemoryBankSource(NegativeSource):
    """One remembered vector for each training sample (InstDisc, section 3.2).

    The positive is the query's own remembered vector, as entry 0; the negatives are drawn uniformly with replacement,
    as the alias sampler of the official code does (they may repeat, or hit the positive). After the step a vector
    moves by v ← n(m·v + (1−m)·f), n being the division by its length.

    ``dataset_size``: samples. ``dim``: dimensions of a vector. ``draws``: negatives for each query; 0: the whole bank
    is the dictionary. ``redraw``: each match draws its own (PIRL's code), else all matches of a step share them (CMC).
    ``momentum`` (m, from 0 to 1): the weight of the remembered vector when it is renewed. ``placement``: every process
    holds the whole bank (``replicated``), or each holds a part (``sharded``), which saves memory and changes no result.
    ``dtype``: what vectors are stored in; look-ups and renewals are in float32. ``key_views``: the views that are
    remembered, each in a bank of its own (CMC).

    Buffers: ``bank_V`` (dataset_size, dim) for each view V.
    """

    def __init__(
        self,
        dataset_size: int,
        dim: int,
        draws: int,
        redraw: bool = False,
        momentum: float = 0.5,
        placement: Placement = "replicated",
        dtype: StoredIn = "float32",
        key_views: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        self.dataset_size = dataset_size
        self.draws = draws
        self.redraw = redraw
        self.momentum = momentum
        self.views = tuple(key_views)
        self.sharded = placement == "sharded"
        bound = 1 / math.sqrt(dim / 3)  # about unit norm, as the official code starts it

        def draw_uniform(rows: int) -> Tensor:
            return torch.rand(rows, dim) * 2 * bound - bound

        for view in self.views:
            bank = draw_table(dataset_size, dim, draw_uniform, getattr(torch, dtype), sharded=self.sharded)
            self.register_buffer(_bank_name(view), bank)

    def sharded_buffers(self) -> Mapping[str, int]:
        return {_bank_name(view): self.dataset_size for view in self.views} if self.sharded else {}

    def bank(self, view: int) -> Tensor:
        """(M, D), or this process's part of it."""
        return self.get_buffer(_bank_name(view))

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        bank = self.bank(match.key)
        if not self.draws:
            everyone = make_range(0, self.dataset_size, bank.device)
            view, zero = (make_constant(number, self.dataset_size, bank.device) for number in (match.key, 0))
            return _entries(bank, Rows(bank, everyone, view, zero), sharded=self.sharded)
        # Drawn for the global batch, so that one process and eight draw the same negatives for a sample.
        purpose = f"memory_bank {match.query}->{match.key}" if self.redraw else _DRAW
        negatives = torch.randint(self.dataset_size, (step.batch, self.draws), generator=step.generator(purpose))
        negatives = to_device(negatives[distributed.own_slice(len(queries))], bank.device)
        samples = torch.cat([queries.sample.unsqueeze(1), negatives], dim=1)  # (N, 1+K)
        return Dictionary(own=self.entries(match.key, samples), dataset_size=self.dataset_size)

    def entries(self, view: int, samples: Tensor) -> Tensor | DrawnEntries:
        """(N, P, D) what is remembered of ``samples`` (N, P), as a dictionary takes it. A collective where sharded."""
        bank = self.bank(view)
        return Shards(bank, self.dataset_size).rows(samples) if self.sharded else DrawnEntries(bank, samples)

    def update(self, keys: Rows, step: Step) -> None:
        for view in self.views:
            bank, fresh = self.bank(view), keys.select_view(view)
            vectors, index = fresh.vectors, fresh.sample
            if self.sharded:
                here, index = own_indices(index, self.dataset_size)
                vectors = vectors[here]
            renewed = at_least_float32(vectors.to(bank.device))
            mixed = self.momentum * at_least_float32(bank[index]) + (1 - self.momentum) * renewed
            bank[index] = F.normalize(mixed, dim=1).to(bank.dtype)


class PrototypeSource(NegativeSource):
    """Trainable vectors that every query is scored against (SwAV's prototypes).

    ``count``: prototypes. ``dim``: dimensions of each. ``normalize``: bring them to unit length in place before each
    step, as SwAV's code does. ``key_encoder``: whoever makes the keys; it may keep a twin of the prototypes for the key
    side (a momentum key encoder does), which targets read as ``key_shared``. Without one both sides use the same.
    """

    compares_samples = False

    def __init__(self, count: int, dim: int, normalize: bool = True, key_encoder: KeyEncoder | None = None) -> None:
        super().__init__()
        self.num_prototypes = count
        self.layer = nn.Linear(dim, count, bias=False)
        self.normalize = normalize
        # Kept outside the module tree, because its owner there is the key encoder.
        self._key_side = (self.layer if key_encoder is None else key_encoder.side(self.layer),)

    def prepare(self, step: Step) -> None:
        if self.normalize:
            with torch.no_grad():
                for layer in dict.fromkeys((self.layer, *self._key_side)):
                    layer.weight.copy_(F.normalize(layer.weight, dim=1))

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return Dictionary(shared=self.layer.weight, key_shared=self._key_side[0].weight.detach())


class BorrowedSource(NegativeSource):
    """The dictionary of another look-up of the method, which owns it and keeps it up to date (iBOT, arXiv:2111.07832,
    section 3.2: image and patches share their prototypes).

    ``owner``: the negative source of that look-up.
    """

    def __init__(self, owner: NegativeSource) -> None:
        super().__init__()
        self.num_prototypes = owner.num_prototypes
        self.reads, self.compares_samples = owner.reads, owner.compares_samples
        self._owner = (owner,)  # kept outside the module tree, because its owner there is that look-up

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        found: Dictionary = self._owner[0](queries, keys, match, step)
        return found


def borrowed_source(look_up: str, sources: Mapping[str, NegativeSource]) -> BorrowedSource:
    """The dictionary of the ``look_up`` of this name, one of those that are built already (``sources``)."""
    return BorrowedSource(sources[look_up])


class ClassSource(NegativeSource):
    """One entry for each class: the unit vectors of the axes, so that q·e_c is a query's c-th dimension, its logit of
    class c (SimCLR v2, section 2).

    ``count``: classes. ``dim``: dimensions of a query, which must be as many; None where the caller sees to that.
    """

    compares_samples = False

    axes: Tensor

    def __init__(self, count: int, dim: int | None = None) -> None:
        super().__init__()
        if dim is not None and dim != count:
            raise ContralexError(
                f"method.negatives has {count} classes and method.encoder ends in {dim} dimensions; each class needs "
                f"one of its own, so end method.encoder.projector in a layer of width {count}."
            )
        self.register_buffer("axes", torch.eye(count), persistent=False)  # (C, C), nothing to remember

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return Dictionary(shared=self.axes)


def _bank_name(view: int) -> str:
    return f"bank_{view}"


def _entries(table: Tensor, rows: Rows, *, sharded: bool, own: Tensor | None = None) -> Dictionary:
    """The dictionary of each query's ``own`` entries, if it has any, and a whole stored table (M, D), with the tags of
    its ``rows``.

    Of shards a copy in at least float32, because the table is written in place after the look-up, before another
    backward may need it.
    """
    if not sharded:
        return Dictionary(own=own, stored=table, rows=rows)
    copy = at_least_float32(table, copy=True)
    tags = replace(rows, vectors=copy.new_empty(len(rows.sample), 0))  # tags alone: no process has the vectors
    return Dictionary(own=own, shards=Shards(copy, len(rows.sample)), rows=tags)
