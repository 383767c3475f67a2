"""Negative sources: nothing, the batch, a queue, a memory bank, prototypes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex import distributed
from contralex.lookup import Dictionary, Match, Rows, Step
from contralex.parts.base import BuildContext, NegativeSource

if TYPE_CHECKING:
    from contralex.vocabulary import negatives as specs

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

    The same on every process, in the same order. Starts as random unit vectors, as in MoCo's code.
    """

    vectors: Tensor
    sample: Tensor
    pointer: Tensor

    def __init__(self, spec: specs.Queue, context: BuildContext) -> None:
        super().__init__()
        start = torch.randn(spec.size, context.dim)
        self.register_buffer("vectors", F.normalize(start, dim=1))
        self.register_buffer("sample", torch.full((spec.size,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        matched = keys.of_view(match.key)
        positive = matched.vectors[queries.partners_in(matched)]
        rows = Rows(self.vectors, self.sample, torch.full_like(self.sample, -1), torch.zeros_like(self.sample))
        # A copy, because the queue is written in place after the look-up, before another backward may need it.
        return Dictionary(own=positive.unsqueeze(1), shared=self.vectors.clone(), rows=rows)

    def update(self, keys: Rows, step: Step) -> None:
        # A batch larger than the queue leaves its newest keys; one that crosses the end goes on at the start.
        size = len(self.vectors)
        newest = keys.vectors[-size:]
        places = (self.pointer + torch.arange(len(newest), device=self.vectors.device)) % size
        self.vectors[places] = newest.to(self.vectors)
        self.sample[places] = keys.sample[-size:]
        self.pointer.copy_((self.pointer + len(newest)) % size)


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
        self.momentum = spec.momentum
        self.population = context.population
        self.views = context.key_views
        bound = 1 / math.sqrt(context.dim / 3)  # about unit norm, as the official code starts it
        for view in self.views:
            bank = torch.rand(context.population, context.dim) * 2 * bound - bound
            self.register_buffer(f"bank_{view}", bank)

    def bank(self, view: int) -> Tensor:
        return self.get_buffer(f"bank_{view}")

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        bank = self.bank(match.key)
        if not self.draws:
            everyone = torch.arange(len(bank), device=bank.device)
            zero = torch.zeros_like(everyone)
            rows = Rows(bank, everyone, zero + match.key, zero)
            return Dictionary(shared=bank.clone(), rows=rows)
        # Drawn for the global batch, so that one process and eight draw the same negatives for a sample.
        drawn = torch.randint(self.population, (step.batch, self.draws), generator=step.generator(_DRAW))
        drawn = drawn[distributed.own_slice(len(queries))].to(bank.device)
        places = torch.cat([queries.sample.unsqueeze(1), drawn], dim=1)
        return Dictionary(own=bank[places], population=self.population)

    def update(self, keys: Rows, step: Step) -> None:
        for view in self.views:
            bank, fresh = self.bank(view), keys.of_view(view)
            mixed = self.momentum * bank[fresh.sample] + (1 - self.momentum) * fresh.vectors.to(bank)
            bank[fresh.sample] = F.normalize(mixed, dim=1)


class Prototypes(NegativeSource):
    """Trainable vectors that every query is scored against (SwAV's prototypes, DINO's last layer).

    ``weight`` (K, D), brought to unit rows in place before each step, as SwAV's code does. The key side may
    keep a twin of them (a momentum key encoder does), which targets read as ``key_shared``.
    """

    def __init__(self, spec: specs.Prototypes, context: BuildContext) -> None:
        super().__init__()
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
