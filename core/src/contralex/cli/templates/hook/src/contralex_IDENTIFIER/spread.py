"""How far the queries are spread."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import distributed


def watch(loss: nn.Module) -> None:
    """Measure the spread at each look-up, as ``loss.spread``."""
    loss.register_forward_hook(_measure_spread)


@torch.no_grad()
def _measure_spread(loss: nn.Module, arguments: tuple[Any, ...], found: Tensor) -> None:
    """The standard deviation of unit queries times √D (SimSiam, arXiv:2011.10566, section 4.1), over all processes."""
    unit = F.normalize(arguments[0].vectors, dim=1)  # the arguments of Loss.forward, of which queries are the first
    mean = distributed.mean_over_processes(unit.mean(dim=0))
    variance = distributed.mean_over_processes((unit - mean).square().mean(dim=0))
    loss.spread = variance.sqrt().mean() * unit.shape[1] ** 0.5
