"""The counter sees every way in which code asks a device for a number, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.host_copies import HostCopy, list_on_host, read_on_host, to_device
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
    "cpu": VECTOR.cpu,
    "a copy that has not arrived": lambda: HostCopy(VECTOR).wait(),
    "the numbers of one": lambda: HostCopy(VECTOR).read(),
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
    "a copy that has begun": lambda: HostCopy(VECTOR).has_arrived,
    "a copy to the device": lambda: to_device(VECTOR, VECTOR.device),
    "a number of the host's own": lambda: read_on_host(VECTOR[0]),
    "numbers of the host's own": lambda: list_on_host(VECTOR),
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


def test_a_copy_has_arrived_with_what_was_sent_after_it() -> None:
    with HostWaits() as waits:
        first, second, third = (HostCopy(VECTOR + number) for number in range(3))
        assert not first.has_arrived
        assert second.read() == [4.0, 2.0, 3.0]
        assert (first.has_arrived, second.has_arrived, third.has_arrived) == (True, True, False)
        assert first.read() == [3.0, 1.0, 2.0]
        assert waits.total == 1, str(waits)
        third.wait()
    assert waits.total == 2, str(waits)
    assert "test_host_waits.py:" in str(waits)


def test_outside_copies_of_the_cpu_are_there_at_once() -> None:
    with HostWaits() as waits:
        copy = HostCopy(VECTOR)
    assert copy.has_arrived and HostCopy(VECTOR).has_arrived
    copy.read()
    assert not waits.found, str(waits)


def test_copies_to_the_device_are_counted_with_their_line() -> None:
    with HostWaits() as waits:
        to_device(VECTOR, VECTOR.device)
    assert list(waits.copies.values()) == [1]
    assert all("test_host_waits.py:" in line for line in waits.copies)
