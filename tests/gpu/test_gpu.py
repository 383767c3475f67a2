"""What must be true on a GPU: each recipe's step equals the CPU's, precisions, compilation, and NCCL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import contralex
from contralex.data.packed import PackedViews
from contralex.lookup import late_checks
from contralex.plugin import RunSpec
from contralex.recipes.layers import resolve
from tests.distributed.invariance import METHODS
from tests.gpu.cases import Case
from tests.processes import free_port

TRAIN = RunSpec.model_fields["train"].annotation


@pytest.mark.parametrize("name", METHODS)
def test_a_step_equals_the_cpus(name: str, tmp_path: Path, device: str) -> None:
    case = Case(name, tmp_path)
    found = []
    for where in ("cpu", device):
        method, inputs = case.method(where), case.inputs(where)
        result = case.step(method, inputs)
        method.update(result.keys, inputs[2])
        gradient = {key: p.grad.cpu() for key, p in method.named_parameters() if p.grad is not None}
        state = {key: tensor.cpu() for key, tensor in method.state_dict().items()}
        found.append((result.loss.detach().cpu(), gradient, state))
    (loss, gradient, state), (other_loss, other_gradient, other_state) = found
    torch.testing.assert_close(other_loss, loss, rtol=1e-4, atol=1e-5)
    assert gradient.keys() == other_gradient.keys()
    whole, other = (torch.cat([each[key].flatten() for key in gradient]) for each in (gradient, other_gradient))
    assert (whole - other).norm() <= 1e-3 * whole.norm()
    for key, tensor in state.items():
        torch.testing.assert_close(
            other_state[key], tensor, rtol=1e-3, atol=1e-4, msg=lambda said, key=key: f"{key}: {said}"
        )


def test_views_unpacked_on_the_device_are_the_cpus_bit_by_bit(device: str) -> None:
    views = resolve("moco-v2").run.method.views.build()
    packed = torch.randint(256, (16, 3, 96, 96), dtype=torch.uint8)
    assert torch.equal(views.unpack(packed.to(device), 0).cpu(), views.unpack(packed, 0))


def test_views_made_on_the_device_are_those_that_the_cpu_makes_so(device: str) -> None:
    views = resolve("moco-v2", sets=["method.views.device=accelerator"]).run.method.views.build()
    chance = np.random.default_rng(0)
    shapes = [(int(chance.integers(200, 400)), int(chance.integers(200, 400)), 3) for _ in range(16)]
    images = [Image.fromarray(chance.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]
    packed = PackedViews.join(views.pack_drawn(images, 0, [views.draw_parameters(image, 0) for image in images]))
    wanted = views.unpack(packed, 0)
    there = packed.pin_memory().to(torch.device(device), non_blocking=True) if device != "cpu" else packed
    views.unpack(there, 0)  # what is made once may wait
    with _refuse_to_wait(device, True):
        made = views.unpack(there, 0)
    apart = (made.cpu() - wanted).abs() * 255 * 0.229
    assert apart.mean() < 0.01 and (apart > 1.5).float().mean() < 1e-3  # of 255 levels


@pytest.mark.parametrize("name", METHODS)
def test_a_step_never_waits_for_the_gpu(name: str, tmp_path: Path, device: str) -> None:
    case = Case(name, tmp_path)
    method = case.method(device)
    optimizer = case.optimizer(method)
    for attempt in range(3):  # what is made once, in the first steps, may wait
        inputs = case.inputs(device)  # whose Step is of one step
        with _refuse_to_wait(device, attempt == 2), late_checks.collect():
            result = case.step(method, inputs)
            optimizer.step()
            optimizer.zero_grad()
            method.update(result.keys, inputs[2])
    assert bool(torch.isfinite(result.loss))


@contextmanager
def _refuse_to_wait(device: str, is_wanted: bool) -> Iterator[None]:
    """Within, CUDA raises where the host would wait for the device."""
    if device == "cpu" or not is_wanted:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("recipe", ["moco-v2", "simclr-v1", "byol", "dino", "swav", "barlow"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_in_each_precision(recipe: str, precision: str, tmp_path: Path, device: str) -> None:
    if precision == "fp16" and device == "cpu":
        pytest.skip("fp16 needs a GPU")
    workers = 2 if (recipe, precision) == ("moco-v2", "bf16") else 0  # whose batches are sent ahead, from pinned memory
    sets = {"train.precision": precision, "train.max_steps": 4, "train.log_every": 1, "eval.knn": None}
    sets["train.workers"] = workers
    run = contralex.train(recipe, preset="digits", sets=sets, out=tmp_path / "run")
    assert (run.results["steps"], run.results["device"]) == (4, device)
    assert all(abs(line["loss"]) < 1e4 for line in run.metrics() if "loss" in line)


def test_a_run_with_all_that_belongs_to_it(tmp_path: Path, device: str) -> None:
    """Workers as a user has them, both evaluations, a checkpoint from which it goes on, and questions about it."""
    sets = {"train.epochs": 2, "train.log_every": 5, "eval.knn.every": 1, "eval.linear": {}}
    run = contralex.train("moco-v2", preset="digits", sets=sets, out=tmp_path / "run")
    assert run.results["device"] == device
    assert 0.05 < run.results["knn"]["this run"]["top1"] <= 1
    half = run.results["steps"] // 2
    fork = contralex.fork(run.folder, half, steps=5, out=tmp_path / "fork", evaluate=False)
    assert fork.rows[-1]["step"] > half
    assert contralex.embed(run.folder).features.isfinite().all()
    contralex.doctor(run.folder)


def test_a_batch_in_parts(tmp_path: Path, device: str) -> None:
    """A deep network in bfloat16, which a GPU computes by other kernels for other numbers of samples."""
    backbone = {"kind": "torchvision", "name": "resnet50", "stem": "small"}
    sets = {"train.micro_batch": 16, "train.batch_norm": 16, "train.precision": "bf16", "train.workers": 0}
    sets |= {"method.encoder.backbone": backbone, "train.max_steps": 2, "train.log_every": 1, "eval.knn": None}
    run = contralex.train("simclr-v1", preset="digits", sets=sets, out=tmp_path / "run")
    assert (run.results["steps"], run.results["device"]) == (2, device)


@pytest.mark.skipif("compile" not in TRAIN.model_fields, reason="this version has no train.compile")  # type: ignore[union-attr]
@pytest.mark.parametrize("recipe", ["moco-v2", "simclr-v1", "byol"])
def test_a_compiled_run(recipe: str, tmp_path: Path) -> None:
    # Two steps: where BatchNorm stands before vectors that are nearly alike, float32 itself is .2 % off in a gradient.
    sets = {"train.max_steps": 2, "train.log_every": 1, "eval.knn": None, "train.workers": 0}
    losses = []
    for compiled in (False, True):
        run = contralex.train(
            recipe, preset="digits", sets=sets | {"train.compile": compiled, "train.precision": "fp32"},
            out=tmp_path / str(compiled),
        )  # fmt: skip
        losses.append([line["loss"] for line in run.metrics() if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_nccl_on_one_device(tmp_path: Path, device: str) -> None:
    """A run of one process under torchrun, which opens a process group: NCCL's where there is a GPU."""
    spec = tmp_path / "spec.yaml"
    few = ["train.max_steps=3", "eval.knn=null", "train.workers=0"]
    spec.write_text(resolve("moco-v2", preset="digits", sets=few).to_yaml(), "utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", "--master-port=0"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    train = ["-m", "contralex", "train", str(spec), "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, *train], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert contralex.open(tmp_path / "run").results["device"] == device


_COLLECTIVES = """
import torch, torch.distributed as dist
from contralex.plugin import distributed
device = "cuda" if torch.cuda.is_available() else "cpu"
backend = "nccl" if device == "cuda" else "gloo"
dist.init_process_group(backend, init_method="tcp://127.0.0.1:{port}", rank=0, world_size=1)
x = torch.arange(6.0, device=device).view(3, 2)
out = torch.empty_like(x)
dist.all_reduce(x); dist.all_to_all_single(out, x); parts = [torch.empty_like(x)]; dist.all_gather(parts, x)
assert torch.equal(out, x) and torch.equal(parts[0], x)
assert distributed.world() == 1 and torch.equal(distributed.gather(x), x)
dist.destroy_process_group()
"""


def test_the_collectives_that_are_used(device: str) -> None:
    port = free_port()
    code = _COLLECTIVES.format(port=port)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
