"""Processes stop at the same step, for the same reason, though none waits for the others at the end of a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from contralex.training.stopping import Stopping
from tests.processes import free_port, join, spawn

STEPS = 12


def see(stopping: Stopping, what: str, rank: int, step: int) -> None:
    """What this process sees in a step."""
    if what == "signal" and (rank, step) == (1, 3):
        stopping.read_signal = lambda: 15
    if what == "bad loss" and ((rank, step) == (1, 3) or step > 3):  # a step later every process has bad weights
        stopping.report_bad_loss(f"process {rank}, step {step}", step + 1)
    if what == "plugin" and step == 2 + rank:
        stopping.ask("plugin", f"process {rank}")
    if what == "last step" and (rank, step) == (0, STEPS - 1):
        stopping.report_failure("a hook")


def take_steps(what: str, rank: int, every: int) -> dict[str, Any]:
    """Until all have agreed to stop. ``every``: steps from one to the next at which processes wait for each other."""
    stopping = Stopping()
    step = 0
    for step in range(STEPS):
        see(stopping, what, rank, step)
        (stopping.agree if (step + 1) % every == 0 else stopping.agree_later)()
        if stopping.at_once or stopping.stop:
            break
    else:
        stopping.agree()
    return {
        "step": step,
        "signal": stopping.signal,
        "bad_loss": stopping.bad_loss,
        "failure": stopping.failure,
        "stop": stopping.stop,
    }


CASES = [(what, every) for what in ("signal", "bad loss", "plugin", "last step", "nothing") for every in (1, 4, 100)]


def worker(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    found = [take_steps(what, rank, every) for what, every in CASES]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    port = free_port()
    spawn(worker, (port, str(folder)))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{what}, {every}" for what, every in CASES])
def test_all_stop_at_one_step_for_one_reason(number: int, two: list[list[dict[str, Any]]]) -> None:
    what, every = CASES[number]
    found = two[0][number]
    assert two[1][number] == found
    assert found["signal"] == (15 if what == "signal" else 0)
    assert found["bad_loss"] == ("process 1, step 3" if what == "bad loss" else "")
    assert found["failure"] == ("a hook" if what == "last step" else "")
    assert found["stop"] == ({"by": "plugin", "reason": "process 0"} if what == "plugin" else None)
    seen = {"signal": 3, "bad loss": 3, "plugin": 2}.get(what, STEPS - 1)
    at_once = (seen + 1) % every == 0 or seen == STEPS - 1
    assert found["step"] == (seen if at_once else seen + 1)


@pytest.mark.parametrize("what", ["signal", "bad loss", "plugin", "last step", "nothing"])
def test_a_process_that_is_alone_stops_at_the_end_of_the_step(what: str) -> None:
    rank = 0 if what == "last step" else 1
    found = take_steps(what, rank, 100)
    assert found["step"] == {"signal": 3, "bad loss": 3, "plugin": 3}.get(what, STEPS - 1)
