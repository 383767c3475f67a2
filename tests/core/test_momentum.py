"""The momentum key encoder: noise is for queries, and statistics of the batch are for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from contralex.lookup.clock import Clock
from contralex.lookup.slots import Encoder
from contralex.lookup.values import Step
from contralex.plugin import MomentumEncoder

STEP = Step(Clock(0, 10, 5), seed=0, batch=8)


class Noisy(Encoder):
    dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))

    def forward(self, views: Any) -> dict[int, Tensor]:
        return {view: self.net(vectors) for view, vectors in views.items()}

    def features(self, view: Tensor) -> Tensor:
        raise NotImplementedError


def test_keys_are_without_dropout_and_keep_statistics_of_the_batch() -> None:
    torch.manual_seed(0)
    online = Noisy()
    keys: Any = MomentumEncoder(online, momentum=0.5)
    side = keys.side(nn.Sequential(nn.Dropout(0.5)))
    x = {0: torch.randn(8, 5)}
    module = nn.ModuleList([online, keys])
    for _ in range(2):  # as it is made, and after an evaluation
        found = keys(online, x, {}, torch.arange(8), STEP).vectors
        linear, norm, _ = keys.encoder.net
        z = linear(x[0])
        torch.testing.assert_close(found, (z - z.mean(0)) / (z.var(0, correction=0) + norm.eps).sqrt())
        assert torch.equal(side(found), found)
        module.eval()
        before = norm.running_mean.clone()
        keys(online, x, {}, torch.arange(8), STEP)
        assert torch.equal(norm.running_mean, before)
        module.train()
    assert (online.net(x[0]) == 0).any()  # queries have theirs
