"""The kit's two processes, forked as :mod:`tests.processes` forks others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from contralex.testing import process_checks, process_worker
from tests.processes import SERVER, set_environment


@pytest.fixture(scope="module", autouse=True)
def kit_forks() -> Iterator[None]:
    """In the module that imports this, the kit forks its two processes instead of starting two Pythons."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(process_checks, "begin_rank", ForkedRank)
        yield


class ForkedRank:
    """One of the two processes of the kit's ``two_equal_one``, with what the kit asks of a ``subprocess.Popen``."""

    def __init__(self, folder: Path, rank: int, patience: float) -> None:
        target = (dict(os.environ), folder, rank, patience)
        self._process: BaseProcess = SERVER.Process(target=_be_a_rank, args=target, daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode


def _be_a_rank(environment: dict[str, str], folder: Path, rank: int, patience: float) -> None:
    set_environment(environment)
    said = os.open(folder / process_checks.SAID, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    process_worker.main(folder, rank, patience)
    sys.stdout.flush()
