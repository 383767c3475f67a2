"""No step makes the host wait for a GPU, whatever the method; counted on the CPU by the operations that would."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from contralex.data.loading import Batch
from contralex.lookup.host_copies import HostCopy
from contralex.testing.host_waits import HostWaits
from contralex.training.loop import TrainingLoop
from contralex.training.metrics import Metrics
from contralex.training.run import train
from tests.distributed.invariance import METHODS, small_run

COUNTED = (3, 4)  # steps in the middle of an epoch, which do not log; the first ones may read what stays known


@pytest.mark.parametrize("name", METHODS)
def test_a_step_between_logging_periods_waits_for_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, waits = TrainingLoop._step, HostWaits()
    counted = []

    def count(self: TrainingLoop, batch: Batch, seconds_before: float) -> None:
        if self.run.step not in COUNTED:
            return step(self, batch, seconds_before)
        counted.append(self.run.step)
        with waits:
            step(self, batch, seconds_before)

    monkeypatch.setattr(TrainingLoop, "_step", count)
    sets = ("train.workers=0", "train.log_every=100", f"train.max_steps={COUNTED[-1] + 3}", "eval.knn=null")
    train(small_run(name, tmp_path, sets), tmp_path / "run")
    assert counted == list(COUNTED)
    assert not waits.found, str(waits)


@pytest.mark.parametrize("name", ["simclr-v1", "moco-v2"])
def test_a_logged_line_is_read_in_one_copy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, wait, waits = Metrics.log, HostCopy.wait, HostWaits()
    copies: list[HostCopy] = []
    counted: list[int] = []

    def count(self: Metrics) -> dict[str, float] | None:
        copies.clear()
        with waits:
            line = log(self)
        counted.append(len(copies))
        return line

    def note(self: HostCopy) -> Tensor:
        copies.append(self)
        return wait(self)

    monkeypatch.setattr(Metrics, "log", count)
    monkeypatch.setattr(HostCopy, "wait", note)
    sets = ("train.workers=0", "train.log_every=2", "train.max_steps=4", "eval.knn=null")
    train(small_run(name, tmp_path, sets), tmp_path / "run")
    assert not waits.found, str(waits)
    assert counted == [2, 2]  # of the device's numbers, and of some of those, which are on the host then
