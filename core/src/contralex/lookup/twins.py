"""Two views of a batch that look each other up among all of them: SimCLR's matrix, of which one half is enough.

Where the queries are the keys, the scores are symmetric: a tile above the diagonal gives the sums of its rows, and
those of its columns. Both matches take their part of one pass, and of its gradient.

On the CPU alone: whether the rows are such a batch, and how large a score can be, is read on the host.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import streaming
from contralex.lookup.host_copies import equal_on_host, read_on_host

_TILE = 512
_LARGEST = 20.0  # of a score: from exp(-40) to 1 all numbers are far from float32's smallest, whatever the maximum is


class Twins:
    """The rows (2B, D) of a batch, as queries and as keys: row i and row i+B are the two views of one sample."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        self._bound: float | None = None
        self._sums: dict[float, tuple[Tensor, Tensor]] = {}

    def cross_entropy(
        self, queries: Tensor, index: Tensor, hidden: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor] | None:
        """As :meth:`~contralex.lookup.entries.Entries.cross_entropy`, of ``queries`` that are the rows ``hidden``.

        None where the targets ``index`` are not those rows' twins, or where the scores are too large for one pass.
        """
        half = len(self.vectors) // 2
        if len(self.vectors) % 2 or len(queries) != half or not 0 < self._largest_score() / temperature <= _LARGEST:
            return None
        first, rows = int(read_on_host(hidden[0])), torch.arange(half)
        if first not in (0, half):
            return None
        if not equal_on_host(hidden, rows + first) or not equal_on_host(index, rows + half - first):
            return None
        if temperature not in self._sums:
            self._sums[temperature] = _SumStrangers.apply(
                self.vectors, temperature, self._largest_score() / temperature
            )
        log_sum, best = (each[first : first + half] for each in self._sums[temperature])
        picked = streaming.score_picked(queries / temperature, self.vectors, index)
        loss = F.softplus(log_sum - picked, threshold=streaming.EXACT).to(log_sum.dtype)
        lead = picked.detach().to(best.dtype) - best
        # They are computed in different ways: what is equal to rounding is compared anew.
        return loss, lead.masked_fill(lead.abs() <= 1e-5 * best.abs(), 0.0)

    def _largest_score(self) -> float:
        """A bound of all scores: the largest squared length."""
        if self._bound is None:
            self._bound = read_on_host(self.vectors.detach().square().sum(dim=1).max())
        return self._bound


class _SumStrangers(torch.autograd.Function):
    """(2B,) log Σ exp(score) over the rows that are neither a row itself nor its twin, and the best of these scores.
    No score is above ``bound``."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, temperature: float, bound: float) -> tuple[Tensor, Tensor]:
        ctx.temperature, ctx.bound, ctx.kept = temperature, bound, None
        keeps = ctx.needs_input_grad[0] and _tile_size(len(vectors)) == len(vectors)
        total = vectors.new_zeros(len(vectors))
        best = vectors.new_full((len(vectors),), float("-inf"))
        for rows, columns, scores in _upper_tiles(vectors, temperature):
            best[rows] = torch.maximum(best[rows], scores.amax(dim=1))
            if rows != columns:
                best[columns] = torch.maximum(best[columns], scores.amax(dim=0))
            scores.sub_(ctx.bound).exp_()
            total[rows] += scores.sum(dim=1)
            if rows != columns:
                total[columns] += scores.sum(dim=0)
            if keeps:
                ctx.kept = scores
        ctx.save_for_backward(vectors, total)
        ctx.mark_non_differentiable(best)
        return total.log() + ctx.bound, best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        streaming.refuse_second_derivative()
        vectors, total = ctx.saved_tensors
        factor = torch.where(total > 0, grads[0] / total, 0.0)
        if ctx.kept is not None:
            both = torch.add(factor.unsqueeze(1), factor).mul_(ctx.kept)
            return both @ (vectors / ctx.temperature), None, None
        gradient = torch.zeros_like(vectors)
        for rows, columns, scores in _upper_tiles(vectors, ctx.temperature):
            scores.sub_(ctx.bound).exp_().mul_(torch.add(factor[rows].unsqueeze(1), factor[columns]))
            gradient[rows].addmm_(scores, vectors[columns])
            if rows != columns:
                gradient[columns].addmm_(scores.T, vectors[rows])
        return gradient.div_(ctx.temperature), None, None


def _upper_tiles(vectors: Tensor, temperature: float) -> Any:
    """Rows, columns and scores of the tiles on and above the diagonal; -inf between a row, itself and its twin."""
    count, divided = len(vectors), vectors / temperature
    size = _tile_size(count)
    room = vectors.new_empty(size**2)
    parts = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            height, width = rows.stop - rows.start, columns.stop - columns.start
            scores = torch.mm(divided[rows], vectors[columns].T, out=room[: height * width].view(height, width))
            for between in (0, count // 2):  # how far a row is from itself and, above the diagonal, from its twin
                _hide_diagonal(scores, between + rows.start - columns.start)
            if rows == columns:
                _hide_diagonal(scores, -(count // 2))
            yield rows, columns, scores


def _tile_size(count: int) -> int:
    """All at once, where so few scores may be kept."""
    return count if count**2 <= streaming.KEPT else min(count, _TILE)


def _hide_diagonal(scores: Tensor, offset: int) -> None:
    if -len(scores) < offset < scores.shape[1]:
        scores.diagonal(offset).fill_(float("-inf"))
