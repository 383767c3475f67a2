"""SimCLR equals its official code over several steps: NT-Xent, its gradient, and TensorFlow's LARS.

The oracle is written here in float64 from the laws of google-research/simclr, objective.py and lars_optimizer.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import Optimizer
from contralex.training import optimizers
from tests.parity.test_methods import SAMPLE, B, embed, images, made, normal, same, step

STEPS = 4


def nt_xent(embedded: Tensor, temperature: float) -> Tensor:
    """Each half looks for the other among all rows but its own: a mean for each half, and the two added."""
    z = normal(embedded)
    scores = z @ z.T / temperature
    scores = scores.masked_fill(torch.eye(2 * B, dtype=torch.bool), float("-inf"))
    own = torch.arange(B)
    return F.cross_entropy(scores[:B], own + B) + F.cross_entropy(scores[B:], own)


def pairs(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.rand(2 * B, 3, 16, 16, generator=generator, dtype=torch.float64)


def published() -> Optimizer:
    return resolve("simclr-v1", sets=["train.optimizer.weight_decay=0.01"]).run.train.optimizer


def ours(model: LookUp) -> None:
    spec, model = published(), model.double()
    optimizer = optimizers.build(spec, model)
    for number in range(STEPS):
        x = pairs(number)
        model.zero_grad()
        model({0: x[:B], 1: x[B:]}, SAMPLE, step()).loss.backward()
        optimizers.set_rates(optimizer, spec, clock(number), batch=4096)
        optimizer.step()


def official(encoder: nn.Module) -> None:
    """``LARSOptimizer`` with its classic momentum: rate and trust ratio are inside it, and biases and BatchNorm have
    neither the ratio nor decay. The rate is 4.8 s/W in the warm-up."""
    encoder.double()
    velocity = {name: torch.zeros_like(p) for name, p in encoder.named_parameters()}
    for number in range(STEPS):
        encoder.zero_grad()
        nt_xent(embed(encoder, pairs(number)), 0.1).backward()
        rate = 4.8 * (number + 3) / 100
        for name, p in encoder.named_parameters():
            g: Any = p.grad
            if p.dim() > 1:
                g = g + 0.01 * p.detach()
                g = 0.001 * p.detach().norm() / g.norm() * g
            velocity[name] = 0.9 * velocity[name] + rate * g
            p.data -= velocity[name]


def clock(number: int) -> Clock:
    return Clock(number + 3, total=10_000, per_epoch=10)  # 10 epochs of 10 steps warm up


def test_every_parameter_moves_as_officially() -> None:
    model = made("simclr-v1", "method.loss.temperature=0.1")
    before = {name: p.detach().double().clone() for name, p in model.encoder.named_parameters()}
    theirs = copy.deepcopy(model.encoder)
    ours(model)
    official(theirs)
    expected = dict(theirs.named_parameters())
    assert any(p.dim() == 1 for p in expected.values())
    for name, p in model.encoder.named_parameters():
        moved = expected[name].detach() - before[name]
        assert moved.abs().max() > 1e-6, name
        # float32 in the look-up alone
        torch.testing.assert_close(p.detach() - before[name], moved, rtol=1e-3, atol=1e-5 * float(moved.abs().max()))


@pytest.mark.parametrize("recipe", ["simclr-v1", "simclr-v2"])
def test_loss_and_gradient(recipe: str) -> None:
    model, views = made(recipe, "method.loss.temperature=0.2"), images(2)
    same(model, views, lambda: nt_xent(embed(model.encoder, torch.cat([views[0], views[1]])), 0.2))


def test_the_loss_is_twice_pytorch_metric_learnings() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    model, views = made("simclr-v1", "method.loss.temperature=0.2"), images(2)

    def oracle() -> Tensor:
        z = embed(model.encoder, torch.cat([views[0], views[1]]))
        mean: Tensor = losses.NTXentLoss(temperature=0.2)(z, torch.arange(B).repeat(2))
        return 2 * mean

    same(model, views, oracle)
