"""The look-up of few queries among few entries: all scores at once, in a few large operations.

It is what :mod:`contralex.lookup.streaming` does tile by tile, with the same digits. Where a step is small, it costs as
much as it has operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import kept_indices, streaming
from contralex.lookup.streaming import Hidden

_NOTHING = float("-inf")


def cross_entropy(
    queries: Tensor, entries: Tensor, positives: Tensor | None, index: Tensor, hidden: Hidden, divisor: float
) -> tuple[Tensor, Tensor]:
    """(N,) −log softmax of the wanted one of scores/``divisor``, and (N,) by how much it is above the best other.

    Wanted is the entry ``index`` (N,) of ``entries`` (M, D); or each query's own of ``positives`` (N, D), where all of
    ``entries`` are others.
    """
    loss, lead = _CrossEntropy.apply(queries, entries, positives, index, hidden, divisor)
    return loss, lead


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        entries: Tensor,
        positives: Tensor | None,
        index: Tensor,
        hidden: Hidden,
        divisor: float,
    ) -> tuple[Tensor, Tensor]:
        divided, table = queries / divisor, entries.to(queries.dtype)
        scores = divided @ table.T
        _hide(scores, hidden)
        wanted = table[index] if positives is None else positives.to(queries.dtype)
        picked = streaming.multiply_exactly(divided, wanted)
        if positives is None:
            rounded = _take(scores, index)
            if hidden.hides_any:
                picked = picked.masked_fill_(rounded == _NOTHING, _NOTHING)
        else:
            rounded = picked.to(scores.dtype)
        best = scores.amax(dim=1)
        lowest = torch.finfo(best.dtype).min  # where all are hidden, −∞ − −∞ is none
        exponentials = scores.sub_(best.clamp_min(lowest).unsqueeze(1)).exp_()
        total = exponentials.sum(dim=1)
        gap = total.log().add_(best) - picked
        ctx.index, ctx.divisor, ctx.gap, ctx.divided, ctx.wanted = index, divisor, gap, divided, wanted
        ctx.total = total.clamp_min_(torch.finfo(best.dtype).tiny)
        ctx.exponentials = ctx.mean = None
        if ctx.needs_input_grad[1]:
            ctx.exponentials = exponentials
            ctx.save_for_backward(table)
        elif ctx.needs_input_grad[0]:  # backward reads no entry, so that a table may be written before it
            ctx.mean = (exponentials @ table).div_(ctx.total.unsqueeze(1))
        ctx.has_positives, ctx.entries_dtype = positives is not None, entries.dtype
        lead = rounded - best
        ctx.mark_non_differentiable(lead)
        return F.softplus(gap, threshold=streaming.EXACT).to(queries.dtype), lead

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        streaming.refuse_second_derivative()
        needs_queries, _, needs_positives = ctx.needs_input_grad[:3]
        push = (grads[0] * torch.sigmoid(ctx.gap)).to(ctx.divided.dtype).unsqueeze(1)  # (N, 1)
        of_positives = ctx.divided * -push if needs_positives else None
        if ctx.exponentials is None:
            of_queries = (ctx.mean - ctx.wanted).mul_(push / ctx.divisor) if needs_queries else None
            return of_queries, None, of_positives, None, None, None
        (table,) = ctx.saved_tensors
        weights = ctx.exponentials * (push / ctx.total.unsqueeze(1))
        if not ctx.has_positives:
            _put(weights, ctx.index, -push)
        of_queries = None
        if needs_queries:
            of_queries = weights @ table
            if ctx.has_positives:
                of_queries.addcmul_(push, ctx.wanted, value=-1)
            of_queries.div_(ctx.divisor)
        return of_queries, (weights.T @ ctx.divided).to(ctx.entries_dtype), of_positives, None, None, None


def _hide(scores: Tensor, hidden: Hidden) -> None:
    if hidden.mask is not None:
        scores.masked_fill_(~hidden.mask, _NOTHING)
    for index in hidden.indices:
        diagonal = _find_diagonal(scores, index)
        if diagonal is not None:
            diagonal.fill_(_NOTHING)
            continue
        at = index.unsqueeze(1)
        inside = (at >= 0) & (at < scores.shape[1])
        at = at.clamp(0, scores.shape[1] - 1)
        scores.scatter_(1, at, torch.where(inside, _NOTHING, scores.gather(1, at)))


def _take(scores: Tensor, index: Tensor) -> Tensor:
    """(N,) the scores at ``index`` (N,), which are hidden then."""
    diagonal = _find_diagonal(scores, index)
    if diagonal is not None:
        taken = diagonal.clone()
        diagonal.fill_(_NOTHING)
        return taken
    at = index.unsqueeze(1)
    taken = scores.gather(1, at).squeeze(1)
    scores.scatter_(1, at, _NOTHING)
    return taken


def _put(scores: Tensor, index: Tensor, values: Tensor) -> None:
    """Write ``values`` (N, 1) at ``index`` (N,)."""
    diagonal = _find_diagonal(scores, index)
    if diagonal is not None:
        diagonal.copy_(values.squeeze(1))
    else:
        scores.scatter_(1, index.unsqueeze(1), values)


def _find_diagonal(scores: Tensor, index: Tensor) -> Tensor | None:
    """A view of the scores at ``index``, where that is a kept range; None where it has to be read."""
    rows = kept_indices.find_range(index)
    return None if rows is None else scores.diagonal(rows[0])
