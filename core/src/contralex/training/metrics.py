"""The metrics of a run, in ``metrics.jsonl`` and in trackers.

Losses stay on the device between logging periods, so that a GPU is not waited for at every step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from contralex.files import write_text
from contralex.lookup import distributed
from contralex.lookup.host_copies import HostCopy, list_on_host
from contralex.lookup.names import MAIN
from contralex.lookup.values import Answer, StepResult
from contralex.training import health
from contralex.training.checkpoints.state import Pending
from contralex.training.run_state import Run


class Metrics:
    """Counts over a logging period, and writes a line at its end. Every process counts; the main one writes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.file = run.folder / "metrics.jsonl"
        self.added: dict[str, float | Tensor] = {}  # by hooks
        self.watch = health.Watch()
        self._begin_period()
        pending = run.progress.pending
        self.loss += pending.loss
        self.accuracy += pending.accuracy
        for name, sums in pending.look_ups.items():
            self.look_ups[name] += torch.tensor(sums, device=run.device)
        self.steps = pending.steps

    def __enter__(self) -> Metrics:
        run = self.run
        if run.main:
            _keep_until(self.file, run.step)
        if run.spec.train.trackers:
            run.accelerator.init_trackers(run.spec.name, config=_flatten(run.resolved.data))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.run.spec.train.trackers:
            self.run.accelerator.end_training()

    def add_step(self, result: StepResult | None, rate: float) -> None:
        """``result``: None for a step that was left out."""
        if result is not None:
            self.loss += result.loss.detach()
            self.accuracy += result.accuracy
            self.steps += 1
            self.answers = {MAIN: _as_answer(result, self.run), **result.answers}
            for name, answer in result.answers.items():
                self.look_ups[name] += torch.stack([answer.loss, answer.accuracy])
        self.rate = rate

    def make_line(self) -> dict[str, float] | None:
        """The means over the logging period and over the processes; None where every step of it was left out. Waits for
        the device, once. All call this."""
        run = self.run
        if not self.steps:
            return None
        sums, added, keys = self._read()
        (loss, accuracy), *each = [(loss / self.steps, accuracy / self.steps) for loss, accuracy in sums]
        figures = {
            name: health.name_figures(keys[name], answer.keys.vectors.shape[1], answer.entries, answer.added)
            for name, answer in self.answers.items()
        }
        speed = self.steps * run.spec.train.batch_size / (time.perf_counter() - self._since)
        return {
            "step": run.step,
            "epoch": round(run.step / run.per_epoch, 4),
            "loss": loss,
            "lookup_top1": accuracy,
            "lr": self.rate,
            "images_per_second": round(speed, 1),
            **figures[MAIN],
            **health.name_look_ups({name: (*each[at], figures[name]) for at, name in enumerate(self.look_ups)}),
            **added,
        }

    def log(self, line: dict[str, float]) -> None:
        """Writes the line of the logging period, which ends with it."""
        self.run.progress.logged = line
        self._write(line)
        self.added.clear()
        self._begin_period()

    def log_epoch(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Writes what was measured at the end of an epoch."""
        if metrics:
            numbers = {name: float(value) for name, value in metrics.items()}
            self._write({"step": self.run.step, "epoch": self.run.epoch, **numbers})
        if not self.steps:  # images/s is about training
            self._since = time.perf_counter()

    def pending(self) -> Pending:
        """What was counted since the last line, so that a resumed run's next line is the same. All call this."""
        (loss, accuracy), *each = _pairs(HostCopy(self._sums()).read())
        return Pending(
            loss=loss, accuracy=accuracy, steps=self.steps, look_ups=dict(zip(self.look_ups, each, strict=True))
        )

    def losses(self) -> list[float]:
        """All that were logged, of the run's whole life; none on other processes than the main one."""
        if not self.run.main or not self.file.exists():  # a plugin may end a run before its first step
            return []
        return [line["loss"] for line in health.read_lines(self.file) if "loss" in line]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, no time passes for ``images_per_second``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - started

    def _sums(self) -> Tensor:
        """Of loss and accuracy, and of those of each look-up where there are several."""
        own = torch.stack([self.loss, self.accuracy])
        return distributed.mean_over_processes(torch.cat([own, *self.look_ups.values()]))

    def _read(self) -> tuple[list[tuple[float, float]], dict[str, float], dict[str, Tensor]]:
        """The sums of loss and accuracy, what hooks have added, and the summary of each look-up's keys. The device is
        waited for once: all that is on it comes in one copy."""
        keys = {name: health.summarize_keys(answer.keys.vectors) for name, answer in self.answers.items()}
        device = keys[MAIN].device
        tensors = {name: value for name, value in self.added.items() if isinstance(value, Tensor)}
        sums = self._sums()
        numbers = [*sums.unbind(), *tensors.values()]
        together = torch.stack(
            [number.detach().reshape(()).to(device, non_blocking=True).double() for number in numbers]
        )
        host = HostCopy(torch.cat([together, *keys.values()])).wait()
        read = list_on_host(host[: len(numbers)])
        added = {name: value for name, value in self.added.items() if not isinstance(value, Tensor)}
        added |= dict(zip(tensors, read[len(sums) :], strict=True))
        summaries = host[len(numbers) :].split([len(summary) for summary in keys.values()])
        return (
            _pairs(read[: len(sums)]),
            {name: float(added[name]) for name in self.added},
            dict(zip(keys, summaries, strict=True)),
        )

    def _write(self, line: dict[str, Any]) -> None:
        if self.run.main:
            self.run.place.check_still_there()
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.run.spec.train.trackers:
            self.run.accelerator.log({k: v for k, v in line.items() if k != "step"}, step=self.run.step)

    def _begin_period(self) -> None:
        self.loss = torch.zeros((), device=self.run.device)
        self.accuracy = torch.zeros((), device=self.run.device)
        several = self.run.method.questions if self.run.method.look_ups else ()
        self.look_ups = {name: torch.zeros(2, device=self.run.device) for name in several}
        self.steps = 0
        self.rate = 0.0
        self._since = time.perf_counter()


def _as_answer(result: StepResult, run: Run) -> Answer:
    return Answer(result.loss, result.accuracy, result.entries, result.keys, run.method.loss_scale)


def _pairs(numbers: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _keep_until(file: Path, step: int) -> None:
    """Drops what a run logged after the checkpoint that it goes on from, so that no step stands there twice."""
    lines = health.read_lines(file) if file.exists() else []
    if lines:
        write_text(file, "".join(f"{json.dumps(line)}\n" for line in lines if line["step"] <= step))


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``a.b: value``, which every tracker accepts."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
