"""Fused optimisers take the steps of torch's plain ones, from states that either has left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from contralex.recipes import run_spec as specs
from contralex.training import optimizers

KINDS: list[specs.Optimizer] = [
    specs.SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
    specs.SGD(lr=0.1, momentum=0.9, nesterov=True),
    specs.SGD(lr=0.1, momentum=0.0, weight_decay=0.01),
    specs.Adam(lr=0.01, weight_decay=0.1),
    specs.AdamW(lr=0.01, weight_decay=0.1),
    *(specs.LARS(lr=0.1, weight_decay=0.01, trust=0.02, variant=variant) for variant in ("lars", "tf", "larc")),
]
NAMES = [f"{spec.kind}-{getattr(spec, 'variant', getattr(spec, 'momentum', ''))}" for spec in KINDS]


class Small(nn.Module):
    """``late`` has its first gradient in a later step than the rest, with which it shares a group."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.late = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, late: bool) -> torch.Tensor:
        features = self.conv(x).mean((2, 3))
        answer: torch.Tensor = self.late(features) if late else features
        return answer


def small(channels_last: bool) -> Small:
    torch.manual_seed(0)
    model = Small()
    return model.to(memory_format=torch.channels_last) if channels_last else model


def take_steps(model: Small, optimizer: Any, spec: specs.Optimizer, numbers: range) -> None:
    for number in numbers:
        x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(number))
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = spec.lr, spec.weight_decay
        optimizer.zero_grad()
        model(x, late=number > 1).pow(2).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("spec", KINDS, ids=NAMES)
def test_a_fused_optimiser_equals_the_plain_one(spec: Any, channels_last: bool) -> None:
    fused, plain = small(channels_last), small(False)
    take_steps(fused, optimizers.build(spec, fused, fused=True), spec, range(5))
    take_steps(plain, optimizers.build(spec, plain), spec, range(5))
    torch.testing.assert_close(fused.state_dict(), plain.state_dict())


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("spec", KINDS, ids=NAMES)
def test_a_state_goes_from_either_to_the_other(spec: Any, before: bool) -> None:
    """As a checkpoint keeps it, contiguous, for parameters that are channels-last; the late ones have none yet."""
    model, whole = small(True), small(False)
    first = optimizers.build(spec, model, fused=before)
    take_steps(model, first, spec, range(2))
    stored = copy.deepcopy(first.state_dict()["state"])
    stored = {
        index: {
            name: value.contiguous() if isinstance(value, torch.Tensor) else value for name, value in entries.items()
        }
        for index, entries in stored.items()
    }
    second = optimizers.build(spec, model, fused=not before)
    second.load_state_dict({"state": stored, "param_groups": second.state_dict()["param_groups"]})
    take_steps(model, second, spec, range(2, 5))
    take_steps(whole, optimizers.build(spec, whole), spec, range(5))
    torch.testing.assert_close(model.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    ("device", "precision", "fuses"),
    [("cpu", "fp32", True), ("cuda", "bf16", True), ("cuda", "fp16", False), ("mps", "fp32", False)],
)
def test_where_there_are_fused_kernels(device: str, precision: str, fuses: bool) -> None:
    assert optimizers.can_fuse(small(False), device, precision) is fuses


def test_parameters_that_are_no_real_numbers_are_not_fused() -> None:
    model = nn.Linear(2, 2, dtype=torch.complex64)
    assert not optimizers.can_fuse(model, "cpu", "fp32")
    assert optimizers.can_fuse(model.requires_grad_(False), "cpu", "fp32")
