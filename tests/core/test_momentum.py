"""The momentum key encoder: noise is for queries, and statistics of the batch are for both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
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


def averaged(twins: list[Tensor], originals: list[Tensor], momentum: float) -> list[Tensor]:
    return [momentum * twin + (1 - momentum) * original for twin, original in zip(twins, originals, strict=True)]


def clones(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(online: Noisy, keys: Any) -> None:
    """Let both sides differ, and compare an update with a naive loop."""
    for parameter in online.parameters():
        parameter.data = torch.randn_like(parameter)
    expected = averaged(clones(keys.encoder), clones(online), 0.75)
    keys.update(STEP)
    torch.testing.assert_close(clones(keys.encoder), expected)


def replace_a_parameter(online: Noisy, keys: Any) -> None:
    online.net[0].weight = nn.Parameter(torch.randn(6, 5))


def replace_a_module(online: Noisy, keys: Any) -> None:
    online.net[0], keys.encoder.net[0] = nn.Linear(5, 6), nn.Linear(5, 6).requires_grad_(False)


def add_a_module(online: Noisy, keys: Any) -> None:
    online.net.append(nn.Linear(6, 6))
    keys.encoder.net.append(nn.Linear(6, 6).requires_grad_(False))


def change_the_type(online: Noisy, keys: Any) -> None:
    nn.ModuleList([online, keys]).double()


def move_the_storage(online: Noisy, keys: Any) -> None:
    for parameter in (*online.parameters(), *keys.encoder.parameters()):
        parameter.data = parameter.data.clone()


@pytest.mark.parametrize(
    "change", [replace_a_parameter, replace_a_module, add_a_module, change_the_type, move_the_storage]
)
def test_the_average_follows_what_is_replaced(change: Callable[[Noisy, Any], None]) -> None:
    torch.manual_seed(0)
    online = Noisy()
    keys: Any = MomentumEncoder(online, momentum=0.75)
    for _ in range(2):
        moved(online, keys)
    change(online, keys)
    for _ in range(2):
        moved(online, keys)


def test_parameters_of_other_types_are_averaged_beside_the_rest() -> None:
    torch.manual_seed(0)
    online: Any = Noisy()
    keys: Any = MomentumEncoder(online, momentum=0.75)
    counts = nn.Parameter(torch.arange(3), requires_grad=False)
    online.register_parameter("counts", counts)
    keys.encoder.register_parameter("counts", nn.Parameter(torch.zeros(3, dtype=torch.long), requires_grad=False))
    keys.encoder.net[0].to(torch.float64)
    expected = averaged([each.clone() for each in keys.encoder.net.parameters()], clones(online.net), 0.75)
    online.net[0].weight.data.add_(1)
    expected[0] = expected[0] + 0.25
    keys.update(STEP)
    torch.testing.assert_close(clones(keys.encoder.net), expected)
    assert keys.encoder.counts.tolist() == [0, 1, 2]


def test_a_copy_of_both_sides_follows_its_own_original() -> None:
    torch.manual_seed(0)
    online = Noisy()
    keys: Any = MomentumEncoder(online, momentum=0.75)
    moved(online, keys)
    sides: Any = copy.deepcopy(nn.ModuleList([online, keys]))
    before = clones(keys.encoder)
    moved(*sides)
    torch.testing.assert_close(clones(keys.encoder), before)
