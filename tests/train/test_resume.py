"""A run that was stopped and resumed is the run that never stopped, to the bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contralex.recipes.layers import resolve
from contralex.training.run import train
from contralex.training.stop_errors import RunStopped

# Asks for the end as a scheduler does, in the middle of an epoch of five steps.
CODE = """
import os, signal
from contralex.plugin import hookimpl

@hookimpl
def contralex_step_end(run, metrics):
    if run.step in (3, 7) and run.spec.name.endswith("stopped"):
        os.kill(os.getpid(), signal.SIGTERM)
"""
VIT = (
    "method.encoder.backbone={kind: vit, image_size: 32, patch: 8, width: 16, depth: 2, heads: 2, any_size: true, "
    "drop_path: 0.5, mask_token: true}"
)
CONV = "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}"
RUNS = {
    "instdisc": [CONV, "method.negatives.draws=16"],
    "moco-v2": [CONV, "method.negatives.size=30", "train.batch_norm=4"],
    "simclr-v1": [CONV],
    "swav": [CONV, "method.negatives.count=10"],  # multi-crop
    "swav-small-batch": [CONV, "method.negatives.count=10", "method.targets.queue={size: 16, start_epoch: 0}"],
    "deepcluster-v2": [CONV, "method.negatives.count=6"],
    "deepcluster": [
        "method.encoder.backbone.backbone={kind: conv, widths: [8], strides: [4], channels: 2}",
        "method.negatives={count: 6, pca: 8}",
    ],
    "byol": [CONV],
    "barlow": [CONV],
    "vicregl": [CONV],  # views with boxes
    "supcon": [CONV],
    "mae": ["method.encoder.backbone.width=24", "method.encoder.backbone.depth=1"],
    "crd": [CONV, "data=digits", "train.max_steps=10"],
    "clip": ["data=digit_captions", "train.max_steps=10"],
    "instdisc, sharded": [CONV, "method.negatives.draws=16", "method.negatives.placement=sharded"],
    "moco-v2, accumulated": [CONV, "method.negatives.size=30", "train.batch_norm=2", "train.accumulate=2"],
    "dino, drop path": [VIT, "method.negatives.count=10", "method.views.groups.locals.augment.crop.size=16"],
    "ibot, drop path": [VIT, "method.negatives.count=10"],
    "moco-v2, sharded": [CONV, "method.negatives={size: 30, placement: sharded}", "train.batch_norm=4"],
}


@pytest.mark.parametrize(("recipe", "workers"), [*((recipe, 0) for recipe in RUNS), ("swav", 2), ("moco-v2", 1)])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    recipe: str, workers: int, fake_plugin: Callable[..., Path], images: Path, tmp_path: Path
) -> None:
    fake_plugin("foo", CODE)
    every = ["train.epochs=2", "train.batch_size=8", "train.precision=fp32", "train.log_every=2", "eval.knn=null"]

    def spec(name: str) -> Any:
        sets = [*RUNS[recipe], *every, f"train.workers={workers}", "plugins=[foo]", f"name={name}"]
        return resolve(recipe.split(",", maxsplit=1)[0], preset="digits", data=str(images), sets=sets)

    train(spec("whole"), tmp_path / "whole")
    codes: list[int] = []
    while True:
        try:
            train(spec("stopped"), tmp_path / "stopped", resume=bool(codes))
            break
        except RunStopped as stopped:
            codes.append(stopped.exit_code)
    assert codes == [128 + signal.SIGTERM] * 2
    assert _lines(tmp_path / "stopped") == _lines(tmp_path / "whole")
    for file in ("model.safetensors", "optimizer.safetensors"):
        ends = [tmp_path / run / "checkpoints" / "step-10" / file for run in ("whole", "stopped")]
        assert ends[0].read_bytes() == ends[1].read_bytes(), file


def _lines(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]
