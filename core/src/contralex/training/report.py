"""What a run says: progress, the metrics in files and trackers, kNN figures, the final table.

The main process speaks alone: with a bar on a terminal, elsewhere with a line every half minute. Losses stay on
the device between logging periods, so that a GPU is not waited for at every step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from contralex import memory, progress, streams
from contralex.data.skipped import Skipped
from contralex.errors import remedy
from contralex.evaluation.base import PIXELS, THIS, UNTRAINED, Accuracy, EvalContext, Evaluator, NoLabels
from contralex.files import write_text
from contralex.lookup import distributed
from contralex.training import devices, health
from contralex.training.checkpoints.state import Pending
from contralex.training.notebook_bar import NotebookBar, is_notebook
from contralex.training.progress_bar import Bar

if TYPE_CHECKING:
    from contralex.lookup.slots import Encoder
    from contralex.lookup.step import LookUp
    from contralex.lookup.values import StepResult
    from contralex.training.run import Run

_LARGE = 1 << 24  # bytes that a part keeps, such as a memory bank; fewer are not worth a line


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the program: a run goes on when nobody reads what it says any more."""
        streams.discard(self.file)


class Report:
    def __init__(self, run: Run, to: Literal["stdout", "stderr"]) -> None:
        self.run = run
        # Nothing that a user has named is markup: a folder may be called [red]. In a notebook rich would show what goes
        # to either stream as a cell's result.
        self.console = _Console(stderr=to == "stderr", markup=False, emoji=False, highlight=False, force_jupyter=False)
        self.file = run.folder / "metrics.jsonl"
        bar = NotebookBar if is_notebook() else Bar
        shown = run.main and (self.console.is_terminal or bar is NotebookBar)
        self.bar = bar(self.console, run.spec.name, self.epochs, run.total, run.step, shown=shown)
        self.extra: dict[str, float | Tensor] = {}  # what plugins add
        self.since = time.perf_counter()
        self._spoke = time.monotonic()
        self._began_with = (run.step, run.seconds)
        self._absent: set[str] = set()  # figures that there are no labels for
        self.watch = health.Watch()
        self._forget()
        if run.found is not None:
            before = run.found.state.pending
            self.loss += before.loss
            self.accuracy += before.accuracy
            self.steps = before.steps

    def __enter__(self) -> Report:
        if self.run.main:
            _keep_until(self.file, self.run.step)
        if self.run.spec.train.trackers:
            self.run.accelerator.init_trackers(self.run.spec.name, config=_flat(self.run.resolved.data))
        self._introduce()
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if self.run.spec.train.trackers:
            self.run.accelerator.end_training()

    # During training

    def step(self, found: StepResult | None, rate: float) -> None:
        """``found``: None for a step that was left out."""
        if found is not None:
            self.loss += found.loss.detach()
            self.accuracy += found.accuracy
            self.steps += 1
            self.keys, self.entries = found.keys.vectors, found.entries
        self.rate = rate
        self.bar.at(self.run.step, self.epoch_of_step)

    def log(self) -> None:
        """One object in ``metrics.jsonl``: the means over the logging period and over the processes."""
        run = self.run
        if not self.steps:  # every step of the period was left out
            return
        loss, accuracy = (value / self.steps for value in self._sums())
        speed = self.steps * run.spec.train.batch_size / (time.perf_counter() - self.since)
        run.logged = {
            "step": run.step,
            "epoch": round(run.step / run.per_epoch, 4),
            "loss": loss,
            "lookup_top1": accuracy,
            "lr": self.rate,
            "images_per_second": round(speed, 1),
            **health.of_keys(self.keys, self.entries, run.method.loss_scale),
            **{name: float(value) for name, value in self.extra.items()},
        }
        self._write(run.logged)
        figures = [f"loss {loss:.3f}", f"{speed:,.0f} images/s", f"look-up {accuracy:.0%}", f"lr {self.rate:.2g}"]
        self.bar.show(figures)
        self._speak(figures)
        self.extra.clear()
        self._forget()
        for sign in self.watch.new_signs(run.logged):
            self.say(f"Warning: {sign}")

    def pending(self) -> Pending:
        """What was counted since the last line of ``metrics.jsonl``, so that a resumed run's next line is the same."""
        loss, accuracy = self._sums()
        return Pending(loss=loss, accuracy=accuracy, steps=self.steps)

    def _sums(self) -> list[float]:
        sums: list[float] = distributed.mean_over_processes(torch.stack([self.loss, self.accuracy])).tolist()
        return sums

    def epoch(self, metrics: dict[str, float | Tensor]) -> None:
        if metrics:
            numbers = {name: float(value) for name, value in metrics.items()}
            self._write({"step": self.run.step, "epoch": self.run.epoch, **numbers})
        if not self.steps:  # images/s is about training
            self.since = time.perf_counter()

    def say(self, text: str | Table) -> None:
        """On the main process. Lines are never wrapped, so that a path or a command can be copied."""
        if not self.run.main:
            return
        self._spoke = time.monotonic()
        try:
            self.console.print(text, soft_wrap=isinstance(text, str))
        except OSError as error:  # the reader is gone, or the disk behind it is full: no reason to end a run
            streams.give_up(self.console.file, error)

    def _introduce(self) -> None:
        run, train = self.run, self.run.spec.train
        processes = f"{distributed.world()} process{'es' if distributed.world() > 1 else ''}"
        steps = f"{_counted(run.total, 'step')} of {train.batch_size:,} {run.source.items}"
        steps += f", {_counted(self.epochs, 'epoch')}"
        onward = f", from step {run.step:,} on" if run.step else ""
        self.say(f"{run.spec.name} on {_device(run.device)}, {train.precision}, {processes}: {steps}{onward}")
        self.say(f"{run.spec.data.kind_name()}: {run.source.describe()}")
        for slot, amount in _kept(run.method).items():
            self.say(f"method.{slot} keeps {memory.in_words(amount)} on each process, beside the weights.")
        self.say(f"Folder: {run.folder}")

    def _speak(self, figures: list[str]) -> None:
        """Where there is no bar: a line every half minute, or every logging period where that is longer."""
        run = self.run
        if self.bar.shown or time.monotonic() - self._spoke < progress.PERIOD:
            return
        step, seconds = self._began_with
        left = (run.seconds - seconds) / (run.step - step) * (run.total - run.step)
        where = f"step {run.step:,} of {run.total:,}, epoch {self.epoch_of_step}/{self.epochs}"
        self.say(f"{where}: {', '.join([*figures[:2], f'{progress.duration(left)} left'])}")

    @property
    def epochs(self) -> int:
        """Begun before the run's last step."""
        return -(-self.run.total // self.run.per_epoch)

    @property
    def epoch_of_step(self) -> int:
        """That of the step that was taken last, from 1."""
        return max(1, -(-self.run.step // self.run.per_epoch))

    # Evaluation

    def evaluated(self, evaluator: Evaluator, encoder: Encoder | None, *, baseline: bool = False) -> Accuracy | None:
        """The encoder (None: raw pixels), or None where the data does not allow it, which is said once."""
        run = self.run
        started = time.perf_counter()
        try:
            workers = devices.workers(run.spec.train.workers, run.device.type)
            context = EvalContext(run.source, run.views, run.spec.eval.batch_size, run.device, workers)
            return evaluator.evaluate(encoder, context, baseline=baseline)
        except NoLabels as reason:
            if evaluator.silenced_by and evaluator.name not in self._absent:
                to_silence = remedy("--set", evaluator.silenced_by)
                self.say(f"No {evaluator.figure}: {reason} To silence this:{to_silence}")
            self._absent.add(evaluator.name)
            return None
        finally:
            self.since += time.perf_counter() - started  # images/s is about training

    def baselines(self, untrained: Encoder) -> dict[str, Any]:
        """What raw pixels and the encoder reach before training, by the evaluators' names."""
        found: dict[str, Any] = {}
        for evaluator in self.run.evaluators:
            if evaluator.baselines:
                subjects = {UNTRAINED: untrained, PIXELS: None}
                reached = {who: self.evaluated(evaluator, subjects[who], baseline=True) for who in evaluator.baselines}
                found[evaluator.name] = {who: asdict(each) for who, each in reached.items() if each is not None}
        return found

    # The end

    def results(self, baselines: dict[str, Any]) -> dict[str, Any]:
        run = self.run
        has_logged = run.main and self.file.exists()  # not where a plugin ended the run before its first step
        lines = health.lines_of(self.file) if has_logged else []
        losses = [line["loss"] for line in lines if "loss" in line]
        results: dict[str, Any] = {
            "name": run.spec.name,
            "digest": run.resolved.digest,
            "plugins": run.resolved.plugins,
            "processes": distributed.world(),
            "device": run.device.type,
            "precision": run.spec.train.precision,
            "steps": run.step,
            "epochs": run.epoch,
            "seconds": round(run.seconds, 1),
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "stopped": run.ending.stop,
            "skipped_steps": run.skipped_steps,
            "warnings": [*run.warnings, *self.watch.signs, *_left_out(run)],
        }
        for evaluator in run.evaluators:
            final = self.evaluated(evaluator, run.method.encoder)
            if final is not None and evaluator.has_baselines:
                results[evaluator.name] = {THIS: asdict(final), **baselines.get(evaluator.name, {})}
            elif final is not None:
                results[evaluator.name] = asdict(final)
        skipped = self._all_skipped()  # those that evaluation met, too
        return {**results, "skipped_images": sorted(skipped), "skipped_image_count": skipped.total}

    def _all_skipped(self) -> Skipped:
        everyone = Skipped()
        everyone.merge(distributed.gather_objects([self.run.split.skipped]))
        return everyone

    def summary(self, results: dict[str, Any]) -> None:
        if not self.run.main:
            return
        for path in results["skipped_images"]:
            self.say(f"skipped: {path}")
        if (count := results["skipped_image_count"]) > len(results["skipped_images"]):
            self.say(f"skipped: {count - len(results['skipped_images']):,} more")
        if count:
            self.say(f"{_counted(count, 'item')} left out: unreadable.")
        if results["skipped_steps"]:
            self.say(f"{_counted(results['skipped_steps'], 'step')} left out, because their loss was no number.")
        if results["stopped"] is not None:
            self.say(
                f"Stopped at step {results['steps']} of {self.run.total}, as {results['stopped']['by']} asked: "
                f"{results['stopped']['reason']}"
            )
        if results["first_loss"] is not None:
            self.say(
                f"{results['name']}: {_counted(results['epochs'], 'epoch')}, {_counted(results['steps'], 'step')}, "
                f"{results['seconds']:.0f} s; "
                f"loss {results['first_loss']:.3f} → {results['last_loss']:.3f}"
            )
        shown = [evaluator for evaluator in self.run.evaluators if evaluator.name in results]
        compared = {evaluator: results[evaluator.name] for evaluator in shown if evaluator.has_baselines}
        if compared:
            self.say(_table(compared))
        for evaluator in shown:
            if not evaluator.has_baselines:
                self.say(evaluator.sentence(results[evaluator.name]))
        self.say(f"Saved in {self.run.folder}. To load it in Python, to evaluate it, to see what is wrong with it:")
        self.say(self._next_steps())

    def _next_steps(self) -> str:
        run = self.run
        allow = ["--allow-code"] if run.resolved.code else []
        more = ", allow_code=True" if allow else ""
        test = run.source.test()
        data = [] if test is not None and max(test.labels or (-1,)) >= 0 else ["--data", "LABELLED_FOLDER"]
        lines = [
            f"\n  backbone = contralex.load_backbone({str(run.folder)!r}{more})",
            remedy("contralex", "eval", "knn", run.folder, *data, *allow),
            remedy("contralex", "doctor", run.folder),
        ]
        return "".join(lines).lstrip("\n")

    def _write(self, metrics: dict[str, Any]) -> None:
        if self.run.main:
            self.run.place.check()
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        if self.run.spec.train.trackers:
            self.run.accelerator.log({k: v for k, v in metrics.items() if k != "step"}, step=self.run.step)

    def _forget(self) -> None:
        self.loss = torch.zeros((), device=self.run.device)
        self.accuracy = torch.zeros((), device=self.run.device)
        self.steps = 0
        self.rate = 0.0
        self.since = time.perf_counter()


def _device(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else {"cpu": "the CPU"}.get(device.type, str(device))
    )


def _table(found: Mapping[Evaluator, Mapping[str, Any]]) -> Table:
    """``found``: for each evaluator the results by what was evaluated."""
    table = Table(title="\n".join(_title(evaluator, results) for evaluator, results in found.items()))
    table.title_justify = "left"
    table.add_column("")
    for evaluator in found:
        for heading in evaluator.columns.values():
            table.add_column(f"{evaluator.label} {heading}" if len(found) > 1 else heading, justify="right")
    for name in dict.fromkeys(name for results in found.values() for name in results):
        cells = [
            f"{100 * results[name][figure]:.1f}" if name in results else "-"
            for evaluator, results in found.items()
            for figure in evaluator.columns
        ]
        table.add_row(name, *cells)
    return table


def _title(evaluator: Evaluator, results: Mapping[str, Any]) -> str:
    protocol = results[THIS]["protocol"]
    title = f"{evaluator.settings(protocol)};\n{evaluator.samples(protocol)}"
    for name, other in ((name, result["protocol"]) for name, result in results.items()):
        if "train_of" in other or "test_of" in other:
            title += f"\n{name}: {evaluator.samples(other)}"
        if name == PIXELS and other.get("features", "pixels") != "pixels":
            title += f"\n{name}: {other['features']}"
    return title


def _kept(method: LookUp) -> dict[str, int]:
    """The slots that keep much on each process, such as a vector for each sample, with the bytes of it."""
    slots = {name: getattr(method, name) for name in ("negatives", "targets", "loss")}
    sizes = {name: sum(tensor.nbytes for tensor in part.buffers()) for name, part in slots.items()}
    return {name: size for name, size in sizes.items() if size >= _LARGE}


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _left_out(run: Run) -> list[str]:
    left_out = f"{run.skipped_steps} of {run.step} steps were left out, because their loss was no number"
    return [left_out] if run.skipped_steps else []


def _keep_until(file: Path, step: int) -> None:
    """Drops what a run logged after the checkpoint that it goes on from, so that no step stands there twice."""
    lines = health.lines_of(file) if file.exists() else []
    if lines:
        write_text(file, "".join(f"{json.dumps(line)}\n" for line in lines if line["step"] <= step))


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``a.b: value``, which every tracker accepts."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
