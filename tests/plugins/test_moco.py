"""What MoCo's slow key encoder is for: with momentum 0 the look-up is never learnt (section 4.1 of the paper)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.clock import Clock
from contralex.lookup.values import Step
from contralex.recipes.layers import resolve
from contralex.training import build

SAMPLES, B, QUEUE, STEPS = 64, 8, 48, 150
SMALL = (
    "method.encoder.backbone={kind: conv, widths: [16, 32, 32], strides: [2, 2, 2]}",
    "method.encoder.projector=[{width: 16}]",
    "method.key_encoder.shuffle_bn=false",
    f"method.negatives.size={QUEUE}",
    f"train.batch_size={B}",
    "train.precision=fp32",
)


def digits() -> Tensor:
    """(SAMPLES, 3, 16, 16) real handwritten digits."""
    datasets = pytest.importorskip("sklearn.datasets")
    small = torch.as_tensor(datasets.load_digits().images[:SAMPLES]).float().unsqueeze(1) / 16
    return F.interpolate(small, size=(16, 16)).expand(-1, 3, -1, -1)


def final_loss(momentum: float) -> float:
    """The mean loss of the last twenty steps of MoCo v1, of shifted digits with noise."""
    spec = resolve("moco-v1", preset="digits", sets=[*SMALL, f"method.key_encoder.momentum={momentum}"]).run
    model = build.look_up(spec, SAMPLES).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.06, momentum=0.9)
    generator, images = torch.Generator().manual_seed(0), digits()

    def view(sample: Tensor) -> Tensor:
        shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
        moved = torch.roll(images[sample], shift, (2, 3))
        return moved + 0.1 * torch.randn(moved.shape, generator=generator)

    losses = []
    for number in range(STEPS):
        if number % (SAMPLES // B) == 0:
            order = torch.randperm(SAMPLES, generator=generator).split(B)
        sample = order[number % (SAMPLES // B)]
        moment = Step(Clock(number, STEPS, SAMPLES // B), seed=0, batch=B)
        found = model({0: view(sample), 1: view(sample)}, sample, moment)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        model.update(found.keys, moment)
        losses.append(float(found.loss.detach()))
    return sum(losses[-20:]) / 20


def test_without_momentum_the_look_up_is_not_learnt() -> None:
    chance = math.log(1 + QUEUE)
    assert final_loss(0.0) > 0.95 * chance
    assert final_loss(0.97) < 0.85 * chance
