"""A key encoder that averages everything, BatchNorm's statistics included."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from contralex.plugin import Encoder, KeyEncoder, Rows, Step, distributed

M = TypeVar("M", bound=nn.Module)


class AveragedEncoder(KeyEncoder):
    """θ_k ← m·θ_k + (1−m)·θ_q after each step, for weights and running statistics; m = min(momentum, 1 − 1/(t+1)).

    It stays in evaluation mode: BatchNorm uses the averaged statistics, and not those of the batch.
    """

    def __init__(self, momentum: float, encoder: Encoder) -> None:
        super().__init__()
        self.momentum = momentum
        self.encoder = _twin(encoder)
        self.twins = nn.ModuleList()
        # A plain list, because the query's modules have another owner.
        self._pairs: list[tuple[nn.Module, nn.Module]] = [(encoder, self.encoder)]

    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, Tensor],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        with torch.no_grad():
            return Rows.from_views(self.encoder.keys(self.encoder(views)), sample)

    def side(self, module: M) -> M:
        twin = _twin(module)
        self.twins.append(twin)
        self._pairs.append((module, twin))
        return twin

    def update(self, step: Step) -> None:
        momentum = min(self.momentum, 1 - 1 / (step.clock.step + 1))
        for online, twin in self._pairs:
            for weight, theirs in zip(twin.parameters(), online.parameters(), strict=True):
                weight.lerp_(theirs, 1 - momentum)
            for buffer, now in zip(twin.buffers(), online.buffers(), strict=True):
                if buffer.is_floating_point():  # each process may have statistics of its own
                    buffer.lerp_(distributed.mean_over_processes(now), 1 - momentum)
                else:  # a count of batches has no average
                    buffer.copy_(now)

    def train(self, mode: bool = True) -> AveragedEncoder:
        return super().train(False)


def _twin(module: M) -> M:
    return copy.deepcopy(module).requires_grad_(False)
