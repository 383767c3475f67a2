"""Sums over a query's scores, tile by tile: no N×M matrix of scores is ever complete, unless it is small.

A pass goes over the entries with a running maximum and a running sum of exponentials, as a stable softmax does. Its
gradient is made in one of three ways:

* Entries without a gradient (a queue, a bank, a teacher's keys): in the pass itself. Backward reads no entry, so that
  a table may be written before it.
* Few scores: backward reads the exponentials of the pass.
* Else backward computes the scores again, tile by tile, from queries and entries.

On a GPU, where it pays, kernels make the sums that have neither weights nor a mask (:mod:`.triton_sums`).

Queries come divided by the temperature. Everything is in the dtype of the queries, float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import triton_sums
from contralex.lookup.host_copies import find_on_host, read_on_host
from contralex.lookup.weights import TiledWeights

# Scores that are kept for the backward: as fast as the plain form, and no more memory than a large layer. Elsewhere a
# step is as slow as it has operations, and layers are larger (measured on an H200: benchmarks/gpu.md).
KEPT, _FAR_KEPT = 2**20, 2**24
EXACT = 40.0  # exp(-40) is below the rounding of 1, in float64 as well
_ROWS, _COLUMNS = 512, 1024  # of a tile, which should stay in a core's cache
_FAR_ROWS, _FAR_SCORES = 4096, 2**26  # rows, and all scores


@dataclass(frozen=True)
class Hidden:
    """The entries that a query must not find: ``indices``, each (N,) with a number out of range where a query has none,
    and those where ``mask`` (N, M) is False."""

    indices: tuple[Tensor, ...] = ()
    mask: Tensor | None = None

    @property
    def hides_any(self) -> bool:
        return bool(self.indices) or self.mask is not None

    def shift(self, columns: slice) -> Hidden:
        """What is hidden of these entries, counted from the first of them."""
        mask = None if self.mask is None else self.mask[:, columns]
        return Hidden(tuple(index - columns.start for index in self.indices), mask)


class Others(NamedTuple):
    """What a pass says of the entries beside one that is picked."""

    sum: Tensor
    """(N,) log Σ exp(score), or another sum, over the visible entries, but for the picked one."""
    picked: Tensor
    """(N,) the score of the picked entry, in float64 where the device has it: of two scores that are large and nearly
    equal, the difference decides. -inf where the entry is hidden, or out of range."""
    rounded: Tensor
    """(N,) ``picked`` as it is among the other scores, without a gradient: what is equal to it may be compared."""
    best: Tensor
    """(N,) the largest score that ``sum`` counts, without a gradient."""


def sum_others(queries: Tensor, entries: Tensor, picked: Tensor, hidden: Hidden) -> Others:
    """Compare each query (N, D) with the entries (M, D), and its entry ``picked`` (N,) with the others.

    With these, −log softmax of the picked entry is log(1 + exp(sum − picked)), which keeps its digits where the
    softmax is nearly 1, and so does its gradient.
    """
    return Others(*_SumOthers.apply(queries, entries, picked, hidden))


def score_picked(queries: Tensor, entries: Tensor, index: Tensor) -> Tensor:
    """(N,) the score of one entry for each query, in float64 where the device has it; -inf where ``index`` is out of
    range. ``entries`` are (M, D), or (N, M, D) of each query's own."""
    inside = (index >= 0) & (index < entries.shape[-2])
    index, wide = index.clamp(0, entries.shape[-2] - 1), _wide(queries)
    scores = []
    step = _ROWS if queries.device.type == "cpu" else max(_ROWS, most_kept(queries) // max(queries.shape[1], 1))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        if entries.dim() == 2:
            own = entries[index[rows]]
        else:
            own = entries[rows][torch.arange(len(index[rows]), device=index.device), index[rows]]
        scores.append(multiply_exactly(queries[rows], own))
    return torch.cat(scores).masked_fill(~inside, float("-inf")) if scores else queries.new_empty(0, dtype=wide)


def multiply_exactly(queries: Tensor, entries: Tensor) -> Tensor:
    """(N,) the inner products of queries (N, D) with the entries (N, D) beside them, in float64 where there is one."""
    wide = _wide(queries)
    return (queries.to(wide) * entries.to(wide)).sum(dim=1)


def _rows_at(queries: Tensor, entries: Tensor, index: Tensor) -> Tensor:
    """(N, D) the entries at ``index`` (N,), in the dtype of the queries; 0 where it is out of range."""
    inside = (index >= 0) & (index < len(entries))
    return entries[index.clamp(0, len(entries) - 1)].to(queries.dtype) * inside.unsqueeze(1)


def _wide(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.device.type == "mps" else torch.float64


def sum_sigmoid_others(queries: Tensor, entries: Tensor, picked: Tensor, hidden: Hidden) -> Others:
    """As :func:`sum_others`, with Σ log(1 + exp(score)) for the sum, and ``picked`` in the dtype of the queries."""
    return Others(*_SumSigmoidOthers.apply(queries, entries, picked, hidden))


def log_sum_exp(queries: Tensor, entries: Tensor, weights: TiledWeights | None, hidden: Hidden) -> Tensor:
    """(N,) log Σ w·exp(score) over the visible entries; all weights are 1 where there are none."""
    sums: Tensor = _LogSumExp.apply(queries, entries, weights, hidden, None)
    return sums.to(queries.dtype)


def log_sum_exp_and_best(queries: Tensor, entries: Tensor, hidden: Hidden) -> tuple[Tensor, Tensor]:
    """(N,) log Σ exp(score), in float64 where the device has it, and (N,) the index of the first best entry."""
    best = _Best(queries)
    return _LogSumExp.apply(queries, entries, None, hidden, best), best.index


def cross_entropy(
    queries: Tensor, entries: Tensor, weights: TiledWeights, hidden: Hidden
) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) −Σ w·log softmax, (N,) the index of the best entry, and (N,) its score. An entry of weight 0 may be
    hidden."""
    best = _Best(queries)
    loss: Tensor = _CrossEntropy.apply(queries, entries, weights, hidden, best)
    return loss, best.index, best.score


@torch.no_grad()
def find_best(queries: Tensor, entries: Tensor, hidden: Hidden) -> tuple[Tensor, Tensor]:
    """The largest score (N,) of each query, and (N,) the index of the first entry that has it."""
    best = _Best(queries)
    for tile in _tiles(queries, entries):
        scores = tile.scores(hidden)
        best.add(tile, scores, scores.amax(dim=1))
    return best.score, best.index


class _Tile:
    """Some queries and some entries, with room for their scores."""

    def __init__(self, queries: Tensor, entries: Tensor, rows: slice, columns: slice, room: Tensor) -> None:
        self.rows, self.columns = rows, columns
        self.queries, self.entries = queries[rows], entries[columns].to(queries.dtype)
        self.room = room[: len(self.queries) * len(self.entries)].view(len(self.queries), len(self.entries))

    def scores(self, hidden: Hidden) -> Tensor:
        """-inf where hidden. The next tile's are written over them."""
        scores = torch.mm(self.queries, self.entries.T, out=self.room)
        if hidden.mask is not None:
            scores.masked_fill_(~hidden.mask[self.rows, self.columns], float("-inf"))
        for index in hidden.indices:
            self.put(scores, index, float("-inf"))
        return scores

    def put(self, scores: Tensor, index: Tensor, value: Tensor | float) -> None:
        """Write ``value``, one or (N,), where ``index`` (N,) says, as far as that is in this tile."""
        local = self._local(index)
        if local is None:
            return
        at, inside = local
        new = value if isinstance(value, float) else value[self.rows].unsqueeze(1)
        scores.scatter_(1, at, new if inside is None else torch.where(inside, new, scores.gather(1, at)))

    def pick(self, scores: Tensor, index: Tensor, into: Tensor) -> None:
        """Read into ``into`` (N,) what is in this tile of the entries ``index`` (N,), and hide it."""
        local = self._local(index)
        if local is None:
            return
        at, inside = local
        found = scores.gather(1, at)
        if inside is None:
            into[self.rows] = found.squeeze(1)
            scores.scatter_(1, at, float("-inf"))
        else:
            into[self.rows] = torch.where(inside.squeeze(1), found.squeeze(1), into[self.rows])
            scores.scatter_(1, at, found.masked_fill(inside, float("-inf")))

    def _local(self, index: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """(R, 1) columns of this tile, and whether the index was inside, None for all; None where no index is."""
        local, last = index[self.rows].unsqueeze(1) - self.columns.start, self.room.shape[1] - 1
        if index.device.type == "cpu":  # elsewhere the question would wait for the device
            low, high = (read_on_host(bound) for bound in local.aminmax())
            if high < 0 or low > last:
                return None
            if low >= 0 and high <= last:
                return local, None
        return local.clamp(0, last), (local >= 0) & (local <= last)


def _tiles(queries: Tensor, entries: Tensor, *, at_once: bool = False) -> Iterator[_Tile]:
    """All tiles, those of the same queries after one another; a single one ``at_once``."""
    rows, columns = (len(queries), len(entries)) if at_once else _tile_shape(queries)
    room = queries.new_empty(min(rows, len(queries)) * min(columns, len(entries)))
    for first in range(0, len(queries), max(rows, 1)):
        for start in range(0, len(entries), max(columns, 1)):
            here = slice(first, min(first + rows, len(queries)))
            yield _Tile(queries, entries, here, slice(start, min(start + columns, len(entries))), room)


def most_kept(queries: Tensor) -> int:
    """Scores of these queries that may be complete at once."""
    return KEPT if queries.device.type == "cpu" else _FAR_KEPT


def _tile_shape(queries: Tensor) -> tuple[int, int]:
    if queries.device.type == "cpu":
        return _ROWS, _COLUMNS
    return _FAR_ROWS, _FAR_SCORES // max(min(_FAR_ROWS, len(queries)), 1)


class _Running:
    """Σ w·exp(score) of every query, relative to its largest score, and that score.

    ``weighted``: also Σ w·exp(score)·entry, whose quotient by the sum is the gradient of the sum's logarithm.
    """

    def __init__(self, largest: Tensor, total: Tensor, weighted: Tensor | None = None) -> None:
        self.largest, self.sum, self.weighted = largest, total, weighted
        self._least = torch.finfo(largest.dtype).min

    @classmethod
    def start(cls, queries: Tensor, *, mean: bool) -> _Running:
        """Of no entry so far. ``mean``: with ``weighted``."""
        largest = queries.new_full((len(queries),), float("-inf"))
        return cls(largest, queries.new_zeros(len(queries)), torch.zeros_like(queries) if mean else None)

    def shift(self, tile: _Tile, scores: Tensor, top: Tensor | None = None) -> Tensor:
        """Make a tile's ``scores`` relative to the largest so far. Return by how much that rose (R,). ``top`` (R,): the
        largest of the tile, where it is known."""
        before = self.largest[tile.rows].clone()
        self.largest[tile.rows] = torch.maximum(before, scores.amax(dim=1) if top is None else top)
        reference = self.reference(tile.rows)
        scores.sub_(reference.unsqueeze(1))
        return reference - before

    def add(self, tile: _Tile, scores: Tensor, rise: Tensor, weight: Tensor | None = None) -> None:
        """Count a tile that was shifted. Its ``scores`` become w·exp(score − largest)."""
        rows = tile.rows
        scores.exp_()
        if weight is not None:
            scores.mul_(weight)
        fraction = rise.neg().exp_()
        self.sum[rows] = self.sum[rows] * fraction + scores.sum(dim=1)
        if self.weighted is not None:
            self.weighted[rows] = self.weighted[rows].mul_(fraction.unsqueeze(1)).addmm_(scores, tile.entries)

    def reference(self, rows: slice = slice(None)) -> Tensor:
        """The largest score; a finite number where all are hidden, because −∞ − −∞ is none."""
        return self.largest[rows].clamp_min(self._least)

    def weigh(self, tile: _Tile, scores: Tensor, factor: Tensor) -> Tensor:
        """Turn a tile's ``scores`` into exp(score − largest)·factor, ``factor`` being (N, 1)."""
        return scores.sub_(self.reference(tile.rows).unsqueeze(1)).exp_().mul_(factor[tile.rows])

    def log_sum(self) -> Tensor:
        """In float64 where the device has it: beside a large score the logarithm of a sum would lose its digits."""
        wide = _wide(self.sum)
        return self.largest.to(wide) + self.sum.to(wide).log()

    def divide(self, numerator: Tensor) -> Tensor:
        """(N,) the numerator over the sum; 0 where all are hidden."""
        return torch.where(self.sum > 0, numerator / self.sum, 0.0)

    def mean(self) -> Tensor | None:
        """(N, D) the mean entry under the softmax; 0 where all are hidden."""
        if self.weighted is None:
            return None
        return self.weighted.mul_(self.divide(torch.ones_like(self.sum)).unsqueeze(1))


class _Best:
    """The best entry of every query so far, the first where several are."""

    def __init__(self, queries: Tensor) -> None:
        self.score = queries.new_full((len(queries),), float("-inf"))
        self.index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)

    def put(self, sums: triton_sums.Sums) -> None:
        """Take what is best of all entries."""
        self.score, self.index = sums.largest.clone(), sums.best

    def add(self, tile: _Tile, scores: Tensor, top: Tensor) -> None:
        """Count a tile. ``top`` (R,): the largest of its ``scores``."""
        score, index = self.score[tile.rows], self.index[tile.rows]
        better = top > score
        if scores.device.type == "cpu":  # to find where the largest is takes ten times as long as to find the largest
            risen = find_on_host(better)  # elsewhere the question would wait for the device
            index[risen] = scores[risen].argmax(dim=1) + tile.columns.start
        else:
            torch.where(better, scores.argmax(dim=1) + tile.columns.start, index, out=index)
        torch.maximum(score, top, out=score)


class _Way:
    """How a function's gradient is made, and what its backward reads."""

    def __init__(self, ctx: Any, queries: Tensor, entries: Tensor) -> None:
        needs_queries, needs_entries = ctx.needs_input_grad[:2]
        self.in_the_pass = needs_queries and not needs_entries
        self.at_once = len(queries) * len(entries) <= most_kept(queries)
        self.kept: Tensor | None = None
        self.by_kernel = False
        self._keeps = needs_entries and self.at_once
        if needs_entries:
            ctx.save_for_backward(queries, entries)

    def keep(self, scores: Tensor) -> None:
        """Keep what became of the only tile's scores, where backward is to read them."""
        if self._keeps:
            self.kept = scores

    def sum_by_kernel(
        self, queries: Tensor, entries: Tensor, hidden: Hidden, *, picked: Tensor | None = None, best: bool = False
    ) -> triton_sums.Sums | None:
        """None where tiles are to be summed."""
        if hidden.mask is not None:
            return None
        sums = triton_sums.sum_tiles(queries, entries, hidden.indices, picked=picked, best=best, mean=self.in_the_pass)
        self.by_kernel = sums is not None
        return sums


def _weigh_by_kernel(
    ctx: Any, factor: Tensor, picked: Tensor | None = None, of_picked: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None] | None:
    """The gradients of queries and entries, where a score's is exp(score − largest)·factor, and ``of_picked`` for the
    picked one; all (N,). None where tiles are to be weighed."""
    if not ctx.way.by_kernel:
        return None
    queries, entries = ctx.saved_tensors
    return triton_sums.weigh_tiles(
        queries,
        entries,
        ctx.hidden.indices,
        reference=ctx.running.reference(),
        factor=factor,
        picked=picked,
        of_picked=of_picked,
        needs=ctx.needs_input_grad[:2],
    )


def _weigh_tiles(ctx: Any, weigh: Callable[[_Tile], Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of queries and entries, where ``weigh`` gives that of a tile's scores."""
    queries, entries = ctx.saved_tensors
    needs_queries, needs_entries = ctx.needs_input_grad[:2]
    of_queries = torch.zeros_like(queries) if needs_queries else None
    of_entries = queries.new_zeros(entries.shape) if needs_entries else None
    for tile in _tiles(queries, entries, at_once=ctx.way.at_once):
        gradient = weigh(tile)
        if of_queries is not None:
            of_queries[tile.rows].addmm_(gradient, tile.entries)
        if of_entries is not None:
            of_entries[tile.columns].addmm_(gradient.T, tile.queries)
    return of_queries, None if of_entries is None else of_entries.to(entries.dtype)


def refuse_second_derivative() -> None:
    """Called in a backward that cannot be differentiated."""
    if torch.is_grad_enabled():  # backward was called with create_graph=True
        raise RuntimeError(
            "the streaming look-up has no second derivative: call backward without create_graph=True, or write the "
            "loss with dictionary.scores(queries), which has one"
        )


class _SumOthers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, entries: Tensor, index: Tensor, hidden: Hidden
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        way = _Way(ctx, queries, entries)
        sums = way.sum_by_kernel(queries, entries, hidden, picked=index)
        if sums is not None:
            running, picked, mean = _Running(sums.largest, sums.total), sums.rounded, sums.mean
        else:
            running = _Running.start(queries, mean=way.in_the_pass)
            picked = queries.new_full((len(queries),), float("-inf"))
            for tile in _tiles(queries, entries, at_once=way.at_once):
                scores = tile.scores(hidden)
                tile.pick(scores, index, picked)
                running.add(tile, scores, running.shift(tile, scores))
                way.keep(scores)
            mean = running.mean()
        ctx.way, ctx.running, ctx.hidden, ctx.index = way, running, hidden, index
        ctx.mean, ctx.own = mean, None
        if way.in_the_pass and len(entries):
            ctx.own = _rows_at(queries, entries, index)
        exact = score_picked(queries, entries, index) if len(entries) else picked.to(_wide(queries))
        exact = exact.masked_fill(picked == float("-inf"), float("-inf"))  # hidden
        best = running.largest.clone()
        ctx.mark_non_differentiable(picked, best)
        return running.log_sum().to(queries.dtype), exact, picked, best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        refuse_second_derivative()
        way: _Way = ctx.way
        running: _Running = ctx.running
        of_sum, of_picked = grads[0], grads[1].to(grads[0].dtype)
        if way.in_the_pass:
            gradient = of_sum.unsqueeze(1) * ctx.mean
            return (gradient if ctx.own is None else gradient + of_picked.unsqueeze(1) * ctx.own), None, None, None
        factor = running.divide(of_sum)
        gradients = _weigh_by_kernel(ctx, factor, ctx.index, of_picked)
        if gradients is not None:
            return *gradients, None, None
        factor = factor.unsqueeze(1)

        def weigh(tile: _Tile) -> Tensor:
            if way.kept is not None:
                scores = way.kept * factor
            else:
                scores = tile.scores(ctx.hidden)
                tile.put(scores, ctx.index, float("-inf"))
                running.weigh(tile, scores, factor)
            tile.put(scores, ctx.index, of_picked)
            return scores

        return *_weigh_tiles(ctx, weigh), None, None


class _SumSigmoidOthers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, entries: Tensor, index: Tensor, hidden: Hidden
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        way = _Way(ctx, queries, entries)
        total, mean = queries.new_zeros(len(queries)), torch.zeros_like(queries) if way.in_the_pass else None
        picked, best = (queries.new_full((len(queries),), float("-inf")) for _ in range(2))
        for tile in _tiles(queries, entries, at_once=way.at_once):
            scores, rows = tile.scores(hidden), tile.rows
            tile.pick(scores, index, picked)
            best[rows] = torch.maximum(best[rows], scores.amax(dim=1))
            total[rows] += F.softplus(scores, threshold=EXACT).sum(dim=1)
            scores.sigmoid_()
            if mean is not None:
                mean[rows] = mean[rows].addmm_(scores, tile.entries)
            way.keep(scores)
        ctx.way, ctx.hidden, ctx.index, ctx.mean = way, hidden, index, mean
        ctx.own = _rows_at(queries, entries, index) if way.in_the_pass and len(entries) else None
        rounded = picked.clone()
        ctx.mark_non_differentiable(rounded, best)
        return total, picked, rounded, best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        refuse_second_derivative()
        way: _Way = ctx.way
        of_sum, of_picked = grads[0].unsqueeze(1), grads[1]
        if way.in_the_pass:
            gradient = of_sum * ctx.mean
            return (gradient if ctx.own is None else gradient + of_picked.unsqueeze(1) * ctx.own), None, None, None

        def weigh(tile: _Tile) -> Tensor:
            if way.kept is not None:
                scores = way.kept * of_sum
            else:
                scores = tile.scores(ctx.hidden).sigmoid_().mul_(of_sum[tile.rows])
            tile.put(scores, ctx.index, of_picked)
            return scores

        return *_weigh_tiles(ctx, weigh), None, None


def _hide_weightless(tile: _Tile, scores: Tensor, weights: TiledWeights) -> Tensor:
    """Hide the entries of weight 0, whose scores may be so much larger that all others would underflow beside them.
    Return the weights of the tile."""
    weight = weights.tile(tile.rows, tile.columns)
    scores.masked_fill_(weight == 0, float("-inf"))
    return weight


class _LogSumExp(torch.autograd.Function):
    """In float64 where the device has it. ``best`` learns which entries are the best."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, entries: Tensor, weights: TiledWeights | None, hidden: Hidden, best: _Best | None
    ) -> Tensor:
        way = _Way(ctx, queries, entries)
        sums = None
        if weights is None:
            sums = way.sum_by_kernel(queries, entries, hidden, best=best is not None)
        if sums is not None:
            running, mean = _Running(sums.largest, sums.total), sums.mean
            if best is not None:
                best.put(sums)
        else:
            running = _Running.start(queries, mean=way.in_the_pass)
            for tile in _tiles(queries, entries, at_once=way.at_once):
                scores = tile.scores(hidden)
                weight = None if weights is None else _hide_weightless(tile, scores, weights)
                top = scores.amax(dim=1)
                if best is not None:
                    best.add(tile, scores, top)
                running.add(tile, scores, running.shift(tile, scores, top), weight)
                way.keep(scores)
            mean = running.mean()
        ctx.way, ctx.running, ctx.hidden, ctx.weights, ctx.mean = way, running, hidden, weights, mean
        return running.log_sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        refuse_second_derivative()
        way: _Way = ctx.way
        running: _Running = ctx.running
        of_sum = grads[0].to(running.sum.dtype)
        if way.in_the_pass:
            return of_sum.unsqueeze(1) * ctx.mean, None, None, None, None
        factor = running.divide(of_sum)
        gradients = _weigh_by_kernel(ctx, factor)
        if gradients is not None:
            return *gradients, None, None, None
        factor = factor.unsqueeze(1)

        def weigh(tile: _Tile) -> Tensor:
            if way.kept is not None:
                return way.kept * factor
            scores = tile.scores(ctx.hidden)
            weight = None if ctx.weights is None else _hide_weightless(tile, scores, ctx.weights)
            running.weigh(tile, scores, factor)
            return scores if weight is None else scores.mul_(weight)

        return *_weigh_tiles(ctx, weigh), None, None, None


class _CrossEntropy(torch.autograd.Function):
    """``best`` learns which entries are the best."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, entries: Tensor, weights: TiledWeights, hidden: Hidden, best: _Best
    ) -> Tensor:
        way = _Way(ctx, queries, entries)
        running = _Running.start(queries, mean=way.in_the_pass)
        total = queries.new_zeros(len(queries))  # Σ w of the tiles so far
        below = queries.new_zeros(len(queries))  # Σ w·(largest − score): no term is negative, so that none cancels
        wanted = torch.zeros_like(queries) if way.in_the_pass else None  # Σ w·entry
        for tile in _tiles(queries, entries, at_once=way.at_once):
            scores, rows = tile.scores(hidden), tile.rows
            top = scores.amax(dim=1)
            best.add(tile, scores, top)
            rise = running.shift(tile, scores, top)
            weight = weights.tile(rows, tile.columns).to(scores.dtype)
            here = -(scores * weight).nan_to_num_(0.0, neginf=float("-inf")).sum(dim=1)  # −∞·0 counts as 0
            below[rows] += here + torch.where(total[rows] > 0, rise * total[rows], 0.0)
            total[rows] += weight.sum(dim=1)
            running.add(tile, scores, rise)
            if wanted is not None:
                wanted[rows] = wanted[rows].addmm_(weight, tile.entries)
            way.keep(scores)
        ctx.way, ctx.running, ctx.hidden, ctx.weights, ctx.total = way, running, hidden, weights, total
        mean = running.mean()
        ctx.mean = None if mean is None or wanted is None else mean.mul_(total.unsqueeze(1)).sub_(wanted)
        return below + torch.where(total > 0, total * running.sum.log(), 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        refuse_second_derivative()
        way: _Way = ctx.way
        running: _Running = ctx.running
        weights: TiledWeights = ctx.weights
        of_loss = grads[0].unsqueeze(1)
        if way.in_the_pass:
            return of_loss * ctx.mean, None, None, None, None
        factor = running.divide(ctx.total).unsqueeze(1)

        def weigh(tile: _Tile) -> Tensor:
            if way.kept is not None:
                scores = way.kept * factor
            else:
                scores = tile.scores(ctx.hidden)
                running.weigh(tile, scores, factor)
            return scores.sub_(weights.tile(tile.rows, tile.columns)).mul_(of_loss[tile.rows])

        return *_weigh_tiles(ctx, weigh), None, None, None
