"""Each recipe's method, small, with one real batch: for one step on one device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from contralex.data.loading import EpochSampler, ViewDataset, collate
from contralex.plugin import Clock, LookUp, Step, StepResult
from contralex.training import build, optimizers
from tests.distributed.invariance import FIRST, B, spec_of

Views = dict[int, Tensor]


class Case:
    """A recipe's method, small, and one real batch for it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.spec = spec_of(name, folder)
        self.split = self.spec.data.build().train()
        data = ViewDataset(self.split, self.spec.method.views.build(), self.spec.train.seed, B)
        first = min(FIRST, data.order.steps * 2 - 2)
        sampler = EpochSampler(len(self.split), B, self.spec.train.seed, 50, start_step=first)
        self.batch = collate([data[at] for at in next(iter(sampler))])
        self.moment = Clock(first, 50 * data.order.steps, data.order.steps)

    def method(self, device: str) -> LookUp:
        return build.look_up(self.spec, len(self.split), self.split.labels).to(device)

    def inputs(self, device: str) -> tuple[Views, Tensor, Step]:
        views = {view: images.to(device) for view, images in self.batch["views"].items()}
        return views, self.batch["index"].to(device), Step(self.moment, self.spec.train.seed, B)

    def optimizer(self, method: LookUp) -> torch.optim.Optimizer:
        return optimizers.build(self.spec.train.optimizer, method)

    def step(self, method: LookUp, inputs: tuple[Views, Tensor, Step]) -> StepResult:
        result: StepResult = method(*inputs)
        result.loss.backward()
        return result
