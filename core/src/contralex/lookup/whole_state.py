"""A model's state as one process would have it, where tables are in parts (see :mod:`contralex.lookup.shards`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.lookup.shards import own_range, part_rows, range_of
from contralex.lookup.slots import NegativeSource


def sharded_buffers(model: nn.Module) -> dict[str, int]:
    """The names, as in its ``state_dict``, of all buffers of a model that are in parts, with the rows of each whole."""
    return {
        f"{prefix}.{name}" if prefix else name: total
        for prefix, module in model.named_modules()
        if isinstance(module, NegativeSource)
        for name, total in module.sharded_buffers().items()
    }


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as one process would have it, on the main process; the others get their own.

    Every process calls it. Parts arrive one after the other, and are joined in the memory of the CPU.
    """
    state: dict[str, Tensor] = dict(model.state_dict())
    for name, total in sharded_buffers(model).items():
        state[name] = _joined(state[name], total)
    return state


def own_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` of a whole state, with this process's part of what the model holds in parts."""
    state = dict(tensors)
    for name, total in sharded_buffers(model).items():
        if name in state:
            state[name] = _part(name, state[name], total)
    return state


def _joined(part: Tensor, total: int) -> Tensor:
    part = part.detach().contiguous()
    if distributed.rank() != 0:
        dist.send(part, 0)
        return part
    whole = torch.empty(total, *part.shape[1:], dtype=part.dtype)
    for rank in range(distributed.world()):
        arrived = part
        if rank > 0:
            arrived = torch.empty_like(part)
            dist.recv(arrived, rank)
        start, stop = range_of(total, rank)
        whole[start:stop] = arrived[: stop - start]
    return whole


def _part(name: str, whole: Tensor, total: int) -> Tensor:
    if len(whole) != total:  # cut, it could by chance have the right shape
        raise ContralexError(
            f"{name} has {len(whole)} rows where the spec makes {total}; use the spec that it was made with."
        )
    start, stop = own_range(total)
    part = whole.new_zeros(part_rows(total), *whole.shape[1:])
    part[: stop - start] = whole[start:stop]
    return part
