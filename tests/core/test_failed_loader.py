"""A loader that fails ends its workers, and says what failed once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.data.loading import load


class Workers:
    """As torch's, one of which is dead: whoever ends them hears of it by a signal."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGCHLD)


class Fails:
    def __len__(self) -> int:
        return 1

    def __getitems__(self, wanted: Sequence[Any]) -> list[Any]:
        workers = Workers()
        raise ConnectionResetError(f"{len(wanted)} items, {workers!r:.0}")


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    def word_of_a_dead_worker(*_: object) -> None:
        raise RuntimeError("DataLoader worker is killed")

    heard: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda fault: heard.append(str(fault.exc_value)))
    before = signal.signal(signal.SIGCHLD, word_of_a_dead_worker)
    yield heard
    assert signal.signal(signal.SIGCHLD, before) is word_of_a_dead_worker  # it is needed for the next loader


def test_a_dead_worker_is_heard_of_once(unraisable: list[str]) -> None:
    with pytest.raises(ConnectionResetError):
        next(load(Fails(), list))
    assert unraisable == []


class Large:
    """Batches that do not fit into a pipe, so that a worker stands in the middle of sending one."""

    def __len__(self) -> int:
        return 100

    def __getitems__(self, wanted: Sequence[int]) -> list[Tensor]:
        return [torch.full((300_000,), index, dtype=torch.uint8) for index in wanted]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_that_dies_while_it_sends_is_reported() -> None:
    batches: Any = load(Large(), list, batch_size=1, num_workers=1)
    assert int(next(batches)[0][-1]) == 0
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        kill_worker_and_wait()
    batches.close()


def kill_worker_and_wait() -> None:
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.01)  # the signal of its death interrupts it
