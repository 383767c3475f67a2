"""``--dry-run``: what a run would take, from a few timed steps; nothing is trained and nothing is left on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from contralex import memory
from contralex.data.kept_images import bytes_to_keep
from contralex.data.loading import Batch
from contralex.progress import duration
from contralex.recipes.layers import Resolved
from contralex.training import devices, memory_checks
from contralex.training.batches import batches
from contralex.training.prepare import prepare_run
from contralex.training.run_folder import RunFolder
from contralex.training.run_state import Run
from contralex.training.train_step import take_step

_TIMED = 4  # steps, after one that warms up
_SECONDS = 60  # after which no further step is timed


@dataclass(frozen=True)
class DryRun:
    """What a run would take. ``data``: what was found. ``seconds_a_step``: the median of the timed steps."""

    data: str
    steps: int
    """Steps of the whole run."""
    steps_an_epoch: int
    epochs: int
    device: str
    precision: str
    workers: int
    threads: int
    """Threads in which the CPU computes, with which the steps are the fastest."""
    seconds_a_step: float
    timed: int
    """How many steps were timed."""
    kept: int | None
    """Bytes that decoded images take at most (``train.cache: memory``); None where none are kept."""
    peak_memory: int | None
    """Bytes: of the GPU where there is one, else of this process and its workers; None where that is not known."""

    @property
    def minutes(self) -> float:
        """Of training, without evaluation."""
        return self.steps * self.seconds_a_step / 60

    def __str__(self) -> str:
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs:,} epochs"
        where = "the GPU's memory" if self.device.startswith("cuda") else "memory"
        peak = memory.in_words(self.peak_memory) if self.peak_memory is not None else "an unknown amount"
        return "\n".join(
            [
                self.data,
                f"{self.steps:,} steps: {epochs} of {self.steps_an_epoch:,}, on {self.device} in {self.precision}, "
                f"with {self.threads} {'thread' if self.threads == 1 else 'threads'} and "
                f"{self.workers} {'process' if self.workers == 1 else 'processes'} that load data",
                f"{self.seconds_a_step:.2g} s a step (the median of {self.timed}), so about "
                f"{duration(60 * self.minutes)} of training, and then evaluation",
                f"{peak} of {where} at the peak of these steps",
                *([] if self.kept is None else [f"at most {memory.in_words(self.kept)} of memory for decoded images"]),
                "Nothing was trained, and nothing is left on disk.",
            ]
        )


def dry_run(resolved: Resolved) -> DryRun:
    """Prepare a run, and time some steps of it."""
    with rehearse(resolved) as run:
        threads, seconds = _time_steps(run)
        train, kind = run.spec.train, run.spec.data.kind_name()
        return DryRun(
            data=f"{kind}: {run.source.describe()}",
            steps=run.total,
            steps_an_epoch=run.per_epoch,
            epochs=run.epochs,
            device=str(run.device),
            precision=train.precision,
            workers=devices.workers(train.workers, run.device.type),
            threads=threads,
            seconds_a_step=median(seconds),
            timed=len(seconds),
            kept=bytes_to_keep(memory.available()) if train.cache == "memory" else None,
            peak_memory=_peak_memory(run.device),
        )


@contextmanager
def rehearse(resolved: Resolved) -> Iterator[Run]:
    """A run that is prepared as :func:`contralex.training.run.train` does, with all that it refuses, in a folder that
    is removed."""
    resolved = resolved.anchored()
    with (
        TemporaryDirectory() as folder,
        devices.close_process_group(),
        RunFolder(Path(folder) / "run", resolved.run.name, resume=False) as place,
    ):
        yield prepare_run(resolved, place, resume=False)


def seconds_a_step(resolved: Resolved) -> float:
    """As a dry run measures it."""
    return dry_run(resolved).seconds_a_step


def _time_steps(run: Run) -> tuple[int, list[float]]:
    """The number of threads that is the fastest of those that the run would try, and seconds of steps with it."""
    train = run.spec.train
    run.prepared.wrapped_method.train()
    deadline = time.perf_counter() + _SECONDS
    timed: dict[int, list[float]] = {}
    with memory_checks.explain_batch_memory(run.spec, lambda: run.step + 1):
        stream = batches(run.split, run.views, train, run.device, epochs=train.epochs)
        for threads in devices.thread_choices(train, run.device.type):
            if not timed or time.perf_counter() < deadline:
                torch.set_num_threads(threads)
                timed[threads] = list(_timed_steps(run, stream, deadline))
    return min(((threads, seconds) for threads, seconds in timed.items() if seconds), key=lambda each: median(each[1]))


def _timed_steps(run: Run, stream: Iterator[Batch], deadline: float) -> Iterator[float]:
    """Seconds of each step after the first, with the making of its batch; of the first, where it takes very long."""
    began = time.perf_counter()
    for number, batch in enumerate(islice(stream, 1 + _TIMED)):
        with memory_checks.explain_step_memory(run.spec, run.step + 1):
            take_step(run, batch, run.clock())
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        run.progress.step += 1
        now = time.perf_counter()
        is_last = number == _TIMED or run.step >= run.total or now > deadline
        if number or is_last:
            yield now - began
        if is_last:
            return
        began = now


def _peak_memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else memory.peak()
