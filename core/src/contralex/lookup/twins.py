"""Two views of a batch that look each other up: one pass over the scores serves both, and so does one gradient.

Where all rows of the batch are keys (SimCLR), the scores are symmetric: a tile above the diagonal gives the sums of its
rows, and those of its columns. Where each view looks among the other's rows (CLIP), the columns of the one match are
the rows of the other.

On the CPU alone: how large a score can be is read on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import kept_indices, streaming
from contralex.lookup.host_copies import read_on_host
from contralex.lookup.values import Rows

_TILE = 512
_SMALL = 256  # rows whose hidden scores are hidden by one addition: more are written over, which reads less
# Of a score. Sums of exponentials between exp(-s) and exp(s) are far from the ends of the type, so no maximum is taken.
_LARGEST = {torch.float32: 40.0, torch.float64: 350.0}
_CLOSE = 2e-6  # times the largest score: what differs by less may differ by rounding alone


class TwinAnswer(NamedTuple):
    """The answer to the queries of one view."""

    loss: Tensor
    """(B,) −log softmax of each query's twin."""
    lead: Tensor
    """(B,) by how much the twin's score is above the best other's; 0 where rounding may decide."""
    has_ties: bool
    """Whether a lead is 0."""


class Twins:
    """The rows (2B, D) of a batch, as queries and as keys: row i and row i+B are the two views of one sample."""

    def __init__(self, rows: Rows) -> None:
        self.vectors = rows.vectors
        self._views = [rows.select_view(view).vectors for view in rows.views]
        self._bound: float | None = None
        self._answers: dict[Any, tuple[Any, tuple[TwinAnswer, TwinAnswer]]] = {}
        self._made: dict[str, Any] = {}

    @classmethod
    def find(cls, queries: Rows, keys: Rows) -> Twins | None:
        """None where the rows are not known to be two views of the same samples that are queries as well as keys."""
        if queries is not keys or queries.layout is None or queries.vectors.device.type != "cpu":
            return None
        blocks = queries.layout.blocks
        if len(blocks) != 2 or blocks[0].view == blocks[1].view:
            return None
        partners = queries.select_view(blocks[0].view).find_slice_in(queries, view=blocks[1].view)
        return cls(queries) if partners == slice(len(queries) // 2, len(queries)) else None

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, for both matches."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def cross_entropy(
        self, queries: Tensor, entries: Tensor | None, index: Tensor, hidden: Tensor | None, temperature: float | Tensor
    ) -> TwinAnswer | None:
        """The answer to ``queries`` (B, D) that are to find their twins at ``index`` of the entries, but not themselves
        at ``hidden``. None where the question is another one, or the scores may be too large."""
        half = self.vectors.shape[0] // 2
        view = next((view for view in (0, 1) if queries is self._views[view]), None)
        if view is None:
            return None
        if entries is self.vectors:
            own, twins = (view * half, (view + 1) * half), ((1 - view) * half, (2 - view) * half)
            if hidden is None or kept_indices.find_range(hidden) != own or kept_indices.find_range(index) != twins:
                return None
        elif entries is not self._views[1 - view] or hidden is not None or kept_indices.find_range(index) != (0, half):
            return None
        return self._answer(entries is not self.vectors, temperature, view)

    def _answer(self, across: bool, temperature: float | Tensor, view: int) -> TwinAnswer | None:
        name = (across, id(temperature) if isinstance(temperature, Tensor) else temperature)
        if name not in self._answers:
            divisor = read_on_host(temperature.detach()) if isinstance(temperature, Tensor) else temperature
            bound = self._largest_score() / divisor if divisor > 0 else 0.0
            if not 0 < bound <= _LARGEST[torch.float64]:
                return None
            first, second, lead = _TwinLosses.apply(self.vectors, temperature, divisor, across, bound)
            has_ties = read_on_host(lead.abs().min()) <= _CLOSE * bound
            if has_ties:
                lead = lead.masked_fill(lead.abs() <= _CLOSE * bound, 0.0)
            both = TwinAnswer(first, lead[0], has_ties), TwinAnswer(second, lead[1], has_ties)
            self._answers[name] = temperature, both  # with the tensor, whose identity is its name
        return self._answers[name][1][view]

    def _largest_score(self) -> float:
        """A bound of all scores: the largest squared length."""
        if self._bound is None:
            self._bound = read_on_host(torch.linalg.vector_norm(self.vectors.detach(), dim=1).amax()) ** 2
        return self._bound


class _TwinLosses(torch.autograd.Function):
    """The losses (B,) of the first view's queries and of the second's, and the leads (2, B) of both. No score is above
    ``bound``."""

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, temperature: float | Tensor, divisor: float, across: bool, bound: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        tiles = _Tiles(vectors, divisor, across, wide=bound > _LARGEST[torch.float32])
        total, best = (each.unflatten(0, (2, -1)) for each in tiles.sum_exponentials(keep=ctx.needs_input_grad[0]))
        one, other = vectors.double().unflatten(0, (2, -1)).unbind()
        picked = (one * other).sum(dim=1).div_(divisor)  # in float64: of two large scores, the difference decides
        gap = total.log() - picked
        loss = F.softplus(gap, threshold=streaming.EXACT).to(vectors.dtype)
        ctx.tiles, ctx.total, ctx.gap = tiles, total, gap
        lead = picked.to(best.dtype) - best
        ctx.mark_non_differentiable(lead)
        return *loss.unbind(), lead

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        streaming.refuse_second_derivative()
        tiles: _Tiles = ctx.tiles
        push = torch.stack(grads[:2]) * torch.sigmoid(ctx.gap)  # (2, B) of a loss by the logarithm of its sum
        pull = push.sum(dim=0).neg_().to(tiles.vectors.dtype)  # (B,) of a pair's two losses by its score
        total = ctx.total.clamp_min(torch.finfo(torch.float32).tiny)  # 0 where a pair is alone
        gradient = tiles.weigh((push / total).flatten().to(total.dtype), pull)
        by_temperature = None
        if ctx.needs_input_grad[1]:  # scores grow with the square of the vectors, and fall with the temperature
            change = (tiles.vectors.double() * gradient.double()).sum() / (-2 * tiles.divisor)
            by_temperature = change.to(tiles.vectors.dtype)
        return gradient if ctx.needs_input_grad[0] else None, by_temperature, None, None, None


class _Tiles:
    """The scores between all rows, of which those on and above the diagonal are enough; or ``across``, of the first
    view's rows with the second's. What a row scores with itself and with its twin is left out.

    Without a gradient. ``wide``: their exponentials are taken in float64.
    """

    def __init__(self, vectors: Tensor, divisor: float, across: bool, *, wide: bool) -> None:
        self.vectors, self.divisor, self.across = vectors.detach(), divisor, across
        self._wide = wide
        self._half = vectors.shape[0] // 2
        self._side = self._half if across else vectors.shape[0]  # of the square of scores
        self._kept: Tensor | None = None

    @property
    def _is_one(self) -> bool:
        """Whether there is one tile, whose exponentials may be kept."""
        return self._side**2 <= streaming.KEPT

    def sum_exponentials(self, *, keep: bool) -> tuple[Tensor, Tensor]:
        """(2B,) Σ exp(score) of each row, and (2B,) its largest score. ``keep``: :meth:`weigh` follows."""
        if self._is_one:
            scores = self._score_all()
            best = self._along_both(scores, torch.amax)
            exponentials = self._exponentiate(scores)
            self._kept = exponentials if keep else None
            return self._along_both(exponentials, torch.sum), best
        best = self.vectors.new_full((len(self.vectors),), float("-inf"))
        total = self.vectors.new_zeros(len(self.vectors), dtype=torch.float64 if self._wide else None)
        for rows, columns, scores in self._score_tiles():
            torch.maximum(best[rows], scores.amax(dim=1), out=best[rows])
            if rows != columns:
                torch.maximum(best[columns], scores.amax(dim=0), out=best[columns])
            exponentials = self._exponentiate(scores)
            total[rows] += exponentials.sum(dim=1)
            if rows != columns:
                total[columns] += exponentials.sum(dim=0)
        return total, best

    def weigh(self, factor: Tensor, pull: Tensor) -> Tensor:
        """(2B, D) the gradient of the vectors. A score's is its exponential times the sum of both rows' ``factor``
        (2B,); that of the i-th pair is ``pull[i]``, ``pull`` being (B,)."""
        vectors, half = self.vectors, self._half
        if self._kept is not None and not self.across:
            weights = torch.add(factor.unsqueeze(1), factor).mul_(self._kept).to(vectors.dtype)
            weights.diagonal(half).copy_(pull)
            weights.diagonal(-half).copy_(pull)
            return (weights @ vectors).div_(self.divisor)
        one, other = vectors.unflatten(0, (2, -1))
        gradient = torch.cat([other * pull.unsqueeze(1), one * pull.unsqueeze(1)])
        for rows, columns, exponentials in self._exponentiated():
            weights = torch.add(factor[rows].unsqueeze(1), factor[columns]).mul_(exponentials).to(vectors.dtype)
            gradient[rows].addmm_(weights, vectors[columns])
            if rows != columns:
                gradient[columns].addmm_(weights.T, vectors[rows])
        return gradient.div_(self.divisor)

    def _exponentiated(self) -> Iterator[tuple[slice, slice, Tensor]]:
        if self._kept is not None:
            yield *self._all, self._kept
            return
        for rows, columns, scores in self._score_tiles():
            yield rows, columns, self._exponentiate(scores)

    def _exponentiate(self, scores: Tensor) -> Tensor:
        return scores.double().exp_() if self._wide else scores.exp_()

    def _along_both(self, scores: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
        """(2B,) of each row, from all scores; across, of the first view's rows and then of the second's."""
        along_rows = reduce(scores, dim=1)
        return torch.cat([along_rows, reduce(scores, dim=0)]) if self.across else along_rows

    @property
    def _all(self) -> tuple[slice, slice]:
        first = self._half if self.across else 0
        return slice(0, self._side), slice(first, first + self._side)

    def _score_all(self) -> Tensor:
        rows, columns = (self.vectors[part] for part in self._all)
        if self._side <= _SMALL:
            hidden = _hide(self._side, None if self.across else self._half, rows.dtype)
            return torch.addmm(hidden, rows, columns.T, alpha=1 / self.divisor)
        scores = (rows / self.divisor) @ columns.T
        self._hide_in(scores, *self._all)
        return scores

    def _score_tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """The tiles, -inf where a score is left out. The next tile's are written over them."""
        divided, room = self.vectors / self.divisor, self.vectors.new_empty(min(_TILE, self._side) ** 2)
        rows_of_all, columns_of_all = self._all
        for rows in _cut(rows_of_all):
            for columns in _cut(columns_of_all):
                if not self.across and columns.start < rows.start:
                    continue
                height, width = rows.stop - rows.start, columns.stop - columns.start
                out = room[: height * width].view(height, width)
                scores = torch.mm(divided[rows], self.vectors[columns].T, out=out)
                self._hide_in(scores, rows, columns)
                yield rows, columns, scores

    def _hide_in(self, scores: Tensor, rows: slice, columns: slice) -> None:
        for between in (0, self._half, -self._half):  # how far a row is from itself, and from its twin
            offset = between + rows.start - columns.start
            if -len(scores) < offset < scores.shape[1]:
                scores.diagonal(offset).fill_(float("-inf"))


def _cut(rows: slice) -> list[slice]:
    return [slice(first, min(first + _TILE, rows.stop)) for first in range(rows.start, rows.stop, _TILE)]


@lru_cache(maxsize=8)
def _hide(side: int, half: int | None, dtype: torch.dtype) -> Tensor:
    """(side, side) 0, and -inf on the diagonal and, where there are two halves, between a row and its twin."""
    hidden = torch.zeros(side, side, dtype=dtype)
    for offset in (0,) if half is None else (0, half, -half):
        hidden.diagonal(offset).fill_(float("-inf"))
    return hidden
