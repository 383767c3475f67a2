"""The state of a model as one process would have it, where tables are sharded (see :mod:`contralex.lookup.shards`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.lookup.sharded_tensors import gather_parts, is_sharded, own_part
from contralex.lookup.shards import own_range, row_range, rows_per_process
from contralex.lookup.slots import NegativeSource


def sharded_buffers(model: nn.Module) -> dict[str, int]:
    """The sharded buffers of a model, named as in its ``state_dict``, with the rows of each complete table."""
    return {
        f"{prefix}.{name}" if prefix else name: total
        for prefix, module in model.named_modules()
        if isinstance(module, NegativeSource)
        for name, total in module.sharded_buffers().items()
    }


def gather_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's complete state on the main process, and each other process's own state there.

    A collective. Parts arrive one after the other, and are joined in the memory of the CPU.
    """
    state: dict[str, Tensor] = dict(model.state_dict())
    for name, tensor in state.items():
        if is_sharded(tensor):
            whole = gather_parts(tensor)
            state[name] = whole.cpu() if distributed.rank() == 0 else own_part(tensor)
    for name, total in sharded_buffers(model).items():
        state[name] = _join(state[name], total)
    return state


def select_own_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the ``tensors`` of a complete state, with this process's part of each sharded buffer."""
    state = dict(tensors)
    for name, total in sharded_buffers(model).items():
        if name in state:
            state[name] = _cut(name, state[name], total)
    return state


def _join(part: Tensor, total: int) -> Tensor:
    part = part.detach().contiguous()
    if distributed.rank() != 0:
        dist.send(part, 0)
        return part
    table = torch.empty(total, *part.shape[1:], dtype=part.dtype)
    for rank in range(distributed.world()):
        arrived = part
        if rank > 0:
            arrived = torch.empty_like(part)
            dist.recv(arrived, rank)
        start, stop = row_range(total, rank)
        table[start:stop] = arrived[: stop - start]
    return table


def _cut(name: str, table: Tensor, total: int) -> Tensor:
    if len(table) != total:  # cut, it could by chance have the right shape
        raise ContralexError(
            f"{name} has {len(table)} rows where the spec makes {total}; use the spec that it was made with."
        )
    start, stop = own_range(total)
    part = table.new_zeros(rows_per_process(total), *table.shape[1:])
    part[: stop - start] = table[start:stop]
    return part
