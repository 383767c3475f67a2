"""What a run says while it lasts: its first lines, how far it is, warnings.

The main process speaks alone: with a bar on a terminal or in a notebook, elsewhere with a line every half minute.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from contralex import memory, progress, streams
from contralex.lookup import distributed
from contralex.lookup.names import MAIN
from contralex.lookup.step import LookUp
from contralex.training.notebook_bar import NotebookBar, is_notebook
from contralex.training.progress_bar import Bar
from contralex.training.run_state import Run

_LARGE = 1 << 24  # bytes that a part keeps, such as a memory bank; fewer are not worth a line


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the program: a run goes on when nobody reads what it says any more."""
        streams.discard(self.file)


class Display:
    """``to``: the stream that the run reports to."""

    def __init__(self, run: Run, to: Literal["stdout", "stderr"]) -> None:
        self.run = run
        # Nothing that a user has named is markup: a folder may be called [red]. In a notebook rich would show what goes
        # to either stream as a cell's result.
        self.console = _Console(stderr=to == "stderr", markup=False, emoji=False, highlight=False, force_jupyter=False)
        bar = NotebookBar if is_notebook() else Bar
        shown = run.main and (self.console.is_terminal or bar is NotebookBar)
        self.bar = bar(self.console, run.spec.name, run.epochs, run.total, run.step, shown=shown)
        self._spoke = time.monotonic()
        self._began_with = (run.step, run.progress.seconds)

    def __enter__(self) -> Display:
        self._introduce()
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, text: str | Table) -> None:
        """On the main process. Lines are never wrapped, so that a path or a command can be copied."""
        if not self.run.main:
            return
        self._spoke = time.monotonic()
        try:
            self.console.print(text, soft_wrap=isinstance(text, str))
        except OSError as error:  # the reader is gone, or the disk behind it is full: no reason to end a run
            streams.give_up(self.console.file, error)

    def advance(self) -> None:
        """After a step."""
        self.bar.at(self.run.step, self._epoch_of_step)

    def show(self, line: Mapping[str, float]) -> None:
        """After a line of ``metrics.jsonl``: its figures, in the bar, or else in a line each half minute."""
        figures = [
            f"loss {line['loss']:.3f}",
            f"{line['images_per_second']:,.0f} images/s",
            f"look-up {line['lookup_top1']:.0%}",
            f"lr {line['lr']:.2g}",
        ]
        self.bar.show(figures)
        if not self.bar.shown and time.monotonic() - self._spoke >= progress.PERIOD:
            self.say(f"{self._where()}: {', '.join([*figures[:2], f'{self._time_left()} left'])}")

    def _introduce(self) -> None:
        run, train = self.run, self.run.spec.train
        processes = f"{distributed.world()} process{'es' if distributed.world() > 1 else ''}"
        steps = f"{count(run.total, 'step')} of {train.batch_size:,} {run.source.items}"
        if train.accumulate > 1:
            steps += f" in {train.accumulate} parts of {train.look_up_size:,}, each with a look-up of its own"
        steps += f", {count(run.epochs, 'epoch')}"
        onward = f", from step {run.step:,} on" if run.step else ""
        self.say(f"{run.spec.name} on {_name(run.device)}, {train.precision}, {processes}: {steps}{onward}")
        if run.prepared.is_sharded:
            self.say(
                f"Each process keeps 1/{distributed.world()} of the encoders, as Accelerate is configured (FSDP2)."
            )
        self.say(f"{run.spec.data.kind_name()}: {run.source.describe()}")
        for slot, amount in _large_slots(run.method).items():
            self.say(f"method.{slot} keeps {memory.in_words(amount)} on each process, beside the weights.")
        self.say(f"Folder: {run.folder}")

    def _where(self) -> str:
        run = self.run
        return f"step {run.step:,} of {run.total:,}, epoch {self._epoch_of_step}/{run.epochs}"

    def _time_left(self) -> str:
        run, (step, seconds) = self.run, self._began_with
        left = (run.progress.seconds - seconds) / (run.step - step) * (run.total - run.step)
        return progress.duration(left)

    @property
    def _epoch_of_step(self) -> int:
        """That of the step that was taken last, from 1."""
        return max(1, -(-self.run.step // self.run.per_epoch))


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"cpu": "the CPU"}.get(device.type, str(device))


def _large_slots(method: LookUp) -> dict[str, int]:
    """The slots that keep much on each process, such as a vector for each sample, with the bytes of it."""
    sizes = {
        name if question == MAIN else f"look_ups.{question}.{name}": sum(tensor.nbytes for tensor in part.buffers())
        for question, asked in method.questions.items()
        for name, part in zip(("negatives", "targets", "loss"), asked.parts, strict=True)
    }
    return {name: size for name, size in sizes.items() if size >= _LARGE}
