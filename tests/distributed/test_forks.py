"""The processes that tests ask for are forked: each is one of its own, and none outlives its test."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from contralex.testing import process_checks
from tests.kit_forks import ForkedRank
from tests.processes import contralex, spawn

left: list[int] = []


def _leave_a_mark(rank: int, folder: Path) -> None:
    left.append(rank)
    (folder / f"{rank}").write_text(f"{left} {os.environ['OF_THE_CALLER']} {torch.distributed.is_initialized()}")


def test_each_has_its_own_memory_and_the_callers_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("one", "two"):
        monkeypatch.setenv("OF_THE_CALLER", value)
        spawn(_leave_a_mark, (tmp_path,))
        assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == [
            f"[{rank}] {value} False" for rank in (0, 1)
        ]
    assert left == []


def _fail_on_one(rank: int, folder: Path) -> None:
    (folder / f"{rank}").write_text(str(os.getpid()))
    if rank:
        raise ValueError("only here")
    time.sleep(600)


def test_an_error_is_raised_and_ends_the_other(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match="only here"):
        spawn(_fail_on_one, (tmp_path,))
    assert not any(_is_there(file) for file in tmp_path.iterdir())


def _hang_on_one(rank: int, folder: Path) -> None:
    (folder / f"{rank}").write_text(str(os.getpid()))
    time.sleep(600 * rank)


def test_a_process_that_hangs_is_killed_and_named(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"_hang_on_one has not ended after 5 s on ranks \[1\]"):
        spawn(_hang_on_one, (tmp_path,), limit=5)
    assert not any(_is_there(file) for file in tmp_path.iterdir())


def _is_there(file: Path) -> bool:
    return Path(f"/proc/{file.read_text()}").exists()


def test_a_rank_of_the_kits_leaves_what_it_says_and_can_be_killed(tmp_path: Path) -> None:
    (tmp_path / process_checks.SAID).touch()
    without_trials = ForkedRank(tmp_path, 0, 5.0)
    assert without_trials.wait() == 1
    assert "trials.pt" in (tmp_path / process_checks.SAID).read_text("utf-8").splitlines()[-1]
    torch.save([("alone", "{}", {})], tmp_path / "trials.pt")
    alone = ForkedRank(tmp_path, 0, 600.0)
    assert alone.poll() is None
    alone.kill()
    assert alone.wait() == -9


def test_a_command_is_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("schema: 1\nextends: moco-v2\n", "utf-8")
    done = contralex("show", "mine.yaml")
    assert (done.returncode, done.stderr) == (0, "") and "momentum" in done.stdout
    done = contralex("show", "nothing")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("Error: ")
    with pytest.raises(subprocess.TimeoutExpired, match="contralex"):
        contralex("train", "mine.yaml", "--preset=digits", limit=0.1)
