"""The kill matrix: a run that is killed again and again, at any moment, ends as the one that never was.

``pytest -m slow tests/distributed/test_kills.py -s`` says at which steps each kill fell.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SETS = [
    "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}",
    "method.negatives.size=100",
    "train.batch_norm=8",
    "train.epochs=12",
    "train.batch_size=64",
    "train.precision=fp32",
    "train.log_every=1",
    "train.workers=1",
    "train.checkpoint.every_steps=2",
    "eval.knn=null",
]
STEPS = 12 * (1437 // 64)


def begin(folder: Path, processes: int) -> subprocess.Popen[str]:
    """Starts a run, or goes on with it, also where it was killed before its first checkpoint."""
    if (folder / "spec.yaml").exists():
        return started(["train", "--resume", f"--out={folder}", f"--processes={processes}"])
    shutil.rmtree(folder, ignore_errors=True)
    words = ["train", "moco-v2", "--preset=digits", f"--out={folder}", f"--processes={processes}"]
    return started([*words, *(f"--set={text}" for text in SETS)])


def started(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "contralex", *words],
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """Everything of it at once, as where a machine goes down."""
    family = [process.pid]
    for pid in family:
        file = Path(f"/proc/{pid}/task/{pid}/children")
        family += [int(child) for child in file.read_text().split()] if file.exists() else []
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def until_it_trains(process: subprocess.Popen[str], folder: Path) -> None:
    file = folder / "metrics.jsonl"
    began = time.time()
    while process.poll() is None and not (file.exists() and file.stat().st_mtime > began):
        time.sleep(0.05)


def ended(folder: Path) -> tuple[list[dict[str, Any]], bytes]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]
    return kept, (folder / "checkpoints" / f"step-{STEPS}" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 35), (2, 15)])
def test_killed_at_any_moment_a_run_is_neither_lost_nor_another(processes: int, kills: int, tmp_path: Path) -> None:
    process = begin(tmp_path / "whole", processes)
    assert process.wait() == 0, process.stderr.read() if process.stderr else ""
    expected = ended(tmp_path / "whole")
    chance = random.Random(processes)
    done = runs = 0
    while done < kills:
        folder = tmp_path / f"killed-{runs}"
        while True:
            process = begin(folder, processes)
            if done < kills:
                if chance.random() < 0.8:  # the others fall into the start
                    until_it_trains(process, folder)
                time.sleep(chance.uniform(0, 3))
            if done < kills and process.poll() is None:
                kill(process)
                done += 1
                last = folder / "checkpoints" / "last"
                print(f"kill {done}: {last.read_text().strip() if last.exists() else 'before the first checkpoint'}")
                continue
            assert process.wait() == 0, process.stderr.read() if process.stderr else ""
            break
        assert ended(folder) == expected
        runs += 1
    print(f"{processes} process(es): {done} kills in {runs} runs, none lost, none another at its end")
