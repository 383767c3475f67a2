"""TiCo against an implementation of its own, after its Algorithm 1: loss, gradients and state, step after step, in
float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.values import Step
from contralex.plugin import Dictionary, Rows, Targets, value_at
from contralex_tico.loss import TiCoLoss
from tests.parity.test_densecl import images
from tests.parity.test_methods import SAMPLE, B, equal, made, step

RHO, BETA, RATE = 8.0, 0.9, 0.05


def loops(z: Tensor, key: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the new covariance, sample by sample; z and key are of unit length."""
    batch = sum((torch.outer(each, each) for each in z.detach()), torch.zeros_like(covariance)) / len(z)
    moved = BETA * covariance + (1 - BETA) * batch
    total = torch.zeros((), dtype=z.dtype)
    for one, other in zip(z, key, strict=True):
        total = total + 1 - one @ other + RHO * (one @ moved @ one)
    return total / len(z), moved


def embed(encoder: Any, x: Tensor) -> Tensor:
    return F.normalize(encoder.projector(encoder.backbone(x)), dim=1)


def test_equals_the_algorithm_step_by_step() -> None:
    model: Any = made("tico").double()
    assert not len(model.encoder.predictor)
    student, teacher = copy.deepcopy(model.encoder), copy.deepcopy(model.key_encoder.encoder)
    covariance = torch.zeros_like(model.loss.covariance)
    ours = torch.optim.SGD(model.encoder.parameters(), lr=RATE, momentum=0.9)
    theirs = torch.optim.SGD(student.parameters(), lr=RATE, momentum=0.9)
    for turn in range(5):
        views, moment = images(turn), step(turn)
        found = model(views, SAMPLE, moment)
        with torch.no_grad():
            keys = embed(teacher, views[1])
        expected, covariance = loops(embed(student, views[0]), keys, covariance)
        equal(found.loss, expected, f"the loss {turn}")
        ours.zero_grad()
        theirs.zero_grad()
        found.loss.backward()
        expected.backward()
        for (name, mine), other in zip(model.encoder.named_parameters(), student.parameters(), strict=True):
            equal(mine.grad, other.grad, f"the gradient of {name}, {turn}")
        ours.step()
        theirs.step()
        assert not torch.allclose(model.loss.covariance, covariance)  # nothing is written before the step
        model.update(found.keys, moment)
        equal(model.loss.covariance, covariance, "the covariance")
        weight = value_at(model.key_encoder.momentum, moment.clock)
        with torch.no_grad():
            for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.mul_(weight).add_(other, alpha=1 - weight)
    key = model.key_encoder.encoder
    for (name, mine), other in zip(key.named_parameters(), teacher.parameters(), strict=True):
        equal(mine, other, f"{name} of the keys")


def test_the_loss_alone_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    z, key = (F.normalize(torch.randn(B, 5, generator=generator, dtype=torch.float64), dim=1) for _ in range(2))
    loss = TiCoLoss(dim=5, weight=RHO, momentum=BETA).double()
    covariance = torch.zeros(5, 5, dtype=torch.float64)
    for turn in range(3):
        mine, other = ((z.roll(turn, dims=1) * (1 + turn)).requires_grad_() for _ in range(2))
        unit = [each / each.norm(dim=1, keepdim=True) for each in (mine, other)]
        queries = Rows.from_view(unit[0], SAMPLE, 0)
        found = loss(queries, Dictionary(), Targets(vectors=key), step())
        expected, covariance = loops(unit[1], key, covariance)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(each, x)[0] for each, x in ((found, mine), (expected, other))]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
        loss.follow(queries.detach(), queries.detach(), step())
        torch.testing.assert_close(loss.covariance, covariance, rtol=1e-12, atol=1e-12)


def test_the_covariance_is_in_the_checkpoint_and_follows_queries_not_keys() -> None:
    model: Any = made("tico")
    assert "loss.covariance" in model.state_dict()
    views = images(0)
    moment = Step(step().clock, seed=0, batch=B)
    found = model(views, SAMPLE, moment)
    queries = moment.queries["image"].select_view(0).vectors
    model.update(found.keys, moment)
    torch.testing.assert_close(model.loss.covariance, 0.1 * queries.T @ queries / B)
    assert float(model.loss.covariance.trace()) == pytest.approx(0.1, rel=1e-5)


def spread_after_training(weight: float) -> float:
    """The standard deviation of the keys' dimensions over the samples, after 120 steps on noisy coloured squares; 1/√D
    where keys lie in all directions."""
    head = "method.encoder.projector=[{width: 64, norm: batch, activation: relu}, {width: 32}]"
    model: Any = made("tico", head, "method.key_encoder.momentum=0.9", f"method.loss.weight={weight}")
    optimizer = torch.optim.SGD(model.encoder.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    squares = F.interpolate(torch.rand(B, 3, 4, 4, generator=generator, dtype=torch.float64), size=16)
    for number in range(120):
        noise = torch.randn(2, B, 3, 16, 16, generator=generator, dtype=torch.float64)
        moment = step(number)
        found = model({view: squares + 0.3 * noise[view] for view in (0, 1)}, SAMPLE, moment)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        model.update(found.keys, moment)
    return float(found.keys.vectors.std(dim=0).mean())


def test_without_the_contrast_the_keys_become_alike() -> None:
    """Agreement with a momentum key alone collapses; earlier queries hold the keys apart."""
    alone, whole = spread_after_training(0.0), spread_after_training(RHO)
    assert alone < 0.3 * whole
    assert whole > 0.5 / 32**0.5
