"""How workers begin and end: with a loader that fails, that is given up, or that is held until the process ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.data.loading import load
from contralex.data.workers import WorkerDied, explain_death


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


DIED = r"^A data worker died \(DataLoader worker \(pid \d+\) is killed by signal: Killed.*\), most often because memory"


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
    with pytest.raises(WorkerDied, match=DIED):
        kill_worker_and_wait()
    batches.close()


class Kills(Large):
    """The worker that makes the last batch dies of it."""

    def __getitems__(self, wanted: Sequence[int]) -> list[Tensor]:
        if wanted == [99]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitems__(wanted)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_each_of_several_loaders_reports_a_worker_that_dies_while_a_batch_is_waited_for() -> None:
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(WorkerDied, match=DIED):
            list(load(Kills(), list, batch_size=1, num_workers=2))
        assert time.monotonic() - began < 4.5  # torch looks by itself after five seconds
    assert multiprocessing.active_children() == []


class Raises(Large):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitems__(self, wanted: Sequence[int]) -> list[Tensor]:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("a plugin's own"), ConnectionResetError("of a network")])
def test_an_error_that_a_worker_meets_is_no_dead_worker(error: Exception) -> None:
    with pytest.raises(type(error), match=r"Caught .* in DataLoader worker process 0"):
        list(load(Raises(error), list, batch_size=1, num_workers=1))


@pytest.mark.parametrize(
    "error", [EOFError(), ConnectionResetError("reset"), RuntimeError("DataLoader worker (pid(s) 7) exited")]
)
def test_a_worker_may_die_in_many_ways(error: Exception) -> None:
    assert str(explain_death(error)).startswith("A data worker died (") and "()" not in str(explain_death(error))


def kill_worker_and_wait() -> None:
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.01)  # the signal of its death interrupts it


class Unpicklable:
    """Items say how a worker takes signals."""

    def __init__(self) -> None:
        self.ask: Callable[[], list[bool]] = lambda: [
            signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)
        ]

    def __len__(self) -> int:
        return 1

    def __getitems__(self, wanted: Sequence[int]) -> list[list[bool]]:
        return [self.ask() for _ in wanted]


@pytest.fixture
def python_spawns() -> Iterator[None]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")
@pytest.mark.usefixtures("python_spawns")
def test_workers_of_every_loader_are_forked_whatever_python_does_and_leave_signals_alone() -> None:
    assert list(load(Unpicklable(), list, batch_size=1, num_workers=1)) == [[[True, True]]]


HELD = """
import signal, sys, time
import torch
from contralex.data.loading import load

class Slow:
    def __len__(self):
        return 100
    def __getitems__(self, wanted):
        time.sleep(3 * ("interrupted" in sys.argv) * (wanted[0] > 0))
        return [torch.zeros(2) for _ in wanted]

def interrupt(*_):
    raise KeyboardInterrupt

def consume():
    held = load(Slow(), list, batch_size=1, num_workers=2)
    next(held)
    if "interrupted" in sys.argv:
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        next(held)
    raise ValueError("a mistake of the caller")

consume()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
@pytest.mark.parametrize(("how", "error"), [("stopped", "ValueError"), ("interrupted", "KeyboardInterrupt")])
def test_a_process_ends_whose_last_error_still_holds_a_loader(how: str, error: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", HELD, how], stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode != 0 and said.splitlines()[-1].startswith(error)
