"""What a run says: progress, the metrics in files and trackers, kNN figures, the final table.

The main process speaks alone: with a bar on a terminal, elsewhere with a line every half minute. Losses stay on
the device between logging periods, so that a GPU is not waited for at every step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from contralex import memory, progress, streams
from contralex.data.skipped import Skipped
from contralex.errors import remedy
from contralex.evaluation.classification import Classified, evaluate_classifier
from contralex.evaluation.features import NoLabels
from contralex.evaluation.knn import PIXELS, THIS, UNTRAINED, KNNResult, evaluate_knn
from contralex.evaluation.linear import LinearResult, evaluate_linear
from contralex.files import write_text
from contralex.lookup import distributed
from contralex.training import devices, health
from contralex.training.notebook_bar import NotebookBar, is_notebook
from contralex.training.progress_bar import Bar

if TYPE_CHECKING:
    from contralex.lookup.slots import Encoder
    from contralex.lookup.step import LookUp
    from contralex.lookup.values import StepResult
    from contralex.training.run import Run

_Result = TypeVar("_Result", KNNResult, LinearResult)
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
            before = run.found.state.get("pending", {"loss": 0.0, "accuracy": 0.0, "steps": 0})
            self.loss += before["loss"]
            self.accuracy += before["accuracy"]
            self.steps = before["steps"]

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

    def pending(self) -> dict[str, float]:
        """What was counted since the last line of ``metrics.jsonl``, so that a resumed run's next line is the same."""
        loss, accuracy = self._sums()
        return {"loss": loss, "accuracy": accuracy, "steps": self.steps}

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

    def judge(self, encoder: Encoder | None, *, baseline: bool = False) -> KNNResult | None:
        """kNN of the encoder (None: of raw pixels), or None where the data has no labels, which is said once."""
        return self._judged("kNN figure", evaluate_knn, encoder, self.run.spec.eval.knn, baseline)

    def probe(self, encoder: Encoder | None, *, baseline: bool = False) -> LinearResult | None:
        """A linear probe, likewise."""
        return self._judged("linear probe", evaluate_linear, encoder, self.run.spec.eval.linear, baseline)

    def _judged(
        self, what: str, judge: Callable[..., _Result], encoder: Encoder | None, spec: Any, baseline: bool
    ) -> _Result | None:
        run = self.run
        started = time.perf_counter()
        try:
            settings = (spec, run.spec.eval.batch_size, run.device, self._workers())
            return judge(encoder, run.source, run.views, *settings, baseline=baseline)
        except NoLabels as reason:
            if what not in self._absent:
                by = "knn" if judge is evaluate_knn else "linear"
                self.say(f"No {what}: {reason} To silence this:{remedy('--set', f'eval.{by}=null')}")
            self._absent.add(what)
            return None
        finally:
            self.since += time.perf_counter() - started  # images/s is about training

    def classified(self, encoder: Encoder) -> Classified | None:
        """How often the encoder's logits are right, or None where the data has no labels to judge with."""
        run = self.run
        started = time.perf_counter()
        try:
            settings = (run.spec.eval.batch_size, run.device, self._workers())
            return evaluate_classifier(encoder, run.source, run.views, *settings)
        except NoLabels as reason:
            self.say(f"No accuracy: {reason} To silence this:{remedy('--set', 'eval.classify=null')}")
            return None
        finally:
            self.since += time.perf_counter() - started

    def _workers(self) -> int:
        return devices.workers(self.run.spec.train.workers, self.run.device.type)

    def baselines(self, untrained: Encoder) -> dict[str, Any]:
        """What raw pixels and the encoder reach before training, by ``knn`` and by ``linear``."""
        spec = self.run.spec.eval
        judged: dict[str, dict[str, KNNResult | LinearResult | None]] = {}
        if spec.knn is not None and spec.knn.baselines:
            judged["knn"] = {
                UNTRAINED: self.judge(untrained, baseline=True),
                PIXELS: self.judge(None, baseline=True),
            }
        if spec.linear is not None and spec.linear.baselines:
            judged["linear"] = {
                UNTRAINED: self.probe(untrained, baseline=True),
                PIXELS: self.probe(None, baseline=True),
            }
        return {
            by: {name: asdict(result) for name, result in found.items() if result is not None}
            for by, found in judged.items()
        }

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
        if run.spec.eval.knn is not None:
            final = self.judge(run.method.encoder)
            if final is not None:
                results["knn"] = {THIS: asdict(final), **baselines.get("knn", {})}
        if run.spec.eval.linear is not None:
            probed = self.probe(run.method.encoder)
            if probed is not None:
                results["linear"] = {THIS: asdict(probed), **baselines.get("linear", {})}
        if run.spec.eval.classify is not None:
            classified = self.classified(run.method.encoder)
            if classified is not None:
                results["classify"] = asdict(classified)
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
        if "knn" in results or "linear" in results:
            self.say(_table({by: results[by] for by in ("knn", "linear") if by in results}))
        if "classify" in results:
            found = results["classify"]
            self.say(
                f"Classified {found['protocol']['test_samples']} test samples: "
                f"top-1 {found['top1']:.1%}, top-5 {found['top5']:.1%}"
            )
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


def _table(judged: dict[str, dict[str, Any]]) -> Table:
    """``judged``: by ``knn``, ``linear`` or both; then by what was judged."""
    table = Table(title="\n".join(_title(by, found) for by, found in judged.items()))
    table.title_justify = "left"
    table.add_column("")
    for by in judged:
        for figure in ("top-1 %", "top-5 %"):
            table.add_column(f"{_NAMES[by]} {figure}" if len(judged) > 1 else figure, justify="right")
    for name in dict.fromkeys(name for found in judged.values() for name in found):
        cells = [
            f"{100 * found[name][figure]:.1f}" if name in found else "-"
            for found in judged.values()
            for figure in ("top1", "top5")
        ]
        table.add_row(name, *cells)
    return table


_NAMES = {"knn": "kNN", "linear": "linear"}


def _title(by: str, found: dict[str, Any]) -> str:
    protocol = found[THIS]["protocol"]
    features, train, test = (protocol[name] for name in ("features", "train_samples", "test_samples"))
    if by == "knn":
        settings, purpose = f"weighted kNN: k={protocol['k']}, temperature {protocol['temperature']}", "look among"
    else:
        scaled = ", standardised" if protocol["standardize"] else ""
        settings, purpose = f"linear probe: weight decay {protocol['weight_decay']:g}{scaled}", "learn from"
        if not protocol["converged"]:
            settings += f", not converged in {protocol['iterations']} iterations (raise eval.linear.iterations)"
    title = f"{settings}, {features};\n{train} to {purpose}, {test} to judge"
    for name, other in ((name, result["protocol"]) for name, result in found.items()):
        if "train_of" in other or "test_of" in other:
            title += f"\n{name}: {other['train_samples']} to {purpose}, {other['test_samples']} to judge"
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
