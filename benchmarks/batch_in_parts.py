"""``train.micro_batch`` beside the whole batch, on SimCLR and a small network: gradient, memory, time."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import contralex
from benchmarks import end_to_end, step
from benchmarks.measuring import OURS, Case, compare, peak_bytes
from contralex import memory
from contralex.lookup import batch_norm
from contralex.plugin import Clock

MICRO = 64
IN_PARTS = {"train.micro_batch": MICRO}
_WHOLE = 8e9  # bytes that are free, where 4096 images of 32 pixels are encoded at once in 5.6e9


def fitting(batch: int) -> int:
    """The batch, or a quarter of it where the memory is too small for it as a whole."""
    free = memory.available()
    return batch if free is None or free > _WHOLE else batch // 4


def gradient_difference(batch: int, micro: int = MICRO) -> float:
    """‖Δ‖/‖g‖ of the gradient in micro-batches to the whole batch's, in float64, with BatchNorm in groups of one
    micro-batch on both sides."""
    task = step.Task("", "simclr", step.CONV, 8, batch, 1)
    whole, parts = (_gradient(task, micro, size) for size in (None, micro))
    return float((whole - parts).norm() / whole.norm())


def _gradient(task: step.Task, group: int, micro: int | None) -> Tensor:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "task.yaml")
        file.write_text(step.recipe(task), "utf-8")
        method = contralex.build(file, dataset_size=task.count, allow_code=True)
    batch_norm.convert(method, group)
    method.double()
    chance = torch.Generator().manual_seed(0)
    shape = (task.batch, 3, task.size, task.size)
    views = {view: torch.rand(shape, generator=chance, dtype=torch.float64) for view in (0, 1)}
    moment = contralex.Step(Clock(step=0, total=10, per_epoch=2), seed=0, batch=task.batch, micro_batch=micro)
    method(views, torch.arange(task.batch), moment).loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])


def peak(batch: int, pixels: int, sets: Mapping[str, Any]) -> int:
    """The most bytes of a run, without the pixels of one batch, which no method can do without."""
    task = _task(batch, pixels)
    step.ready_loader(task)  # its images are kept, and are not the run's
    return peak_bytes(lambda: step.ours(task, sets), warm_up=False) - 2 * batch * 3 * pixels**2 * 4


def times(batch: int, pixels: int, rounds: int = 2) -> Case:
    """The seconds of the second step of a run, in micro-batches and ``whole``. The first one warms up."""
    task = _task(batch, pixels)
    sides = {OURS: lambda: step.ours(task, IN_PARTS), "whole": lambda: step.ours(task)}
    return compare("", sides, rounds, warm_up=False)


def _task(batch: int, pixels: int) -> step.Task:
    return step.Task("", "simclr", end_to_end.CONV, pixels, batch, 2)
