"""Nearest neighbours by cosine, block by block, in memory that does not grow with the number of rows.

Of equal scores the row that comes first is first, so the answer does not depend on how a library sorts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex import progress

_QUERIES = 1024  # that are compared at a time
_ROWS = 16_384  # with as many rows
_PAIRS = 2048  # rows that are compared with as many others, of which all may be pairs


@torch.no_grad()
def find_neighbours(
    queries: Tensor,
    rows: Tensor,
    k: int,
    *,
    exclude: Tensor | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` rows (N, F) that are nearest to each of the queries (Q, F) by cosine, the nearest first.

    Returns the cosines (Q, k) in float32 and the indices (Q, k) of the rows, on the device of ``queries``. There are
    fewer columns where there are fewer rows. ``exclude`` (Q,): for each query the index of one row that is left out,
    such as its own; -1 for none. ``device``: where it is computed; None: where the queries are. The rows may be of any
    floating-point type and lie in a mapped file: they are read, and brought to length 1, a block at a time.
    """
    home = queries.device
    device = torch.device(device) if device is not None else home
    wanted = k if exclude is None else k + 1
    found: list[tuple[Tensor, Tensor]] = []
    starts = range(0, len(queries), _QUERIES)
    for start in progress.steps("Looking for neighbours", starts, len(starts)):
        asked = _unit(queries[start : start + _QUERIES], device)
        scores, index = nearest_in_blocks(asked, _unit_blocks(rows, device), wanted)
        found.append((scores.to(home), index.to(home)))
    if not found:
        width = min(k, len(rows))
        return queries.new_empty(0, width, dtype=torch.float32), torch.empty(0, width, dtype=torch.long, device=home)
    scores, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    return (scores, index) if exclude is None else _without(scores, index, exclude.to(home))


def nearest_in_blocks(queries: Tensor, blocks: Iterable[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The best of all blocks for each query: the cosines (n, k), the best first, and the values (n, k) of those rows.

    ``queries`` (n, F): vectors of length 1. ``blocks``: rows (m, F) of length 1, and a value for each, (m,) int64,
    such as its label or its index. Fewer columns where there are fewer rows.
    """
    scores = queries.new_empty(len(queries), 0)
    values = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for rows, own in blocks:
        best, where = select_best(queries @ rows.T, k)
        if not scores.shape[1]:  # the first block
            scores, values = best, own[where]
            continue
        scores, where_of_both = select_best(torch.cat([scores, best], dim=1), k)
        values = torch.cat([values, own[where]], dim=1).gather(1, where_of_both)
    return scores, values


def select_best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest scores of each line (n, m), and their columns; of equal ones the first column is first.

    ``torch.topk`` takes any of those that are equal to the last one taken.
    """
    k = min(k, scores.shape[1])
    best, where = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = best[:, k - 1 : k] == best[:, k:]  # (n, 1): the k-th with the next, if there is one
    where = where[:, :k]
    if bool(tied.any()):
        lines = tied.flatten()
        where[lines] = _first_of_equals(scores[lines], best[lines, k:], k)
    where = where.sort(dim=1).values
    best, order = scores.gather(1, where).sort(dim=1, descending=True, stable=True)
    return best, where.gather(1, order)


def find_pairs(
    rows: Tensor, threshold: float, *, device: torch.device | str | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs (i < j) of rows (N, F) whose cosine is at least ``threshold``: indices (p,) and (p,), in parts.

    A part has at most 2,048 × 2,048 pairs, whatever there is to be found.
    """
    device = torch.device(device) if device is not None else rows.device
    starts = range(0, len(rows), _PAIRS)
    for start in progress.steps("Comparing all pairs", starts, len(starts)):
        left = _unit(rows[start : start + _PAIRS], device)
        for other in range(start, len(rows), _PAIRS):
            right = left if other == start else _unit(rows[other : other + _PAIRS], device)
            first, second = ((left @ right.T) >= threshold).nonzero().cpu().unbind(1)
            first, second = first + start, second + other
            later = first < second
            yield first[later], second[later]


def _first_of_equals(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """Columns (n, k), for lines of which more than ``k`` scores reach the k-th: of those that equal it the first."""
    above, equal = scores > last, scores == last
    room = k - above.sum(dim=1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=1) <= room))).nonzero()[:, 1].view(-1, k)


def _without(scores: Tensor, index: Tensor, exclude: Tensor) -> tuple[Tensor, Tensor]:
    """One column less: the excluded row's, or the last where it is not among them."""
    out = index == exclude[:, None]
    out[:, -1] |= ~out.any(dim=1)
    shape = (len(index), max(index.shape[1] - 1, 0))
    return scores[~out].view(shape), index[~out].view(shape)


def _unit(rows: Tensor, device: torch.device) -> Tensor:
    return F.normalize(rows.to(device).float(), dim=1)


def _unit_blocks(rows: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(rows), _ROWS):
        block = _unit(rows[start : start + _ROWS], device)
        yield block, torch.arange(start, start + len(block), device=device)
