"""The few collectives that the look-up needs, with the gradients that they must have.

They work on any backend (gloo on the CPU as well as NCCL) and are the identity on one process. Where a
gradient flows, backward *sums* over the processes: with the mean over processes that
DistributedDataParallel takes of every parameter's gradient, that is the exact gradient of the mean loss. A backward
is made of these collectives again, so that it has a gradient of its own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch
import torch.distributed as dist
from torch import Tensor

from contralex.compat import default_store

_Made = TypeVar("_Made")
_IS_AVAILABLE = dist.is_available()  # the same as long as torch is imported, and asked for several times a step


def world() -> int:
    """The number of processes, W."""
    return dist.get_world_size() if _IS_AVAILABLE and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0 to W-1. The main process has 0."""
    return dist.get_rank() if _IS_AVAILABLE and dist.is_initialized() else 0


def gather(tensor: Tensor, *, gradient: bool = False) -> Tensor:
    """(R, ...) on each process to (W·R, ...) on all, in the order of the ranks. Every process has the same R."""
    if world() == 1:
        return tensor if gradient else tensor.detach()
    if gradient and torch.is_grad_enabled():
        return _Gather.apply(tensor)  # type: ignore[no-any-return]
    return _all_gather(tensor.detach())


@overload
def gather_unequal(tensor: Tensor) -> Tensor: ...


@overload
def gather_unequal(tensor: Tensor | None) -> Tensor | None: ...


def gather_unequal(tensor: Tensor | None) -> Tensor | None:
    """(R, ...) on each process, with an R of its own or None for nothing, to (ΣR, ...) on all, in the order of the
    ranks. No gradient. None where no process has anything."""
    if world() == 1:
        return tensor
    shapes: list[Any] = [None] * world()
    dist.all_gather_object(shapes, None if tensor is None else (tuple(tensor.shape), tensor.dtype, tensor.device.type))
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return None
    counts = [shape[0][0] if shape is not None else 0 for shape in shapes]
    _, dtype, device = known[0]
    padded = torch.zeros((max(counts), *known[0][0][1:]), dtype=dtype, device=device)
    if tensor is not None:
        padded[: len(tensor)] = tensor
    if not len(padded):
        return padded
    parts = _all_gather(padded).split(len(padded))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_objects(objects: list[Any]) -> list[Any]:
    """The objects of all processes, in the order of the ranks. They must be picklable."""
    if world() == 1:
        return objects
    gathered: list[Any] = [None] * world()
    dist.all_gather_object(gathered, objects)
    return [each for part in gathered for each in part]


def make_on_main(name: str, make: Callable[[], _Made]) -> _Made:
    """Call ``make`` on the main process, and return its picklable result on all. The others wait for it by ``name``.

    It is no collective, so that it works where the main process goes first. That one must not end before the others
    have asked.
    """
    if world() == 1:
        return make()
    store = default_store()
    if rank() == 0:
        made = make()
        store.set(f"contralex/{name}", pickle.dumps(made))  # type: ignore[arg-type, unused-ignore]  # bytes may be
        return made
    return pickle.loads(store.get(f"contralex/{name}"))  # type: ignore[no-any-return]


def own_part(count: int) -> range:
    """This process's part of ``count`` indices. Each index belongs to exactly one process."""
    return range(rank() * count // world(), (rank() + 1) * count // world())


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum over processes, with a backward that sums as well (``dist.all_reduce`` has none)."""
    if world() == 1:
        return tensor
    return _Sum.apply(tensor)  # type: ignore[no-any-return]


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean over processes, with its gradient."""
    return sum_over_processes(tensor) / world()


def exchange(blocks: Tensor) -> Tensor:
    """Send the j-th of ``blocks`` (W, ...) to process j, and return those (W, ...) that all sent here, in the order
    of the ranks. The gradient of a block goes back to the process that made it."""
    if world() == 1:
        return blocks
    return _Exchange.apply(blocks)  # type: ignore[no-any-return]


def exchange_rows(rows: Tensor, send: list[int], receive: list[int]) -> Tensor:
    """As :func:`exchange`, with ``send[j]`` rows for process j and ``receive[j]`` rows from it; no gradient."""
    if world() == 1:
        return rows
    return _all_to_all(rows.detach(), send, receive)


def own_slice(rows: int) -> slice:
    """The slice of this process's ``rows`` in the result of :func:`gather`."""
    return slice(rank() * rows, (rank() + 1) * rows)


def _all_gather(tensor: Tensor) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(world())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def _all_to_all(rows: Tensor, send: list[int] | None = None, receive: list[int] | None = None) -> Tensor:
    arrived = rows.new_empty(len(rows) if receive is None else sum(receive), *rows.shape[1:])
    dist.all_to_all_single(arrived, rows.contiguous(), receive, send)
    return arrived


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return _all_gather(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every process's loss reads this process's rows, so their gradients add up; a backward that kept
        # only the local slice would lose all but its own.
        return sum_over_processes(grads[0])[own_slice(ctx.rows)]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return sum_over_processes(grads[0])


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocks: Tensor) -> Tensor:
        return _all_to_all(blocks)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return exchange(grads[0])  # a transposition of blocks, which is its own inverse
