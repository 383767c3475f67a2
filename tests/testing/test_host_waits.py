"""The counter sees every way in which code asks a device for a number, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.testing.host_waits import HostWaits

VECTOR = torch.tensor([3.0, 1.0, 2.0])
INDEX = torch.tensor([2, 0])
MASK = VECTOR > 1

WAITS: dict[str, Callable[[], Any]] = {
    "item": VECTOR.sum().item,
    "bool": lambda: bool(MASK.any()),
    "int": lambda: int(INDEX[0]),
    "float": lambda: float(VECTOR.mean()),
    "tolist": VECTOR.tolist,
    "numpy": VECTOR.numpy,
    "a boolean mask": lambda: VECTOR[MASK],
    "writing at a boolean mask": lambda: VECTOR.clone().__setitem__(MASK, VECTOR[:2]),
    "nonzero": MASK.nonzero,
    "masked_select": lambda: VECTOR.masked_select(MASK),
    "unique": INDEX.unique,
    "unique_consecutive": lambda: torch.unique_consecutive(INDEX),
    "equal": lambda: torch.equal(VECTOR, VECTOR),
    "bincount": lambda: torch.bincount(INDEX),
    "repeats": lambda: VECTOR[:2].repeat_interleave(INDEX),
    "values of Python's": lambda: torch.tensor([1, 2]),
}
WAITS_NOT: dict[str, Callable[[], Any]] = {
    "arithmetic": lambda: VECTOR * 2 + 1,
    "an index": lambda: VECTOR[INDEX],
    "writing at an index": lambda: VECTOR.clone().__setitem__(INDEX, VECTOR[:2]),
    "a slice": lambda: VECTOR[1:] - 1,
    "one number at a mask": lambda: VECTOR.clone().__setitem__(MASK, 0.0),
    "where": lambda: torch.where(MASK, VECTOR, 0.0),
    "arange": lambda: torch.arange(4),
    "full": lambda: torch.full((2,), 3.0),
    "repeats of one number": lambda: VECTOR.repeat_interleave(2),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_counted_with_its_line(name: str) -> None:
    with HostWaits() as waits:
        WAITS[name]()
    assert waits.total == 1, str(waits)
    assert "test_host_waits.py:" in str(waits)


@pytest.mark.parametrize("name", WAITS_NOT)
def test_what_waits_for_nothing_is_not_counted(name: str) -> None:
    with HostWaits() as waits:
        WAITS_NOT[name]()
    assert not waits.found, str(waits)


class _AsksInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vector: Tensor) -> Tensor:
        return vector * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * float(grads[0].sum())


def test_backward_is_seen() -> None:
    vector = VECTOR.clone().requires_grad_()
    with HostWaits() as waits:
        _AsksInBackward.apply(vector).sum().backward()
    assert waits.total == 1, str(waits)


def test_step_counters_of_optimizers_stay_on_the_host() -> None:
    vector = torch.nn.Parameter(VECTOR.clone())
    optimizer = torch.optim.AdamW([vector], lr=0.1, foreach=True)
    with HostWaits() as waits:
        for _ in range(2):
            vector.square().sum().backward()
            optimizer.step()
    assert not waits.found, str(waits)


def test_copies_between_devices_are_counted_unless_they_say_that_they_do_not_wait() -> None:
    with HostWaits() as waits:
        VECTOR.to("meta", non_blocking=True)
        assert not waits.found
        VECTOR.to("meta")
        torch.empty(3, device="meta").copy_(VECTOR)
    assert waits.total == 2, str(waits)
