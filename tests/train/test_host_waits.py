"""No step makes the host wait for a GPU, whatever the method, and a logged line makes it wait once; counted on the CPU
by the operations that would."""

from __future__ import annotations

from pathlib import Path

import pytest

from contralex.data.loading import Batch
from contralex.testing.host_waits import HostWaits
from contralex.training.loop import TrainingLoop
from contralex.training.run import train
from contralex_cpc.sequences import write_tiny
from tests.distributed.invariance import METHODS, small_run

COUNTED = (3, 4)  # steps in the middle of an epoch, which do not log; the first ones may read what stays known
LOGGED = COUNTED[-1] + 1
MOST_COPIES = 2  # a step, beside its batch


@pytest.mark.parametrize("name", METHODS)
def test_a_step_waits_for_nothing_and_a_logged_line_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, waits = TrainingLoop._step, HostWaits()
    counted = []

    def count(self: TrainingLoop, batch: Batch, seconds_before: float) -> None:
        if self.run.step not in (*COUNTED, LOGGED):
            return step(self, batch, seconds_before)
        counted.append(self.run.step)
        if self.run.step == LOGGED:
            assert not waits.found, str(waits)
        with waits:
            step(self, batch, seconds_before)

    if name == "cpc-audio":
        write_tiny(str(tmp_path / "sequences"), samples=160)  # else an epoch would end among the steps, which waits
    monkeypatch.setattr(TrainingLoop, "_step", count)
    sets = ("train.workers=0", f"train.log_every={LOGGED + 1}", f"train.max_steps={LOGGED + 2}", "eval.knn=null")
    train(small_run(name, tmp_path, sets), tmp_path / "run")
    assert counted == [*COUNTED, LOGGED]
    assert waits.total == 1, str(waits)
    assert sum(waits.copies.values()) <= MOST_COPIES * len(counted), waits.copies
