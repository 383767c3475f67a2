"""What may befall a run: a loss that is no number, a process that dies, a worker that dies, a second signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from contralex.training import failures, launch
from tests.train.tiny import TINY

# A loss that is not a number at one step, on the last process alone.
BAD = """
from typing import Literal
from contralex.plugin import InfoNCE, Spec, hookimpl
from contralex.lookup.distributed import rank, world

class Part(InfoNCE):
    def forward(self, queries, dictionary, targets, step):
        loss = super().forward(queries, dictionary, targets, step)
        return loss * float("nan") if step.clock.step == 7 and rank() == world() - 1 else loss

class Bad(Spec):
    kind: Literal["bad"] = "bad"
    builds = ":Part"
    temperature: float = 0.2
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}

@hookimpl
def contralex_losses():
    return [Bad]
"""


@pytest.fixture
def start(images: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def begin(recipe: object, *words: str) -> subprocess.Popen[str]:
        options = ["--preset=digits", f"--out={tmp_path / 'run'}", f"--data={images}"]
        command = [sys.executable, "-m", "contralex", "train", str(recipe), *options]
        command += [*(f"--set={text}" for text in TINY), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad.py").write_text(BAD)
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("schema: 1\nextends: simclr-v1\ncode: bad.py\nmethod: {loss: {kind: bad}}\n")
    return recipe


def children(process: subprocess.Popen[str]) -> list[int]:
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not file.exists():
        pytest.skip("/proc does not name a process's children here")
    return [int(child) for child in file.read_text().split()]


def after_its_first_line(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_that_is_no_number_stops_the_run(
    processes: int, start: Callable[..., Any], bad: Path, tmp_path: Path
) -> None:
    process = start(bad, "--allow-code", f"--processes={processes}", "--set=train.checkpoint.every=1")
    _, said = process.communicate(timeout=240)
    assert process.returncode == 1, said
    whose = " on process 1" if processes == 2 else ""
    assert said.count(f"Error: the loss{whose} is nan at step 8, of the samples ") == 1, said
    assert f"Checkpoints in {tmp_path / 'run'}: step-5, from before, is whole." in said
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")] == ["step-5"]


@pytest.mark.parametrize("processes", [1, 2])
def test_such_a_step_is_left_out_by_choice_and_counted(
    processes: int, start: Callable[..., Any], bad: Path, tmp_path: Path
) -> None:
    process = start(bad, "--allow-code", f"--processes={processes}", "--set=train.on_bad_loss=skip")
    said, wrong = process.communicate(timeout=240)
    assert process.returncode == 0, wrong
    assert "1 step left out" in said
    assert json.loads((tmp_path / "run" / "results.json").read_text())["skipped_steps"] == 1
    state = load_file(tmp_path / "run" / "checkpoints" / "step-10" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point())


def test_where_one_process_dies_the_others_stop_and_say_which(start: Callable[..., Any], tmp_path: Path) -> None:
    process = start("simclr-v1", "--processes=2", "--set=train.epochs=5000")
    after_its_first_line(tmp_path / "run")
    os.kill(children(process)[1], signal.SIGKILL)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == 128 + signal.SIGKILL
    assert "Process 1 of 2 was killed by SIGKILL" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (["exit 1", "kill -KILL $$"], 128 + signal.SIGKILL, "Process 1 of 2 was killed by SIGKILL"),
        (["exit 1", "kill -ABRT $$"], 1, ""),  # an abort may follow from the loss of the other
        (["exit 1", "exit 3"], 1, ""),
        (["exit 0", "exit 0"], 0, ""),
    ],
)
def test_the_one_that_was_killed_is_named_though_all_have_ended(
    ends: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    children = [subprocess.Popen(["sh", "-c", end]) for end in ends]
    for child in children:
        child.wait()
    assert launch.wait(children) == code
    assert said in capsys.readouterr().err


def test_a_worker_that_dies_is_a_sentence(start: Callable[..., Any], tmp_path: Path) -> None:
    process = start("simclr-v1", "--set=train.epochs=5000", "--set=train.workers=1")
    after_its_first_line(tmp_path / "run")
    for child in children(process):
        os.kill(child, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "A data worker died" in said and f"--out {tmp_path / 'run'} --resume" in said
    assert "Traceback" not in said


def test_a_second_signal_ends_the_run_at_once(start: Callable[..., Any], tmp_path: Path) -> None:
    # One that takes very long over its step, as a hook that waits.
    (tmp_path / "slow.py").write_text(
        "import time\nfrom contralex.plugin import hookimpl\n@hookimpl\ndef contralex_step_end(run, metrics):\n"
        "    if run.step == 3:\n        (run.folder / 'waits').touch()\n        time.sleep(600)\n"
    )
    recipe = tmp_path / "slow.yaml"
    recipe.write_text("schema: 1\nextends: simclr-v1\ncode: slow.py\n")
    process = start(recipe, "--allow-code")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "waits").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None  # the first one waits for the end of the step
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopped at once" in said


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    for saved, onward in ((False, "begin it again"), (True, "go on from the last checkpoint")):
        if saved:
            (tmp_path / "checkpoints" / "step-1").mkdir(parents=True)
        with (
            pytest.raises(failures.RunFailed, match=f"is full; make room, then {onward} with:\n"),
            failures.explain_failures(tmp_path),
        ):
            Path("/dev/full").write_text("x" * 100)
    with pytest.raises(FileNotFoundError), failures.explain_failures(tmp_path):
        (tmp_path / "nothing").read_text()
