"""Batches are copied ahead of their steps, in their order, and none is lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contralex.data.loading import Batch
from contralex.training import devices, prefetch


def make_batches(count: int) -> list[Batch]:
    return [
        {"index": torch.tensor([number]), "views": {0: torch.full((1, 3), float(number))}, "unreadable": {}}
        for number in range(count)
    ]


class Recorded:
    """Copies that keep the order of what was asked of them."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def start(self, batch: Batch) -> Batch:
        self.log.append(f"start {int(batch['index'])}")
        return batch

    def finish(self, started: Batch) -> Batch:
        self.log.append(f"finish {int(started['index'])}")
        return started


def test_the_next_copy_begins_before_a_step_does() -> None:
    copies, made = Recorded(), make_batches(3)
    for number, batch in enumerate(prefetch.copy_ahead(made, copies)):
        assert batch is made[number]
        copies.log.append(f"step {number}")
    assert copies.log == [
        "start 0", "start 1", "finish 0", "step 0", "start 2", "finish 1", "step 1", "finish 2", "step 2"
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_runs_get_all_their_batches(count: int) -> None:
    assert len(list(prefetch.copy_ahead(make_batches(count), Recorded()))) == count


def test_no_more_than_one_batch_is_fetched_ahead() -> None:
    fetched = []

    def fetch() -> Any:
        for number, batch in enumerate(make_batches(9)):
            fetched.append(number)
            yield batch

    next(iter(prefetch.copy_ahead(fetch(), Recorded())))
    assert fetched == [0, 1]


def test_a_mistake_in_a_later_batch_comes_before_its_step() -> None:
    def fetch() -> Any:
        yield from make_batches(2)
        raise OSError("the disk is gone")

    stream = prefetch.copy_ahead(fetch(), Recorded())
    assert int(next(stream)["index"]) == 0
    with pytest.raises(OSError, match="disk is gone"):
        next(stream)


def test_on_the_cpu_batches_stay_as_they_are() -> None:
    made = make_batches(3)
    assert all(one is other for one, other in zip(prefetch.to_device(made, torch.device("cpu")), made, strict=True))


def double(batch: Batch) -> Batch:
    return {**batch, "views": {view: 2 * inputs for view, inputs in batch["views"].items()}}


@pytest.mark.parametrize("device", [
    "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA"))
])  # fmt: skip
def test_batches_are_finished_where_they_are_read(device: str) -> None:
    made = make_batches(4)
    for batch, expected in zip(prefetch.to_device(made, torch.device(device), double), made, strict=True):
        assert batch["views"][0].device.type == device
        assert torch.equal(batch["views"][0].cpu(), 2 * expected["views"][0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")
def test_on_a_gpu_views_arrive_and_indices_stay() -> None:
    made = make_batches(5)
    for batch, expected in zip(prefetch.to_device(made, torch.device("cuda")), made, strict=True):
        assert batch["views"][0].is_cuda and not batch["index"].is_cuda
        assert torch.equal(batch["views"][0].cpu(), expected["views"][0])


def test_convolutions_are_tuned_for_a_run_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def tunes() -> bool:
        return torch.backends.cudnn.benchmark

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    found = []
    with devices.close_process_group():
        for device in ("cpu", "cuda"):
            devices.tune_convolutions(torch.device(device))
            found.append(tunes())
    assert [*found, tunes()] == [False, True, False]
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    devices.tune_convolutions(torch.device("cuda"))
    assert not tunes()
