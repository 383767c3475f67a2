"""The check on two processes. Starting them takes seconds, so all trials of a plugin share one start."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from contralex.testing.check_errors import Failed
from contralex.testing.process_worker import plain_views, result, steps
from contralex.testing.step_checks import check_close, check_each, check_equal
from contralex.testing.trials import Trial

PATIENCE = 60.0  # seconds that a process waits for the other in one collective
_START = 120.0  # seconds for both to begin, on a busy machine
_SHARED = "together"
SAID = "said"  # the file with what both print

# The child finds what this process finds, an editable installation or a test's folder as well. Two plain processes,
# and none of multiprocessing's: those import the caller's script again, which without its guard never ends.
_CODE = (
    "import sys; sys.path[:] = {path!r}; import runpy; "
    "runpy.run_module('contralex.testing.process_worker', {{}}, '__main__')"
)


class Rank(Protocol):
    """A process that was begun."""

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int | None: ...


# For each process what came of a trial: the tensors, or a sentence where it did not come to an end.
_Ranks = tuple[Any, Any]
_Parts = dict[str, dict[str, Tensor]]


def share_processes(trials: Sequence[Trial]) -> None:
    """Let trials share one start of the processes: the first that is checked starts them for all."""
    results: dict[Trial, _Ranks] = {}
    for trial in trials:
        trial.cache[_SHARED] = (list(trials), results)


def two_equal_one(trial: Trial) -> None:
    """Two gloo processes with half of the batch each give the loss and the gradients of one process, and its state
    after two steps. A gather without gradient, a label without the rank's offset, or a statistic of one process fails.
    """
    trials, results = trial.cache.get(_SHARED, ([trial], {}))
    one = steps(trial)
    if trial not in results:
        results.update(_on_two([other for other in trials if other.can_begin()]))
    ranks = results[trial]
    sentences = {rank: found for rank, found in enumerate(ranks) if isinstance(found, str)}
    if sentences:
        raise Failed(_first(sentences))
    check_each(_equal, list(zip(one, *ranks, strict=True)))


def _equal(found: tuple[_Parts, _Parts, _Parts]) -> None:
    one, *ranks = found
    for part in one:
        # What a step has amplified may be further apart than what it computes.
        rounding = 1e-4 if part in ("first", "grad") else 1e-3
        for rank, other in enumerate(ranks):
            check_close(one[part], other[part], f"one process and process {rank} of two differ", rounding)
    check_equal(ranks[0]["state"], ranks[1]["state"], "the two processes end with another {} each")


def _first(sentences: dict[int, str]) -> str:
    """The process that raised, and not the one whose collective then lost its partner."""
    alone = {rank: text for rank, text in sentences.items() if not any(word in text for word in _LOST)} or sentences
    rank = min(alone)
    return alone[rank] if alone[rank].startswith("the ") else f"process {rank} of two {alone[rank]}"


_LOST = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "timed out", "Socket Timeout")


def _on_two(trials: Sequence[Trial]) -> dict[Trial, _Ranks]:
    """Where a trial brings the processes down or to a standstill, it alone is blamed: the rest get new ones."""
    found: dict[Trial, _Ranks] = {}
    while waiting := [trial for trial in trials if trial not in found]:
        found.update(_start(waiting))
    return found


def _start(trials: Sequence[Trial]) -> dict[Trial, _Ranks]:
    with tempfile.TemporaryDirectory() as name, open(Path(name) / SAID, "w+", encoding="utf-8") as said:
        folder = Path(name)
        given = [(trial.label, json.dumps(trial.data), plain_views(trial.views)) for trial in trials]
        torch.save(given, folder / "trials.pt")
        children = [begin_rank(folder, rank, PATIENCE) for rank in range(2)]
        try:
            ended = _wait(children, folder, len(trials))
        finally:
            for child in children:
                child.kill()
                child.wait()
        found: dict[Trial, _Ranks] = {}
        for number, trial in enumerate(trials):
            files = [result(folder, rank, number) for rank in range(2)]
            if not all(file.exists() for file in files):
                said.seek(0)
                reason = _why(ended, [line.strip() for line in said if line.strip()])
                found[trial] = (reason, reason)
                break
            first, second = (torch.load(file, weights_only=True) for file in files)
            found[trial] = (first, second)
        return found


def begin_rank(folder: Path, rank: int, patience: float) -> Rank:
    command = [sys.executable, "-c", _CODE.format(path=sys.path), str(folder), str(rank), str(patience)]
    with open(folder / SAID, "a", encoding="utf-8") as said:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def _why(ended: str, lines: list[str]) -> str:
    last = lines[-1] if lines else ""
    if not ended or "timeout" in last.lower():
        return (
            f"the two processes came to a standstill for {PATIENCE:.0f} s and more; does one of them call a collective "
            "(a gather or a reduction) that the other skips?"
        )
    return f"{ended} ({last})" if last else ended


def _wait(children: Sequence[Rank], folder: Path, trials: int) -> str:
    """Until both have ended, or one has with an error, or nothing comes of them for too long, which is ``""``."""
    there, deadline = 0, time.monotonic() + _START
    while any(child.poll() is None for child in children):
        if any(child.poll() for child in children):
            time.sleep(0.5)  # the other may just be leaving its last result
            return "the two processes broke down"
        now = sum(result(folder, rank, number).exists() for rank in range(2) for number in range(trials))
        if now > there:
            there, deadline = now, time.monotonic() + 2 * PATIENCE
        if time.monotonic() > deadline:
            return ""
        time.sleep(0.05)
    return "the two processes broke down"
