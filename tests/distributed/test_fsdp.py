"""A run that Accelerate is configured to shard (FSDP2) is the run of one process, and its checkpoints are no others."""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from contralex.recipes.layers import Resolved, resolve
from contralex.training.accelerate_check import FIRST_TORCH
from contralex.training.run import train
from contralex.training.run_state import Run
from tests.processes import spawn
from tests.train.tiny import TINY

pytestmark = pytest.mark.skipif(Version(torch.__version__) < FIRST_TORCH, reason="refused with this torch")

SGD = "train.optimizer={kind: sgd, lr: 0.01, momentum: 0.9}"
METHODS = {
    # a teacher, a queue, clipping, look-ups that are accumulated
    "moco-v2": [SGD, "method.negatives.size=24", "train.batch_norm=2", "train.accumulate=2", "train.clip=0.5"],
    # a head after the encoder's forward, micro-batches; its loss adds two directions, and steps multiply rounding
    "byol": ["train.optimizer={kind: sgd, lr: 0.002, momentum: 0.9}", "train.batch_norm=4", "train.micro_batch=4"],
    # prototypes, which are not sharded, and a twin of them
    "swav": [
        SGD,
        "method.negatives.count=10",
        "train.batch_norm=4",
        "method.key_encoder={kind: momentum, momentum: 0.9}",
    ],
    "simclr-v1": ["train.optimizer={kind: lars, lr: 0.05}", "train.batch_norm=4"],
    "moco-v3": ["train.optimizer={kind: adamw, lr: 0.0001, eps: 0.001}", "train.batch_norm=4", "train.precision=bf16"],
}
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Conv2d",
}
HALF, WHOLE = 3, 5  # steps


def spec(name: str, images: Path, steps: int = WHOLE) -> Resolved:
    every = ["train.log_every=1", "eval.knn={k: 3, baselines: false}", f"train.max_steps={steps}"]
    return resolve(name, preset="digits", data=str(images), sets=[*TINY, *every, *METHODS[name]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def images(folder: Path) -> Path:
    noise = torch.randint(256, (50, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, pixels in enumerate(noise):
        name = folder / "images" / ("one" if number % 2 else "other") / f"{number}.png"
        name.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels.numpy()).save(name)
    return folder / "images"


def _worker(rank: int, ports: list[int], images: Path, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", WORLD_SIZE="2", **FSDP)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
    torch.set_num_threads(1)
    kept: dict[str, Any] = {}
    checkpoint_state = Run.checkpoint_state

    def note(run: Run, *arguments: Any) -> Any:
        encoder = run.method.encoder
        kept[run.spec.name] = [
            sum(each.numel() for each in encoder.parameters()),
            sum(each.to_local().numel() for each in encoder.parameters()),
            sum(each.to_local().numel() for kept in run.optimizer.state.values() for each in _sharded(kept)),
        ]
        return checkpoint_state(run, *arguments)

    Run.checkpoint_state = note  # type: ignore[method-assign]
    runs = {folder / "two" / name: spec(name, images) for name in METHODS}
    runs[folder / "half"] = spec("moco-v2", images, HALF)
    for port, (out, resolved) in zip(ports, runs.items(), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        train(resolved, out)
    if rank == 0:
        (folder / "kept.json").write_text(json.dumps(kept))
    os._exit(0)  # not through Python's shutdown, which a thread of gloo's can abort


def _sharded(kept: dict[str, Any]) -> list[Any]:
    return [value for value in kept.values() if isinstance(value, torch.distributed.tensor.DTensor)]


@pytest.fixture(scope="module")
def two(images: Path, folder: Path) -> Path:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(len(METHODS) + 1)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    spawn(_worker, (ports, images, folder))
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_a_sharded_run_is_the_run_of_one_process(name: str, images: Path, two: Path) -> None:
    train(spec(name, images), two / "one" / name)
    is_rough = "train.precision=bf16" in METHODS[name]
    close = 1e-2 if is_rough else 1e-4
    one, many = (read(two / run / name) for run in ("one", "two"))
    assert [line["loss"] for line in many["lines"]] == pytest.approx([line["loss"] for line in one["lines"]], rel=close)
    for file in ("model", "optimizer"):
        assert many[file].keys() == one[file].keys()
        if file == "model" or not is_rough:  # in bfloat16 a mean of gradients is rounded anew in each process
            assert apart(one[file], many[file]) < close, file
    assert many["knn"] == pytest.approx(one["knn"], abs=0.1)


def read(folder: Path) -> dict[str, Any]:
    checkpoint = folder / "checkpoints" / f"step-{WHOLE}"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "model": load_file(checkpoint / "model.safetensors"),
        "optimizer": load_file(checkpoint / "optimizer.safetensors"),
        "lines": [line for line in lines if "loss" in line],
        "knn": json.loads((folder / "results.json").read_text())["knn"]["this run"]["top1"],
    }


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    flat, theirs = (torch.cat([each[name].double().flatten() for name in sorted(one)]) for each in (one, other))
    return float((flat - theirs).norm() / flat.norm())


def test_each_process_keeps_about_half(two: Path) -> None:
    for name, (whole, own, of_optimizer) in json.loads((two / "kept.json").read_text()).items():
        assert 0.4 * whole < own < 0.6 * whole, name
        assert own <= of_optimizer <= 2 * own, name


def test_a_sharded_run_goes_on_as_a_run_of_one_process(images: Path, two: Path) -> None:
    """Without FSDP: its schedules end where the longer run's do, as it is resumed with another number of steps."""
    train(spec("moco-v2", images, HALF), two / "half", resume=True)  # complete: read, and nothing is trained
    half = load_file(two / "half" / "checkpoints" / f"step-{HALF}" / "model.safetensors")
    train(spec("moco-v2", images, WHOLE), two / "half", resume=True, allow_drift=True)
    model = load_file(two / "half" / "checkpoints" / f"step-{WHOLE}" / "model.safetensors")
    train(spec("moco-v2", images, HALF), two / "alone")
    assert apart(load_file(two / "alone" / "checkpoints" / f"step-{HALF}" / "model.safetensors"), half) < 1e-4
    train(spec("moco-v2", images, WHOLE), two / "alone", resume=True, allow_drift=True)
    alone = load_file(two / "alone" / "checkpoints" / f"step-{WHOLE}" / "model.safetensors")
    assert apart(alone, model) < 1e-4
