"""Several processes, however they are started, train with the global batch of one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run

import pytest

ARGUMENTS = ["train", "moco-v2", "--preset", "digits", "--set=train.epochs=1", "--set=eval.knn=null"]
LAUNCHERS = {
    "one": [sys.executable, "-m", "contralex"],
    "--processes": [sys.executable, "-m", "contralex"],
    "torchrun": [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "contralex",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["--processes", "torchrun"])
def test_two_processes_take_the_same_steps(launcher: str, tmp_path: Path) -> None:
    results = {}
    for name in ("one", launcher):
        out = tmp_path / name.strip("-")
        more = ["--processes", "2"] if name == "--processes" else []
        command = [*LAUNCHERS[name], *ARGUMENTS, "--out", str(out), *more]
        done = run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results[name] = json.loads((out / "results.json").read_text())
    assert results[launcher]["processes"] == 2
    assert results[launcher]["steps"] == results["one"]["steps"]
    # bf16 rounds differently in batches of another size.
    assert results[launcher]["last_loss"] == pytest.approx(results["one"]["last_loss"], rel=1e-2)
