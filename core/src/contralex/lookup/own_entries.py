"""Entries that one query alone sees: held as a tensor, or drawn from a table and read a few queries at a time.

K negatives that are drawn from memory for each of N queries are N·K vectors, D times as many numbers as their scores.
They are read as they are needed, summed over, and forgotten; the gradient of the queries is made in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import streaming
from contralex.lookup.precision import at_least_float32
from contralex.lookup.streaming import Others

_NUMBERS = 2**19  # of the entries that are read at once, which should stay in a core's cache


@dataclass(frozen=True, eq=False)
class DrawnEntries:
    """Entries (N, P, D) of each query's own, in a ``table`` (M, D) of any floating dtype, at ``index`` (N, P).

    The table may be written after the look-up.
    """

    table: Tensor
    index: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, P and D."""
        return self.index.shape[0], self.index.shape[1], self.table.shape[1]

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """(R, C, D) those of the queries ``rows`` in ``columns``, in at least float32."""
        index = self.index[rows, columns]
        return at_least_float32(self.table.index_select(0, index.flatten()).view(*index.shape, -1))


OwnEntries = Tensor | DrawnEntries


def read_own(own: OwnEntries, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
    """(R, C, D) those of the queries ``rows`` in ``columns``."""
    return own[rows, columns] if isinstance(own, Tensor) else own.read(rows, columns)


def learns(own: OwnEntries) -> bool:
    return isinstance(own, Tensor) and own.requires_grad


def sum_own_others(queries: Tensor, own: OwnEntries, index: Tensor, visible: Tensor | None) -> Others:
    """As :func:`~contralex.lookup.streaming.sum_others`, of own entries, which get no gradient. ``visible`` (N, P):
    False where an entry is hidden."""
    return Others(*_SumOthers.apply(queries, own, index, visible, None))


def sum_own_sigmoid_others(queries: Tensor, own: OwnEntries, index: Tensor, bias: Tensor) -> Others:
    """As :func:`~contralex.lookup.streaming.sum_sigmoid_others`, of own entries, which get no gradient; ``bias``, a
    scalar without gradient, is added to each score."""
    return Others(*_SumOthers.apply(queries, own, index, None, bias))


@torch.no_grad()
def find_best_own(queries: Tensor, own: OwnEntries, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest score (N,) of each query, and (N,) the index of the first entry that has it."""
    best, index = queries.new_empty(len(queries)), torch.empty(len(queries), dtype=torch.long, device=queries.device)
    for rows, entries in _read_few(queries, own):
        scores = _multiply(entries, queries[rows])
        if visible is not None:
            scores.masked_fill_(~visible[rows], float("-inf"))
        index[rows] = scores.argmax(dim=1)
        best[rows] = scores.amax(dim=1)
    return best, index


def _read_few(queries: Tensor, own: OwnEntries) -> Iterator[tuple[slice, Tensor]]:
    """The entries of a few queries, in their dtype, and then of the next."""
    count, entries, dim = own.shape
    few = max(1, _NUMBERS // max(1, entries * dim))
    for start in range(0, count, few):
        rows = slice(start, min(start + few, count))
        yield rows, read_own(own, rows).to(queries.dtype)


def _multiply(entries: Tensor, queries: Tensor) -> Tensor:
    """(R, P) the inner products of entries (R, P, D) with queries (R, D)."""
    return torch.bmm(entries, queries.unsqueeze(2)).squeeze(2)


class _SumOthers(torch.autograd.Function):
    """What :class:`Others` holds. With a ``bias`` the sum is Σ log(1 + exp(score + bias)); the rest is without it."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        own: OwnEntries,
        index: Tensor,
        visible: Tensor | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums, rounded, best = (queries.new_empty(len(queries)) for _ in range(3))
        mean, own_picked = torch.empty_like(queries), torch.empty_like(queries)
        inside = ((index >= 0) & (index < own.shape[1])).unsqueeze(1)  # (N, 1)
        at = index.clamp(0, own.shape[1] - 1).unsqueeze(1)
        if visible is not None:
            inside = inside & visible.gather(1, at)
        for rows, entries in _read_few(queries, own):
            scores = _multiply(entries, queries[rows])
            if visible is not None:
                scores.masked_fill_(~visible[rows], float("-inf"))
            taken = scores.gather(1, at[rows])
            rounded[rows] = taken.masked_fill(~inside[rows], float("-inf")).squeeze(1)
            scores.scatter_(1, at[rows], taken.masked_fill(inside[rows], float("-inf")))
            best[rows] = scores.amax(dim=1)
            if bias is not None:
                scores.add_(bias)
                sums[rows] = F.softplus(scores, threshold=streaming.EXACT).sum(dim=1)
                scores.sigmoid_()
            else:
                largest = (
                    best[rows].clamp_min(torch.finfo(scores.dtype).min).unsqueeze(1)
                )  # finite where all are hidden
                total = scores.sub_(largest).exp_().sum(dim=1, keepdim=True)
                sums[rows] = (total.log() + largest).squeeze(1)
                scores.div_(total.clamp_min_(torch.finfo(scores.dtype).tiny))
            mean[rows] = torch.bmm(scores.unsqueeze(1), entries).squeeze(1)
            where = at[rows].unsqueeze(2).expand(-1, 1, entries.shape[2])
            own_picked[rows] = entries.gather(1, where).squeeze(1) * inside[rows]
        ctx.mean, ctx.own_picked = mean, own_picked
        picked = streaming.multiply_exactly(queries, own_picked).masked_fill(~inside.squeeze(1), float("-inf"))
        ctx.mark_non_differentiable(rounded, best)
        return sums, picked, rounded, best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        streaming.refuse_second_derivative()
        of_sum, of_picked = grads[0].unsqueeze(1), grads[1].to(grads[0].dtype).unsqueeze(1)
        return of_sum * ctx.mean + of_picked * ctx.own_picked, None, None, None, None
