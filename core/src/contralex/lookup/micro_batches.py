"""Encoding a batch in parts: the gradient of the whole batch in the memory of a part (gradient caching: GradCache, Gao
et al., 2021, arXiv:2101.06983).

Each micro-batch is encoded twice. The first pass leaves its rows and keeps no activation. The look-up then sees the
rows of the whole batch, and its backward gives the gradient of each. When that gradient arrives at a micro-batch, it is
encoded again, from the same random numbers and the same buffers, and its activations are freed before the next one's
are made. All of this is one graph of autograd's, so that the caller of ``backward`` need not know of it: each parameter
gets its gradient once, and DistributedDataParallel reduces it once.

Buffers that an encoder writes (BatchNorm's running statistics) change in the first pass alone. Every micro-batch starts
from their values before the step; afterwards they have the mean of what the micro-batches left, which is what
BatchNorm in groups leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from contralex.compat import BatchNorm, copy_each, lerp_each, times_written
from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed

T = TypeVar("T")
_PART = ContextVar("index and number of the micro-batch", default=(0, 1))


def encode_in_parts(
    encode: Callable[[slice, Tensor], T], sample: Tensor, size: int | None, modules: Sequence[nn.Module]
) -> list[T]:
    """What ``encode`` makes of each ``size`` of the samples ``sample`` (B,), given their slice of the batch, and them.
    None: of all at once, and once.

    ``modules`` are those whose forward passes it calls. Where gradients are enabled, it is called again in backward.
    """
    if size is None or size >= len(sample):
        return [encode(slice(None), sample)]
    parts, rest = divmod(len(sample), size)
    if rest:
        raise ContralexError(
            f"train.micro_batch is {size}, which does not divide the {len(sample)} samples of this process's part of "
            "the batch."
        )
    buffers = _WrittenBuffers(modules)
    made: list[T] = []
    for part in range(parts):
        which = slice(part * size, (part + 1) * size)
        contexts = partial(_contexts, buffers, part, parts)
        with buffers.of_part(), _part(part, parts):
            made.append(checkpoint(encode, which, sample[which], use_reentrant=False, context_fn=contexts))
    buffers.write_mean()
    return made


def slice_of_batch(rows: int) -> tuple[int, slice]:
    """How many rows the global batch has, and the slice of them that a network is given now, where those are ``rows``.

    For chance that is drawn for the whole batch, so that it is the same however the batch is divided.
    """
    part, parts = _PART.get()
    begin = (distributed.rank() * parts + part) * rows
    return rows * parts * distributed.world(), slice(begin, begin + rows)


@contextmanager
def _part(part: int, parts: int) -> Iterator[None]:
    token = _PART.set((part, parts))
    try:
        yield
    finally:
        _PART.reset(token)


def _contexts(
    buffers: _WrittenBuffers, part: int, parts: int
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first pass of a micro-batch, and around the second, which may run in a thread of autograd's."""
    return nullcontext(), _again(buffers, part, parts)


@contextmanager
def _again(buffers: _WrittenBuffers, part: int, parts: int) -> Iterator[None]:
    with _part(part, parts), buffers.as_before():
        yield


class _WrittenBuffers:
    """The buffers that forward passes write, found in the first micro-batch."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._all = list(_buffers(modules))
        self._copies = [buffer.clone() for buffer in self._all]
        self._writes = [times_written(buffer) for buffer in self._all]
        self._parts = 0
        self._written: list[Tensor] = []
        self._before: list[Tensor] = []
        self._averaged: list[Tensor] = []  # those of numbers that have a mean
        self._means: list[Tensor] = []

    @contextmanager
    def of_part(self) -> Iterator[None]:
        """Around the first pass of a micro-batch."""
        if self._written:
            copy_each(self._written, self._before)
        yield
        self._parts += 1
        if self._parts == 1:
            self._find_written()
            self._means = [buffer.clone() for buffer in self._averaged]
        elif self._averaged:
            lerp_each(self._means, self._averaged, 1 / self._parts)

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Within, they are as every micro-batch has found them; afterwards, what they are now."""
        now = [buffer.clone() for buffer in self._written]
        if now:
            copy_each(self._written, self._before)
        try:
            yield
        finally:
            if now:
                copy_each(self._written, now)

    def write_mean(self) -> None:
        if self._averaged:
            copy_each(self._averaged, self._means)

    def _find_written(self) -> None:
        # torch does not count what BatchNorm writes into its running statistics.
        norms = {id(buffer) for norm in _training_norms(self._modules) for buffer in norm.buffers(recurse=False)}
        for now, buffer, copy, writes in zip(
            _buffers(self._modules), self._all, self._copies, self._writes, strict=True
        ):
            if now is not buffer:
                raise ContralexError(
                    "train.micro_batch: a forward pass puts a new tensor in the place of a buffer of shape "
                    f"{tuple(buffer.shape)}; it must write into the old one (buffer.copy_(...)), so that a second pass "
                    "can begin from what was there. Until it does:" + remedy("--set", "train.micro_batch=null")
                )
            if id(buffer) in norms or times_written(buffer) != writes:
                self._written.append(buffer)
                self._before.append(copy)
        self._averaged = [buffer for buffer in self._written if buffer.is_floating_point()]


def _buffers(modules: Sequence[nn.Module]) -> Iterator[Tensor]:
    """Each once, though modules may share some."""
    return iter({id(buffer): buffer for module in modules for buffer in module.buffers()}.values())


def _training_norms(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    parts = (part for module in modules for part in module.modules())
    return (part for part in parts if isinstance(part, BatchNorm) and part.training)
