"""The passes of :mod:`contralex.lookup.streaming` on an H100 and its kind, as one kernel each where Triton is there.

A tile of scores stays in a core's registers, so that memory is read for queries and entries alone. Sums, their
gradient where entries have none, and the two gradients where they have one are those of the tiles of torch: the same
arguments, the same meaning. What Triton cannot do here is left to torch: :func:`sum_tiles` and :func:`weigh_tiles`
return None.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """The size of a tile, and how a program runs: groups of 32 threads, and tiles that are read ahead."""

    outer: int
    """Vectors that a program keeps: queries, or entries where their gradient is made."""
    inner: int
    """Vectors that it reads at once from the other side. 16 at least, as ``outer``; both are powers of 2."""
    warps: int
    stages: int


# Measured on an H200 (benchmarks/gpu.md): these blocks are as fast as or faster than five others, and three products on
# tensor cores are four times as fast as float32 without them. In wider dimensions a kernel read beyond its memory.
LEAST_SCORES = 2**18  # N·M from which the kernels are faster than tiles of torch's
PROGRAMS = 264  # that should run, so that no core is idle: the inner side is divided among them if outer ones are few
PRECISION: Literal["tf32x3", "ieee"] = "tf32x3"  # of products: three on tensor cores, or float32 without these
BLOCKS = {  # by the largest dimension that they are for, in order
    64: Blocks(64, 64, 4, 2),
    128: Blocks(128, 32, 8, 2),
}
FORCED: bool | None = None  # True: use them for any size and device, and let errors out. False: never use them

_ENTRY_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOST_HIDDEN = 2
_LOWEST, _TINY = torch.finfo(torch.float32).min, torch.finfo(torch.float32).tiny
_failed: set[torch.device] = set()

_Found = TypeVar("_Found")


class Sums(NamedTuple):
    """What one pass over the entries gives for each query."""

    largest: Tensor
    """(N,) the largest score; -inf where all entries are hidden."""
    total: Tensor
    """(N,) Σ exp(score − largest); 0 where all are hidden."""
    rounded: Tensor
    """(N,) the score of the picked entry; -inf where it is hidden or out of range. Empty where none is picked."""
    best: Tensor
    """(N,) the index of the first entry with the largest score. Empty where it is not asked for."""
    mean: Tensor | None
    """(N, D) the mean entry under the softmax, 0 where all are hidden. None where it is not asked for."""


def sum_tiles(
    queries: Tensor,
    entries: Tensor,
    hidden: tuple[Tensor, ...],
    *,
    picked: Tensor | None = None,
    best: bool = False,
    mean: bool = False,
) -> Sums | None:
    """Go over the entries (M, D) for each query (N, D) but for those at ``hidden``, each (N,), and ``picked`` (N,).

    Without a gradient. None where torch is to do it.
    """
    if not _can_sum(queries, entries, hidden):
        return None
    return _attempt(queries, lambda: _sum_tiles(queries, entries, hidden, picked, best, mean))


def weigh_tiles(
    queries: Tensor,
    entries: Tensor,
    hidden: tuple[Tensor, ...],
    *,
    reference: Tensor,
    factor: Tensor,
    picked: Tensor | None = None,
    of_picked: Tensor | None = None,
    needs: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None] | None:
    """The gradients of queries and entries, as far as these ``needs`` say, where that of a score is
    exp(score − reference)·factor, and ``of_picked`` for the picked entry; the four are (N,) each.

    None where torch is to do it.
    """
    if not _can_sum(queries, entries, hidden):
        return None

    def weigh() -> tuple[Tensor | None, Tensor | None]:
        one = _Side(queries, entries, turned=False)
        other = _Side(entries, queries, turned=True)
        rows = (reference.contiguous(), factor.contiguous(), picked, of_picked)
        of_queries = _weigh_side(one, hidden, *rows) if needs[0] else None
        return of_queries, _weigh_side(other, hidden, *rows).to(entries.dtype) if needs[1] else None

    return _attempt(queries, weigh)


def _can_sum(queries: Tensor, entries: Tensor, hidden: tuple[Tensor, ...]) -> bool:
    """Whether the kernels can do this, and are measured to pay."""
    if FORCED is False or (FORCED is None and not _is_able(queries.device)):
        return False
    scores = len(queries) * len(entries)
    return (
        queries.dtype == torch.float32
        and entries.dtype in _ENTRY_TYPES
        and entries.device == queries.device
        and 0 < queries.shape[1] <= max(BLOCKS)
        and len(hidden) <= _MOST_HIDDEN
        and scores >= (1 if FORCED else LEAST_SCORES)
        and not torch.compiler.is_compiling()
    )


def _is_able(device: torch.device) -> bool:
    return device.type == "cuda" and device not in _failed and _is_hopper(device) and _has_triton()


@lru_cache
def _is_hopper(device: torch.device) -> bool:
    """Whether this is an H100, or of its kind, for which the blocks were chosen: others have other limits."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) == (9, 0)


@lru_cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _attempt(queries: Tensor, launch: Callable[[], _Found]) -> _Found | None:
    """What ``launch`` returns; None after the first failure, of which a warning tells. Triton compiles when a kernel is
    first launched, with a C compiler that may be missing, for a GPU that may have too little memory in a core."""
    try:
        with torch.cuda.device_of(queries):
            return launch()
    except Exception as error:
        if FORCED:
            raise
        _failed.add(queries.device)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        warnings.warn(f"Triton does not work here, so the look-up is computed by torch: {reason}", stacklevel=2)
        return None


def _sum_tiles(
    queries: Tensor, entries: Tensor, hidden: tuple[Tensor, ...], picked: Tensor | None, best: bool, mean: bool
) -> Sums:
    from contralex.lookup import triton_kernels

    side = _Side(queries, entries, turned=False)
    parts, count = side.parts, len(queries)

    def room(wanted: bool, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((parts, count, *shape) if wanted else (0,), dtype=dtype, device=queries.device)

    largest, total, rounded = room(True), room(True), room(picked is not None)
    first, weighted = room(best, dtype=torch.int32), room(mean, side.dim)
    side.launch(
        triton_kernels.sum_tiles,
        (side.outer, side.inner, _index(picked, queries), _stack(hidden, queries)),
        (largest, total, rounded, first, weighted),
        ROWS=side.blocks.outer,
        COLUMNS=side.blocks.inner,
        HIDDEN=len(hidden),
        PICKS=picked is not None,
        BEST=best,
        MEAN=mean,
    )
    top = largest.amax(dim=0)
    fraction = (largest - top.clamp_min(_LOWEST)).exp_()  # (parts, N)
    summed = total.mul_(fraction).sum(dim=0)
    mean_entry = None
    if mean:
        mean_entry = weighted.mul_(fraction.div_(-summed.clamp_min(_TINY)).unsqueeze(2)).sum(dim=0)
    if best:  # of equal scores the first; none is equal to NaN
        first = torch.where(largest == top, first, len(entries)).amin(dim=0).clamp_max_(len(entries) - 1)
    return Sums(
        largest=top,
        total=summed,
        rounded=rounded if picked is None else rounded.amax(dim=0),
        best=first.long(),
        mean=mean_entry,
    )


def _weigh_side(
    side: _Side,
    hidden: tuple[Tensor, ...],
    reference: Tensor,
    factor: Tensor,
    picked: Tensor | None,
    of_picked: Tensor | None,
) -> Tensor:
    """(outer, D) the gradient of the outer vectors."""
    from contralex.lookup import triton_kernels

    gradient = side.outer.new_empty(side.parts, len(side.outer), side.dim, dtype=torch.float32)
    side.launch(
        triton_kernels.weigh_tiles,
        (side.outer, side.inner, reference, factor, _index(picked, reference)),
        (reference if of_picked is None else of_picked.contiguous(), _stack(hidden, reference), gradient),
        OUTER=side.blocks.outer,
        INNER=side.blocks.inner,
        HIDDEN=len(hidden),
        PICKS=of_picked is not None,
        TURNED=side.turned,
    )
    return gradient.sum(dim=0).neg_()


class _Side:
    """A launch of programs that each keep some of the ``outer`` vectors and go over a chunk of the ``inner`` ones."""

    def __init__(self, outer: Tensor, inner: Tensor, *, turned: bool) -> None:
        self.outer, self.inner = (each if each.stride(1) == 1 else each.contiguous() for each in (outer, inner))
        self.turned = turned
        self.dim = outer.shape[1]
        self.blocks = next(blocks for most, blocks in BLOCKS.items() if self.dim <= most)
        self.programs = _divide_up(len(outer), self.blocks.outer)
        tiles = _divide_up(len(inner), self.blocks.inner)
        each = _divide_up(tiles, min(tiles, _divide_up(PROGRAMS, self.programs)))
        self.chunk, self.parts = each * self.blocks.inner, _divide_up(tiles, each)

    def launch(self, kernel: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], **settings: Any) -> None:
        kernel[self.programs, self.parts](
            *inputs,
            *outputs,
            len(self.outer),
            len(self.inner),
            self.outer.stride(0),
            self.inner.stride(0),
            self.chunk,
            DIM=self.dim,
            WIDTH=max(16, 1 << (self.dim - 1).bit_length()),
            PRECISION=PRECISION,
            num_warps=self.blocks.warps,
            num_stages=self.blocks.stages,
            **settings,
        )


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)


def _index(index: Tensor | None, instead: Tensor) -> Tensor:
    """A kernel has to be given something where it will read nothing."""
    return instead if index is None else index.contiguous()


def _stack(hidden: tuple[Tensor, ...], instead: Tensor) -> Tensor:
    if len(hidden) < 2:
        return _index(hidden[0] if hidden else None, instead)
    return torch.stack(hidden)
