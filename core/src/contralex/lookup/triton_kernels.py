"""Kernels of :mod:`contralex.lookup.triton_sums`, in Triton. Imported where they run, because not all have Triton.

Each program has a tile of scores in registers and goes over a chunk of the other side. Programs of different chunks
write to different places, and torch adds these up: no atomic addition, so that a result is the same each time.

The accumulator of a matrix product on tensor cores is truncated, not rounded, at each of its steps. So a product begins
at 0 for each tile, and is subtracted from what is there: an addition would be made the product's accumulator by the
compiler. What is stored is the negative.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

# Arguments of a kernel have Triton's types, which only its compiler knows.

LOWEST: Any = tl.constexpr(-3.4028234663852886e38)  # of float32: −∞ − −∞ is no number
NOTHING: Any = tl.constexpr(float("-inf"))


@triton.jit
def _read_indices(pointer, rows, count, entry_count):
    """The indices of these rows in 32 bits; -1 where they are out of range, as are rows beyond the last."""
    index = tl.load(pointer + rows, mask=rows < count, other=-1)
    return tl.where((index >= 0) & (index < entry_count), index, -1).to(tl.int32)


@triton.jit
def _read_vectors(pointer, rows, count, stride, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """(R, WIDTH) in float32; 0 beyond the last row and beyond DIM."""
    dims = tl.arange(0, WIDTH)
    inside = (rows[:, None] < count) & (dims[None, :] < DIM)
    at = rows.to(tl.int64)[:, None] * stride + dims[None, :]
    return tl.load(pointer + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def sum_tiles(
    queries,
    entries,
    picked,
    hidden,
    largest_out,
    total_out,
    rounded_out,
    best_out,
    weighted_out,
    query_count,
    entry_count,
    query_stride,
    entry_stride,
    chunk,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
    PICKS: tl.constexpr,
    BEST: tl.constexpr,
    MEAN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of each query and each chunk of entries: the largest score, Σ exp(score − largest), the picked entry's score, the
    first entry with the largest score, −Σ exp(score − largest)·entry. The picked entry counts in none but its own."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1)
    query = _read_vectors(queries, rows, query_count, query_stride, DIM, WIDTH)
    largest = tl.full([ROWS], NOTHING, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    missing = tl.zeros([ROWS], tl.float32)  # what rounding took from the total, as Kahan has it
    if PICKS:
        wanted = _read_indices(picked, rows, query_count, entry_count)
        rounded = tl.full([ROWS], NOTHING, tl.float32)
    if HIDDEN > 0:
        first_hidden = _read_indices(hidden, rows, query_count, entry_count)
    if HIDDEN > 1:
        second_hidden = _read_indices(hidden + query_count, rows, query_count, entry_count)
    if BEST:
        best = tl.zeros([ROWS], tl.int32)
    if MEAN:
        weighted = tl.zeros([ROWS, WIDTH], tl.float32)
    begin = part * chunk
    end = tl.minimum(begin + chunk, entry_count)
    for start in range(begin, end, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        entry = _read_vectors(entries, columns, entry_count, entry_stride, DIM, WIDTH)
        scores = tl.dot(query, tl.trans(entry), input_precision=PRECISION)
        scores = tl.where(columns[None, :] < entry_count, scores, NOTHING)
        if HIDDEN > 0:
            scores = tl.where(columns[None, :] == first_hidden[:, None], NOTHING, scores)
        if HIDDEN > 1:
            scores = tl.where(columns[None, :] == second_hidden[:, None], NOTHING, scores)
        if PICKS:
            is_wanted = columns[None, :] == wanted[:, None]
            rounded = tl.maximum(rounded, tl.max(tl.where(is_wanted, scores, NOTHING), 1))
            scores = tl.where(is_wanted, NOTHING, scores)
        top = tl.max(scores, 1)
        if BEST:
            best = tl.where(top > largest, start + tl.argmax(scores, 1), best)
        rise = tl.maximum(largest, top)
        reference = tl.maximum(rise, LOWEST)
        fraction = tl.exp(largest - reference)
        exponentials = tl.exp(scores - reference[:, None])
        total = total * fraction
        more = tl.sum(exponentials, 1) - missing * fraction
        risen = total + more
        missing = (risen - total) - more
        total = risen
        if MEAN:
            weighted = weighted * fraction[:, None] - tl.dot(exponentials, entry, input_precision=PRECISION)
        largest = rise
    inside = rows < query_count
    at = part * query_count + rows
    tl.store(largest_out + at, largest, mask=inside)
    tl.store(total_out + at, total, mask=inside)
    if PICKS:
        tl.store(rounded_out + at, rounded, mask=inside)
    if BEST:
        tl.store(best_out + at, best, mask=inside)
    if MEAN:
        dims = tl.arange(0, WIDTH)
        place = at.to(tl.int64)[:, None] * DIM + dims[None, :]
        tl.store(weighted_out + place, weighted, mask=inside[:, None] & (dims[None, :] < DIM))


@triton.jit
def weigh_tiles(
    outer,
    inner,
    reference,
    factor,
    picked,
    of_picked,
    hidden,
    gradient_out,
    outer_count,
    inner_count,
    outer_stride,
    inner_stride,
    chunk,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    OUTER: tl.constexpr,
    INNER: tl.constexpr,
    HIDDEN: tl.constexpr,
    PICKS: tl.constexpr,
    TURNED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of each outer vector and each chunk of inner ones, −Σ weight·vector over the inner ones, weight being
    exp(score − reference)·factor, and ``of_picked`` for the picked entry.

    The outer vectors are the queries and the inner ones the entries, or ``TURNED``. The other arguments are of queries.
    """
    AXIS: tl.constexpr = 0 if TURNED else 1  # a query has a column of a tile if turned, else a row
    own = tl.program_id(0) * OUTER + tl.arange(0, OUTER)
    part = tl.program_id(1)
    vector = _read_vectors(outer, own, outer_count, outer_stride, DIM, WIDTH)
    gradient = tl.zeros([OUTER, WIDTH], tl.float32)
    query_count = inner_count if TURNED else outer_count
    entry_count = outer_count if TURNED else inner_count
    begin = part * chunk
    end = tl.minimum(begin + chunk, inner_count)
    for start in range(begin, end, INNER):
        others = start + tl.arange(0, INNER)
        other = _read_vectors(inner, others, inner_count, inner_stride, DIM, WIDTH)
        rows = others if TURNED else own
        columns = tl.expand_dims(own if TURNED else others, 1 - AXIS)
        row_inside = rows < query_count
        row_reference = tl.expand_dims(tl.load(reference + rows, mask=row_inside, other=0.0), AXIS)
        row_factor = tl.expand_dims(tl.load(factor + rows, mask=row_inside, other=0.0), AXIS)
        scores = tl.dot(vector, tl.trans(other), input_precision=PRECISION)
        scores = tl.where(columns < entry_count, scores, NOTHING)
        if HIDDEN > 0:
            first_hidden = tl.expand_dims(_read_indices(hidden, rows, query_count, entry_count), AXIS)
            scores = tl.where(columns == first_hidden, NOTHING, scores)
        if HIDDEN > 1:
            second_hidden = tl.expand_dims(_read_indices(hidden + query_count, rows, query_count, entry_count), AXIS)
            scores = tl.where(columns == second_hidden, NOTHING, scores)
        weights = tl.exp(scores - row_reference) * row_factor
        if PICKS:
            wanted = tl.expand_dims(_read_indices(picked, rows, query_count, entry_count), AXIS)
            row_picked = tl.expand_dims(tl.load(of_picked + rows, mask=row_inside, other=0.0), AXIS)
            weights = tl.where(columns == wanted, row_picked, weights)
        gradient = gradient - tl.dot(weights, other, input_precision=PRECISION)
    dims = tl.arange(0, WIDTH)
    place = (part * outer_count + own).to(tl.int64)[:, None] * DIM + dims[None, :]
    tl.store(gradient_out + place, gradient, mask=(own[:, None] < outer_count) & (dims[None, :] < DIM))
