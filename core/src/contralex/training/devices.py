"""What this machine gives a run: how many data-loading workers, and a process group that is closed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from contralex import memory
from contralex.compat import accelerate_states, destroy_process_group
from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.recipes.run_spec import TrainSpec

M = TypeVar("M", bound=nn.Module)


def kind() -> str:
    """The type of the device that a run on this machine takes: ``cuda``, ``mps`` or ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def to_evaluate_on() -> torch.device:
    """The device on which a checkpoint is evaluated: a GPU of CUDA, or the CPU, on which every operation exists."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place(module: M, device: torch.device, channels_last: bool | None) -> M:
    """The module on a device, with the weights of its convolutions as ``train.channels_last`` says. A convolution whose
    weights lie so gives its output so, and what follows keeps it.

    Measured on the CPU, forward and backward: 0.8 to 0.9 of the time for a small network at 32 pixels, and 1.0 for a
    ResNet-18 at 64.
    """
    module.to(device)
    if channels_last if channels_last is not None else device.type in ("cpu", "cuda"):
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)
    return module


def tune_convolutions(device: torch.device) -> None:
    """Have cuDNN measure its algorithms at the first convolution of each shape and keep the fastest, unless the caller
    has asked torch for deterministic ones. :func:`close_process_group` takes it back."""
    deterministic = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True


def keep_memory(device: torch.device) -> None:
    """On the CPU a step takes the memory that the step before it has freed; :func:`close_process_group` gives it back
    to the system. Measured on two idle cores: 1.1 times the speed, for a small network at 32 pixels as for a
    ResNet-18 at 128, and at most 3 % more memory."""
    if device.type == "cpu":
        memory.keep_freed()


def workers(asked: int | None, device: str) -> int:
    """Data-loading workers of this process: as asked, or half its cores where the CPU trains as well (at most 16), or
    on a GPU all its cores but that of the process itself (at most 32)."""
    if asked is not None:
        return asked
    cores = _cores()
    return max(1, min(16, cores // 2) if device == "cpu" else min(32, cores - 1))


def check_workers(asked: int | None) -> None:
    """Refuses more processes than this machine can be meant to have."""
    cores = _cores()
    most = max(16, 4 * cores)
    if asked is not None and asked > most:
        raise ContralexError(
            f"train.workers is {asked} on each process, and {cores} core{'s' if cores > 1 else ''} of this machine "
            f"{'are' if cores > 1 else 'is'} for it; at most {most} are taken. Try:"
            + remedy("--set", f"train.workers={cores}")
        )


def thread_choices(train: TrainSpec, device: str) -> tuple[int, ...]:
    """The numbers of threads that may be the fastest, the safest first.

    One where ``train.threads`` or OMP_NUM_THREADS states it, or where a GPU trains. Else two: one thread for each core
    that no worker holds, and one for each core. Which is faster depends on how much of its core a worker takes, and on
    what else the machine does. Measured on two busy cores with one worker: 249 images/s with one thread and 71 with
    two, because threads wait for each other in each operation.
    """
    if train.threads is not None:
        return (train.threads,)
    if device != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return (torch.get_num_threads(),)
    cores = _cores()
    apart = max(1, cores - workers(train.workers, device))
    # Several processes would disturb each other's measurement.
    return (apart,) if apart == cores or _local_processes() > 1 else (apart, cores)


def _cores() -> int:
    """The cores that this process may use, of which the processes of this machine have equal shares."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _local_processes())


def _local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def close_process_group() -> Iterator[None]:
    """Closes the process group that Accelerate opened, however the run ends, and leaves Accelerate's state, torch's
    threads and cuDNN's tuning as they were, so that the next run of this process may have another precision. Memory
    that :func:`keep_memory` has kept goes back to the system.

    Accelerate keeps one state for the whole process. The caller's own, where there is any, is back afterwards.
    """
    threads, tunes = torch.get_num_threads(), torch.backends.cudnn.benchmark
    states = accelerate_states()
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield
    finally:
        if distributed.world() > 1:
            destroy_process_group()
        for state, values in zip(states, before, strict=True):
            state.clear()
            state.update(values)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = tunes
        memory.give_back()
