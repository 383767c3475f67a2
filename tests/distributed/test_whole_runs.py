"""Whole runs on several processes: sharded dictionaries, checkpoints that change the number of processes, kNN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.processes import contralex

SETS = (
    "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}",
    "data={kind: digits, scene: plain}",
    "method.negatives.size=100",  # no multiple of the batch
    "train.batch_norm=8",
    "train.optimizer={kind: sgd, lr: 0.05, momentum: 0.9}",  # not AdamW: rounding decides the sign of its first steps
    "train.batch_size=64",
    "train.max_steps=6",
    "train.precision=fp32",
    "train.log_every=1",
    "train.workers=0",
    "eval.knn={k: 5, baselines: false}",
    "eval.linear={baselines: false}",
)


def run(folder: Path, processes: int, *words: str) -> None:
    done = contralex("train", *words, f"--out={folder}", f"--processes={processes}")
    assert done.returncode == 0, done.stderr


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "step-6" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, a replicated queue, never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder, 1, "moco-v2", "--preset=digits", *(f"--set={text}" for text in SETS))
    return folder


@pytest.mark.parametrize("processes", [(2, 1, 2), pytest.param((4, 1, 2), marks=pytest.mark.slow)])
def test_a_sharded_run_that_is_resumed_on_another_number_of_processes_is_the_same_run(
    processes: tuple[int, int, int], whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "stops.py").write_text(
        "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_step_end(run, metrics):\n"
        "    if run.step in (2, 4):\n        run.stop('enough for now')\n"
    )
    recipe = tmp_path / "stopped.yaml"
    recipe.write_text(
        "schema: 1\nextends: moco-v2\ncode: stops.py\nmethod: {negatives: {placement: sharded}}\n", "utf-8"
    )
    folder = tmp_path / "run"
    run(folder, processes[0], str(recipe), "--preset=digits", *(f"--set={text}" for text in SETS), "--allow-code")
    assert results(folder)["steps"] == 2
    run(folder, processes[1], "--resume", "--allow-code")
    assert results(folder)["steps"] == 4
    run(folder, processes[2], "--resume", "--allow-code")
    assert results(folder)["steps"] == 6
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-4)
    for name, tensor in state(whole).items():
        torch.testing.assert_close(
            state(folder)[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )
    for judge in ("knn", "linear"):
        one, many = results(whole)[judge]["this run"], results(folder)[judge]["this run"]
        assert many["protocol"] == one["protocol"]
        assert many["top1"] == pytest.approx(one["top1"], abs=0.01)
