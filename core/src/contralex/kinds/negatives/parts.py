"""Negative sources: nothing, the batch, a queue, a memory bank, prototypes, classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.kinds.negatives.resizing import resized_queue
from contralex.lookup import distributed
from contralex.lookup.shards import Shards, drawn, own_places
from contralex.lookup.slots import NegativeSource
from contralex.lookup.values import Dictionary, Match, Rows, Step
from contralex.plugins.building import BuildContext

if TYPE_CHECKING:
    from contralex.kinds.negatives import specs

_DRAW = 2  # the purpose of the step's generator


class Nothing(NegativeSource):
    """No dictionary: regression methods compare with the key alone."""

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return Dictionary()


class InBatch(NegativeSource):
    """The keys of the batch, from every process: of all views (SimCLR) or of the matched view (MoCo v3, CLIP)."""

    def __init__(self, spec: specs.InBatch) -> None:
        super().__init__()
        self.all_views = spec.views == "all"

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        entries = keys if self.all_views else keys.of_view(match.key)
        if not self.all_views or match.query == match.key:
            return Dictionary(shared=entries.vectors, rows=entries)
        mask = torch.ones(len(queries), len(entries), dtype=torch.bool, device=queries.vectors.device)
        itself = queries.places_in(entries, same_view=True)  # a row is never its own key
        there = itself >= 0
        mask[torch.arange(len(queries), device=mask.device)[there], itself[there]] = False
        return Dictionary(shared=entries.vectors, rows=entries, mask=mask)


class Queue(NegativeSource):
    """The keys of the last steps, first in, first out (MoCo, section 3.2), beside the query's own positive.

    The same on every process, in the same order, or in parts; tags and pointer are the same everywhere. Starts as
    random unit vectors, as in MoCo's code.
    """

    vectors: Tensor
    sample: Tensor
    pointer: Tensor

    def __init__(self, spec: specs.Queue, context: BuildContext) -> None:
        super().__init__()
        self.size = spec.size
        self.sharded = spec.placement == "sharded"

        def unit(rows: int) -> Tensor:
            return F.normalize(torch.randn(rows, context.dim), dim=1)

        self.register_buffer("vectors", drawn(spec.size, unit, getattr(torch, spec.dtype), sharded=self.sharded))
        self.register_buffer("sample", torch.full((spec.size,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def resized(self, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        mine = dict(self.named_buffers(recurse=False))
        is_other = mine.keys() <= found.keys() and len(found["sample"]) != self.size
        return resized_queue(found, mine) if is_other else {}

    def sharded_buffers(self) -> Mapping[str, int]:
        return {"vectors": self.size} if self.sharded else {}

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        positive = keys.matching(queries, match).vectors.unsqueeze(1)  # (N, 1, D)
        none, zero = torch.full_like(self.sample, -1), torch.zeros_like(self.sample)
        entries = _entries(self.vectors, Rows(self.vectors, self.sample, none, zero), sharded=self.sharded)
        return entries.replace(own=positive)

    def update(self, keys: Rows, step: Step) -> None:
        # A batch larger than the queue leaves its newest keys; one that crosses the end goes on at the start.
        newest, sample = keys.vectors[-self.size :], keys.sample[-self.size :]
        places = (self.pointer + torch.arange(len(newest), device=self.vectors.device)) % self.size
        self.sample[places] = sample
        self.pointer.copy_((self.pointer + len(newest)) % self.size)
        if self.sharded:
            here, places = own_places(places, self.size)
            newest = newest[here]
        self.vectors[places] = newest.to(self.vectors)


class MemoryBank(NegativeSource):
    """One remembered vector for each training sample (InstDisc, section 3.2).

    The positive is the query's own remembered row, as entry 0; the negatives are ``draws`` rows drawn
    uniformly with replacement, as the alias sampler of the official code does (they may repeat, or hit the
    positive). With no draws the whole bank is the dictionary. A row moves by v ← n(m·v + (1−m)·f) after the
    step; with several key views, each with its own bank (CMC).
    """

    def __init__(self, spec: specs.MemoryBank, context: BuildContext) -> None:
        super().__init__()
        self.draws = spec.draws
        self.redraw = spec.redraw
        self.momentum = spec.momentum
        self.population = context.dataset_size
        self.views = context.key_views
        self.sharded = spec.placement == "sharded"
        bound = 1 / math.sqrt(context.dim / 3)  # about unit norm, as the official code starts it

        def uniform(rows: int) -> Tensor:
            return torch.rand(rows, context.dim) * 2 * bound - bound

        for view in self.views:
            bank = drawn(self.population, uniform, getattr(torch, spec.dtype), sharded=self.sharded)
            self.register_buffer(_bank(view), bank)

    def sharded_buffers(self) -> Mapping[str, int]:
        return {_bank(view): self.population for view in self.views} if self.sharded else {}

    def bank(self, view: int) -> Tensor:
        """(M, D), or this process's part of it."""
        return self.get_buffer(_bank(view))

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        bank = self.bank(match.key)
        if not self.draws:
            everyone = torch.arange(self.population, device=bank.device)
            zero = torch.zeros_like(everyone)
            return _entries(bank, Rows(bank, everyone, zero + match.key, zero), sharded=self.sharded)
        # Drawn for the global batch, so that one process and eight draw the same negatives for a sample.
        purpose = f"memory_bank {match.query}->{match.key}" if self.redraw else _DRAW
        places = torch.randint(self.population, (step.batch, self.draws), generator=step.generator(purpose))
        places = places[distributed.own_slice(len(queries))].to(bank.device)
        places = torch.cat([queries.sample.unsqueeze(1), places], dim=1)  # (N, 1+K)
        return Dictionary(own=self.remembered(match.key, places), dataset_size=self.population)

    def remembered(self, view: int, places: Tensor) -> Tensor:
        """(..., D) what is remembered of the samples at ``places`` (...), in float32. A collective where sharded."""
        bank = self.bank(view)
        return Shards(bank, self.population).rows(places) if self.sharded else bank[places].float()

    def update(self, keys: Rows, step: Step) -> None:
        for view in self.views:
            bank, fresh = self.bank(view), keys.of_view(view)
            vectors, places = fresh.vectors, fresh.sample
            if self.sharded:
                here, places = own_places(places, self.population)
                vectors = vectors[here]
            mixed = self.momentum * bank[places].float() + (1 - self.momentum) * vectors.to(bank.device).float()
            bank[places] = F.normalize(mixed, dim=1).to(bank.dtype)


def _bank(view: int) -> str:
    return f"bank_{view}"


def _entries(table: Tensor, rows: Rows, *, sharded: bool) -> Dictionary:
    """The dictionary of a whole stored table (M, D), with the tags of its ``rows``; in float32.

    A copy, because the table is written in place after the look-up, before another backward may need it.
    """
    copy = table.to(torch.float32, copy=True)
    if not sharded:
        return Dictionary(shared=copy, rows=rows)
    tags = replace(rows, vectors=copy.new_empty(len(rows.sample), 0))  # tags alone: no process has the vectors
    return Dictionary(shards=Shards(copy, len(rows.sample)), rows=tags)


class Prototypes(NegativeSource):
    """Trainable vectors that every query is scored against (SwAV's prototypes, DINO's last layer).

    ``weight`` (K, D), brought to unit rows in place before each step, as SwAV's code does. The key side may
    keep a twin of them (a momentum key encoder does), which targets read as ``key_shared``.
    """

    def __init__(self, spec: specs.Prototypes, context: BuildContext) -> None:
        super().__init__()
        self.count = spec.count
        self.layer = nn.Linear(context.dim, spec.count, bias=False)
        self.normalize = spec.normalize
        assert context.key_encoder is not None
        # Kept outside the module tree, because its owner there is the key encoder.
        self._key_side = (context.key_encoder.side(self.layer),)

    def prepare(self, step: Step) -> None:
        if self.normalize:
            with torch.no_grad():
                for layer in dict.fromkeys((self.layer, *self._key_side)):
                    weight = layer.weight
                    assert isinstance(weight, Tensor)
                    weight.copy_(F.normalize(weight, dim=1))

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        weight = self._key_side[0].weight
        assert isinstance(weight, Tensor)
        return Dictionary(shared=self.layer.weight, key_shared=weight.detach())


class Classes(NegativeSource):
    """The unit vectors of the axes, so that q·e_c is the c-th number of a query, its logit of class c."""

    axes: Tensor

    def __init__(self, spec: specs.Classes, context: BuildContext) -> None:
        super().__init__()
        if context.dim != spec.count:
            raise ContralexError(
                f"method.negatives has {spec.count} classes and method.encoder ends in {context.dim} numbers; each "
                f"class needs a number of its own, so end method.encoder.projector in a layer of width {spec.count}."
            )
        self.register_buffer("axes", torch.eye(spec.count), persistent=False)  # (C, C), nothing to remember

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return Dictionary(shared=self.axes)
