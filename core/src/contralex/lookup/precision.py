"""The precision in which look-ups compute, whatever that of training is."""

from __future__ import annotations

import torch
from torch import Tensor

_PRECISE = (torch.float32, torch.float64)


def at_least_float32(tensor: Tensor, *, copy: bool = False) -> Tensor:
    """The tensor in float32, or as it is where it is in float64. ``copy``: as a tensor of its own, even then."""
    if tensor.dtype in _PRECISE:
        return tensor.clone() if copy else tensor
    return tensor.to(torch.float32)
