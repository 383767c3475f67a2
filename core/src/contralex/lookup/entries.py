"""The entries of a dictionary in their parts, and the sums over all of them: own ones, shared ones, shards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import distributed, few_scores, kept_indices, streaming
from contralex.lookup.host_copies import read_on_host
from contralex.lookup.own_entries import (
    OwnEntries,
    find_best_own,
    learns,
    read_own,
    sum_own_others,
    sum_own_sigmoid_others,
)
from contralex.lookup.shards import Shards, own_range
from contralex.lookup.streaming import Hidden, Others
from contralex.lookup.weights import GroupWeights, TiledWeights


@dataclass(frozen=True)
class Entries:
    """Entries that one query alone sees, ``own`` (N, P, D); then those that all share, in a ``table`` (M, D) or in
    ``shards``. ``hidden`` (N,) and ``mask`` (N, P+M) are the dictionary's. Queries come divided by the temperature,
    where nothing else is said.
    """

    own: OwnEntries | None
    table: Tensor | None
    shards: Shards | None
    hidden: Tensor | None
    mask: Tensor | None

    def cross_entropy(self, queries: Tensor, index: Tensor, divisor: float) -> tuple[Tensor, Tensor]:
        """(N,) −log softmax of the entry ``index`` (N,) of the scores over ``divisor``, and (N,) by how much its score
        is above the best other's.

        log Σ exp(s)/exp(s⁺) is log(1 + exp(log_sum − s⁺)), the sum being that of the others.
        """
        _check_range(index, self._size)
        if self._has_few_scores(queries, index) and self.table is not None:
            positives = None if self.own is None else read_own(self.own).squeeze(1)
            return few_scores.cross_entropy(queries, self.table, positives, index, self._hidden_from(0), divisor)
        others = self._sum_others(queries / divisor if divisor != 1 else queries, index)
        loss = F.softplus(others.sum - others.picked, threshold=streaming.EXACT).to(queries.dtype)
        return loss, others.rounded - others.best

    def own_sigmoid_cross_entropy(self, queries: Tensor, index: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`sigmoid_cross_entropy`, of own entries alone, which get no gradient. ``bias``, a scalar without
        gradient, is added to each score."""
        _check_range(index, self._size)
        others = sum_own_sigmoid_others(queries, self.only_own(), index, bias)
        loss = others.sum + F.softplus(-(others.picked + bias), threshold=streaming.EXACT).to(queries.dtype)
        return loss, others.rounded - others.best

    def sigmoid_cross_entropy(self, queries: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) −log σ of the score of the entry ``index`` (N,), −Σ log σ(−score) of the visible others; and as above.

        Of shared entries alone.
        """
        _check_range(index, self._size)
        others = streaming.sum_sigmoid_others(queries, self.only_table(), index, self._hidden_from(0))
        return others.sum + F.softplus(-others.picked, threshold=streaming.EXACT), others.rounded - others.best

    def soft_cross_entropy(self, queries: Tensor, weights: TiledWeights, groups: int) -> tuple[Tensor, Tensor]:
        """(N,) −Σ w·log softmax, and (N,) the best entry. Of shared entries alone, in ``groups`` of equal size."""
        table = self.only_table()
        if groups == 1:
            loss, best, _ = streaming.cross_entropy(queries, table, weights, self._hidden_from(0))
            return loss, best
        size = len(table) // groups
        found = []
        for start in range(0, len(table), size):
            here = slice(start, start + size)
            hidden = self._hidden_from(0).shift(here)
            loss, best, score = streaming.cross_entropy(queries, table[here], GroupWeights(weights, here), hidden)
            found.append((loss, best + start, score))
        losses, indices, scores = (torch.stack(part) for part in zip(*found, strict=True))  # (G, N) each
        return losses.sum(dim=0), indices.gather(0, scores.argmax(dim=0, keepdim=True)).squeeze(0)

    def log_sum_exp(self, queries: Tensor, weights: TiledWeights | None) -> Tensor:
        """(N,) log Σ w·exp(score). With ``weights`` of shared entries alone."""
        if self.has_only_table or weights is not None:
            return streaming.log_sum_exp(queries, self.only_table(), weights, self._hidden_from(0))
        others = self._sum_others(queries, kept_indices.make_constant(0, len(queries), queries.device))
        return sum_exponentials(torch.stack([others.sum, others.picked.to(others.sum.dtype)]), dim=0)

    @property
    def has_only_table(self) -> bool:
        return self.own is None and self.shards is None

    @property
    def has_only_fixed_own(self) -> bool:
        """Whether there are own entries alone, without a gradient, none of which is hidden."""
        alone = self.table is None and self.shards is None and self.hidden is None and self.mask is None
        return alone and self.own is not None and not learns(self.own)

    def only_own(self) -> OwnEntries:
        if self.own is None or not self.has_only_fixed_own:
            raise RuntimeError("these entries are not each query's own, without a gradient")
        return self.own

    def only_table(self) -> Tensor:
        if self.table is None or not self.has_only_table:
            raise RuntimeError("these entries are not one table that all queries share")
        return self.table

    def find_best(self, queries: Tensor) -> Tensor:
        """(N,) the entry with the largest score, the first where several have it."""
        found: list[tuple[Tensor, Tensor]] = []
        if self.own is not None:
            found.append(find_best_own(queries, self.own, self._visible_own(self.own)))
        if self.table is not None:
            score, index = streaming.find_best(queries, self.table, self._hidden_from(self._first))
            found.append((score, index + self._first))  # own entries come first
        if self.shards is not None:
            found.append(self._find_best_shard(queries, self.shards))
        scores, indices = (torch.stack(part) for part in zip(*found, strict=True))  # (Q, N) each
        return indices.gather(0, scores.argmax(dim=0, keepdim=True)).squeeze(0)

    def _has_few_scores(self, queries: Tensor, index: Tensor) -> bool:
        """Whether there are few scores of a table, and beside it at most each query's own entry, which is wanted."""
        if self.table is None or self.shards is not None:
            return False
        if len(queries) * len(self.table) > streaming.most_kept(queries):
            return False
        if self.own is None:
            return bool(len(self.table) and len(queries))
        is_wanted = self.own.shape[1] == 1 and kept_indices.find_constant(index) == 0
        return is_wanted and bool(len(self.table)) and self.mask is None and self.hidden is None

    def _sum_others(self, queries: Tensor, index: Tensor) -> Others:
        """Compare the entries ``index`` with all others."""
        parts = []
        if self.own is not None:
            parts.append(self._sum_own_others(queries, self.own, index))
        if self.table is not None:
            hidden = self._hidden_from(self._first)
            parts.append(streaming.sum_others(queries, self.table, index - self._first, hidden))
        if self.shards is not None:
            parts.append(self._sum_shard_others(queries, self.shards, index - self._first))
        return parts[0] if len(parts) == 1 else _join(Others(*(torch.stack(part) for part in zip(*parts, strict=True))))

    def _sum_own_others(self, queries: Tensor, own: OwnEntries, index: Tensor) -> Others:
        if not isinstance(own, Tensor) or not own.requires_grad:
            return sum_own_others(queries, own, index, self._visible_own(own))
        scores = torch.einsum("nd,npd->np", queries, own.to(queries.dtype))
        visible = self._visible_own(own)
        if visible is not None:
            scores = scores.masked_fill(~visible, float("-inf"))
        inside = ((index >= 0) & (index < own.shape[1])).unsqueeze(1)
        at = index.clamp(0, own.shape[1] - 1).unsqueeze(1)
        rounded = scores.detach().gather(1, at).masked_fill(~inside, float("-inf")).squeeze(1)
        picked = streaming.score_picked(queries, own, index).masked_fill(rounded == float("-inf"), float("-inf"))
        others = scores.masked_fill(torch.zeros_like(scores, dtype=torch.bool).scatter(1, at, inside), float("-inf"))
        return Others(sum_exponentials(others, dim=1), picked, rounded, others.detach().amax(dim=1))

    def _sum_shard_others(self, queries: Tensor, shards: Shards, index: Tensor) -> Others:
        """Each process sums over its own rows for the queries of all; the sums come back."""
        start, stop = own_range(shards.total)
        everyone = distributed.gather(queries, gradient=True)  # (W·N, D)
        hidden = tuple(distributed.gather(each) - start for each in self._hidden_from(self._first).indices)
        part = shards.part[: stop - start]
        sums = streaming.sum_others(everyone, part, distributed.gather(index) - start, Hidden(hidden))
        blocks = torch.stack([each.double() for each in sums], dim=1).unflatten(0, (distributed.world(), -1))
        log_sum, picked, rounded, best = distributed.exchange(blocks).unbind(dim=2)  # (W, N) each: of all rows' owners
        dtype = queries.dtype
        return _join(Others(log_sum.to(dtype), picked, rounded.detach().to(dtype), best.detach().to(dtype)))

    def _find_best_shard(self, queries: Tensor, shards: Shards) -> tuple[Tensor, Tensor]:
        start, stop = own_range(shards.total)
        hidden = tuple(distributed.gather(each) - start for each in self._hidden_from(self._first).indices)
        score, index = streaming.find_best(distributed.gather(queries), shards.part[: stop - start], Hidden(hidden))
        blocks = torch.stack([score.double(), (index + start + self._first).double()], dim=1)
        scores, indices = distributed.exchange(blocks.unflatten(0, (distributed.world(), -1))).unbind(dim=2)  # (W, N)
        owner = scores.argmax(dim=0, keepdim=True)
        return scores.gather(0, owner)[0].to(queries.dtype), indices.gather(0, owner)[0].long()

    def _visible_own(self, own: OwnEntries) -> Tensor | None:
        """(N, P) False where one of a query's own entries is hidden; None where none is."""
        visible = None if self.mask is None else self.mask[:, : own.shape[1]]
        if self.hidden is not None:
            others = torch.arange(own.shape[1], device=self.hidden.device) != self.hidden.unsqueeze(1)
            visible = others if visible is None else visible & others
        return visible

    @property
    def _first(self) -> int:
        """P, the index of the first shared entry."""
        return 0 if self.own is None else self.own.shape[1]

    @property
    def _size(self) -> int:
        table = 0 if self.table is None else len(self.table)
        return self._first + table + (0 if self.shards is None else self.shards.total)

    def _hidden_from(self, first: int) -> Hidden:
        """What is hidden, as indices of the shared entries."""
        indices = () if self.hidden is None else (self.hidden - first,)
        return Hidden(indices, None if self.mask is None else self.mask[:, first:])


def _join(parts: Others) -> Others:
    """The answer of several parts, each (Q, N), of which at most one has the picked entry."""
    return Others(
        sum_exponentials(parts.sum, dim=0),
        parts.picked.amax(dim=0),
        parts.rounded.amax(dim=0),
        parts.best.amax(dim=0),
    )


def sum_exponentials(scores: Tensor, dim: int) -> Tensor:
    """log Σ exp(score) along ``dim``. The gradient is 0 where all are -inf, and not NaN as torch's."""
    largest = scores.detach().amax(dim=dim, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    total = (scores - largest).exp().sum(dim=dim)
    absent = total == 0
    return (total.masked_fill(absent, 1.0).log() + largest.squeeze(dim)).masked_fill(absent, float("-inf"))


def _check_range(index: Tensor, size: int) -> None:
    known = kept_indices.find_bounds(index)
    if known is not None:
        low, high = known
    elif index.device.type != "cpu" or not len(index):  # elsewhere the question would wait for the device
        return
    else:
        low, high = (int(read_on_host(bound)) for bound in index.aminmax())
    if low < 0 or high >= size:
        raise IndexError(f"a query should find entry {low if low < 0 else high}, and there are {size}, counted from 0")
