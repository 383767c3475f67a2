"""Parameters of which each process has a part (FSDP2's are torch's ``DTensor``): what must be known of all parts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from contralex.compat import norm_each


def is_sharded(tensor: Any) -> bool:
    """Whether this process has a part of it alone. Nothing is imported to find out. Before torch 2.5 the module of this
    name has no such class, and FSDP2 is refused."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def own_part(tensor: Tensor) -> Tensor:
    """This process's part, in the same memory; the tensor itself where it is not sharded."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return part


def gather_parts(tensor: Tensor) -> Tensor:
    """The tensor as one process has it. A collective where it is sharded."""
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return whole


def measure_norms(tensors: Sequence[Tensor]) -> Tensor:
    """(N,) the Euclidean norm of each. A collective where one is sharded."""
    norms = torch.stack(norm_each([own_part(tensor) for tensor in tensors]))
    sharded = [is_sharded(tensor) for tensor in tensors]
    if not any(sharded):
        return norms
    parts = torch.tensor(sharded, device=norms.device)
    squares = torch.where(parts, norms.square(), 0.0)
    dist.all_reduce(squares)
    return torch.where(parts, squares.sqrt(), norms)
