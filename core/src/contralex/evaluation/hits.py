"""How often a class is right, counted once for every evaluator."""

from __future__ import annotations

import torch
from torch import Tensor


def count_hits(hit: Tensor) -> Tensor:
    """(2,) int64: in how many rows of ``hit`` (N, C) the first entry is true, and in how many any is.

    ``hit`` says of each sample's classes, the best first and five at most, which is its own.
    """
    return torch.stack([hit[:, 0].sum(), hit.any(dim=1).sum()])
