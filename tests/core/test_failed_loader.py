"""A loader that fails ends its workers, and says what failed once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

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
