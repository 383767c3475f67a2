"""A step calls torch itself where Accelerate adds nothing, and Accelerate where it does."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from accelerate import DistributedType
from torch import Tensor, nn

from contralex.training.run_state import PreparedMethod


def wrapped(**differs: Any) -> tuple[PreparedMethod, Any, Any]:
    accelerator = Mock(scaler=None, gradient_accumulation_steps=1, distributed_type=DistributedType.NO)
    accelerator.configure_mock(**differs)
    accelerator.prepare.side_effect = lambda method, optimizer: (method, Mock(wraps=optimizer))
    method: Any = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    return PreparedMethod.wrap(method, optimizer, accelerator), optimizer, accelerator


@pytest.mark.parametrize("kind", [DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU])
def test_accelerate_adds_nothing(kind: DistributedType) -> None:
    prepared, optimizer, _ = wrapped(distributed_type=kind)
    assert prepared.wrapped_optimizer is optimizer
    assert prepared.backward == Tensor.backward


@pytest.mark.parametrize(
    "differs",
    [{"scaler": object()}, {"gradient_accumulation_steps": 2}, {"distributed_type": DistributedType.DEEPSPEED}],
)
def test_accelerate_adds_something(differs: dict[str, Any]) -> None:
    prepared, optimizer, accelerator = wrapped(**differs)
    assert prepared.wrapped_optimizer is not optimizer
    assert prepared.backward == accelerator.backward
