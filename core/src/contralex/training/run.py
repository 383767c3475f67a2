"""One run, from a resolved spec to its results: top-down, for every method and any number of processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from torch import Tensor

from contralex import compat
from contralex.data.base import Source
from contralex.data.loading import Batch, ViewDataset, collate
from contralex.errors import ContralexError, command_to_resume
from contralex.evaluation.evaluators import evaluators
from contralex.files import write_text
from contralex.lookup import batch_norm, distributed, sharded_state
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Step, StepResult
from contralex.recipes import delays
from contralex.recipes.code_files import used_plugins
from contralex.recipes.layers import Resolved
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import check_counts, check_share
from contralex.training import (
    build,
    devices,
    failures,
    health,
    memory_checks,
    optimizers,
    rehearsal,
    resuming,
    run_folder,
    setup,
    signals,
    warm_start,
)
from contralex.training.batches import batches
from contralex.training.checkpoints import read, retention, write
from contralex.training.checkpoints.state import CheckpointState
from contralex.training.hook_calls import LifeCycle
from contralex.training.image_check import check_images
from contralex.training.report import Report
from contralex.training.stopping import Ending

_SKIPPED = 10  # steps in a row, after which leaving them out is no help


class Stopped(ContralexError):
    """The run was asked to stop by a signal; its checkpoint is written. The exit code is 128 + the signal's number."""

    on_every_process = True

    def __init__(self, sentence: str, signal: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signal


class BadLoss(ContralexError):
    """The loss is no number, or a step blew the weights up; the checkpoints from before are whole."""

    exit_code = 1
    on_every_process = True


class HookFailed(ContralexError):
    """A plugin's hook raised, and the run has stopped for it; its checkpoint is written."""

    exit_code = 1
    on_every_process = True


class Refused(ContralexError):
    """A plugin's hook has found a mistake of the user's, and the run has stopped for it."""

    on_every_process = True


class Run:
    """A run while it lasts. Life-cycle hooks get it.

    For them are ``spec``, ``method``, ``optimizer``, ``step`` of ``total``, ``epoch``, ``folder``, ``device``, ``main``
    (whether this is the main process), ``logged`` (the figures logged last, on every process), and :meth:`stop`.
    """

    def __init__(self, resolved: Resolved, place: setup.RunFolder, resume: bool, allow_drift: bool = False) -> None:
        self.resolved = resolved
        self.spec: RunSpec = resolved.run
        train = self.spec.train
        cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
        self.main = PartialState(cpu=cpu).is_main_process  # opens the process group
        check_share(train.batch_size, distributed.world())
        devices.check_workers(train.workers)
        setup.check_precision(self.spec, cpu)
        self.place = place
        place.look(self.main)
        self.accelerator = setup.accelerator(self.spec, cpu)
        self.device = self.accelerator.device
        self.found = read.find(place.out) if resume and place.out is not None else None
        self.drift: list[dict[str, Any]] = []  # what was allowed to differ from what the run was started with, and when
        if self.found is not None:
            self.drift = resuming.check(self.found, resolved, allow_drift, say=self.main)

        with self.accelerator.local_main_process_first():  # it may download or unpack what the others then read
            self.source: Source = build.read_source(self.spec.data)
        self.accelerator.wait_for_everyone()  # the others ask the main process what it found
        self.views = self.spec.method.views.build()
        self.split = self.source.train()
        self.samples = resuming.samples_of(self.split)
        if self.found is not None:
            self.drift += resuming.check_samples(self.found, self.samples, allow_drift)
        population = len(self.split)
        check_counts(self.spec, population, distributed.world(), _where(self.spec))
        self.per_epoch = population // train.batch_size
        self.total = self.per_epoch * train.epochs
        if train.max_steps is not None:
            self.total = min(self.total, train.max_steps)
        self.warnings = delays.too_long(self.spec, self.total / self.per_epoch)

        fresh, init = self.found is None, self.spec.init
        self.start = warm_start.open_start(init) if init is not None and fresh else None
        labels = self.split.labels
        self.method: LookUp = build.look_up(self.spec, population, labels, fresh=fresh, start=self.start)
        memory_checks.check_training(self.spec, self.method, self.device)
        views = self._two_samples()
        memory_checks.check_batch(self.spec, views, devices.workers(train.workers, self.device.type))
        with memory_checks.made_ready(self.spec, views):
            check_images(self.spec, self.method, self.views, self.split)
            self.method.to(self.device)
            with self.accelerator.autocast():
                rehearsal.rehearse(self.method, views, self.spec, population, self.device)
        batch_norm.convert(self.method, train.batch_norm, self.device.type)
        self.optimizer = optimizers.build(train.optimizer, self.method)
        self.step = 0
        self.seconds = 0.0  # of training, over all starts of this run
        self.baselines: dict[str, Any] = {}
        if self.found is not None:
            write.restore(self.found, self.method, self.optimizer, self._fitting)
            self.step = self.found.step
            self.seconds = self.found.state.seconds
            self.baselines = self.found.state.baselines
        # Prepared after loading, so that what Accelerate wraps has its final tensors.
        with compat.broadcast_buffers_argument():
            self.model, self.prepared = self.accelerator.prepare(self.method, self.optimizer)
        scaler = self.accelerator.scaler
        if self.found is not None and scaler is not None:
            scaler.load_state_dict(self.found.state.scaler)
        self.plugins = resuming.plugins_of(self.found, resolved)
        self.ending = Ending()
        used = used_plugins(self.plugins, resolved.code)
        self.evaluators = evaluators(self.spec, used)
        own = [f"{evaluator.name}_top1" for evaluator in self.evaluators]
        self.hooks = LifeCycle(used, self.ending, train.on_hook_error, own)
        self.logged: dict[str, float] = {}
        self.saved_at = self.found.step if self.found is not None else None
        self.skipped_steps = self.found.state.skipped_steps if self.found is not None else 0
        self.skipped_in_a_row = 0
        self.folder = place.take(self.main)  # last, so that a run that cannot begin leaves no folder
        setup.begin_in(self.accelerator, self.folder)

    def _two_samples(self) -> dict[int, Tensor]:
        spec = self.spec.train
        dataset = ViewDataset(self.split, self.views, spec.seed, spec.batch_size)
        first = dataset.order.of(0)[:2].tolist()
        return collate([dataset[0, index] for index in (first[0], first[-1])])["views"]

    @property
    def epoch(self) -> int:
        return self.step // self.per_epoch

    def clock(self) -> Clock:
        return Clock(self.step, self.total, self.per_epoch)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the run's forward passes are computed."""
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    def epoch_batches(self, epoch: int, views: Sequence[int] | None = None) -> Iterator[Batch]:
        """This process's part of the batches of one epoch, counted from 0, on the run's device. They are for
        a plugin's pass over the training data. ``views``: those that are made; None: all.

        Between batches BatchNorm's running statistics become the mean over processes, as after a step of training.
        """
        train, start = self.spec.train, epoch * self.per_epoch
        for batch in batches(
            self.split, self.views, train, self.device, epochs=epoch + 1, start_step=start, only=views
        ):
            yield {
                "index": batch["index"].to(self.device),
                "views": {view: inputs.to(self.device) for view, inputs in batch["views"].items()},
                "unreadable": batch["unreadable"],
            }
            batch_norm.average_running_statistics(self.method)

    def _fitting(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors as this process has them: a queue of another size, and the own parts of what is shared
        out. A checkpoint knows nothing of processes."""
        return sharded_state.select_own_state(
            self.method, resuming.resized(tensors, self.method) if self.drift else tensors
        )

    def stop(self, reason: str) -> None:
        """Asks the run to end well before its last step: it evaluates, saves a checkpoint and writes its results.

        On several processes one may ask for all; they stop together, at the end of the step.
        """
        self.ending.ask(self.hooks.calling or "the caller", reason)


def train(
    resolved: Resolved,
    out: Path | None = None,
    resume: bool = False,
    allow_drift: bool = False,
    to: Literal["stdout", "stderr"] = "stdout",
) -> dict[str, Any]:
    """Trains what the spec says, and returns what ``results.json`` holds; otherwise as :func:`train_in_folder`."""
    return train_in_folder(resolved, out, resume, allow_drift, to)[1]


def train_in_folder(
    resolved: Resolved,
    out: Path | None = None,
    resume: bool = False,
    allow_drift: bool = False,
    to: Literal["stdout", "stderr"] = "stdout",
) -> tuple[Path, dict[str, Any]]:
    """Trains what the spec says, and returns the run's folder and what its ``results.json`` holds.

    ``allow_drift``: a run that is resumed may have another spec, or other versions of plugins, than when it began.
    ``to``: the stream that the run reports to.

    Raises :class:`ContralexError` for what the user can mend, and :class:`Stopped` after a signal.
    """
    resolved = resolved.anchored()
    with devices.process_group_closed(), setup.RunFolder(out, resolved.run.name, resume) as place:
        run = _opened(resolved, place, resume, allow_drift)
        with failures.told(run.folder), Report(run, to) as report, signals.noticed() as run.ending.signalled:
            if run.main:
                write_text(run.folder / run_folder.SPEC, resolved.to_yaml())
            if resume and run.found is None:
                report.say(f"{run.folder} has no checkpoint yet, so the run begins with its first step.")
            for warning in run.warnings:
                report.say(f"Warning: {warning}")
            if run.spec.init is not None and run.start is not None:
                report.say(warm_start.match(run.method.encoder, run.spec.init, run.start).sentence())
            _baselines(run, report)
            run.hooks.call("contralex_run_start", run=run)
            _agree(run, report)
            _train(run, report)
            results = _finish(run, report)
        return run.folder, results


def _opened(resolved: Resolved, place: setup.RunFolder, resume: bool, allow_drift: bool) -> Run:
    try:
        return Run(resolved, place, resume, allow_drift)
    except ContralexError as error:
        error.on_every_process = True
        raise


def _train(run: Run, report: Report) -> None:
    spec = run.spec.train
    if run.step >= run.total:
        report.say(f"This run is complete: {run.total} steps of {run.total}.")
        return
    run.model.train()
    began = time.perf_counter()
    before = run.seconds
    for batch in [] if run.ending.stop else _batches(run):
        for path, reason in batch["unreadable"].items():
            run.split.skip(path, reason)
        clock = run.clock()
        rate = optimizers.set_rates(run.optimizer, spec.optimizer, clock, spec.batch_size)
        with memory_checks.trained(run.spec, lambda: run.step + 1):
            found = _step(run, batch, clock)
        run.step += 1
        run.seconds = before + time.perf_counter() - began
        report.step(found, rate)
        run.hooks.call("contralex_step_end", run=run, metrics=report.extra)
        run.ending.agree()
        if not run.ending.bad_loss and (run.step % spec.log_every == 0 or run.step == run.total):
            report.log()
        _leave_if_agreed(run, report)
        if run.step % run.per_epoch == 0:
            _epoch_ends(run, report)
        elif _is_due_by_steps(run):
            save(run, report)
        if run.step % run.per_epoch == 0 or _is_due_by_steps(run):
            _agree(run, report)
            # Evaluation and saving are not training.
            began = time.perf_counter()
            before = run.seconds
        if run.ending.stop or run.step >= run.total:
            break
    if run.saved_at != run.step:  # stopped between two checkpoints
        if report.steps:
            report.log()
        save(run, report)


def _agree(run: Run, report: Report) -> None:
    """Whether the run goes on; all processes are here."""
    run.ending.agree()
    _leave_if_agreed(run, report)


def _leave_if_agreed(run: Run, report: Report) -> None:
    """After a signal, a bad loss, or a hook that failed."""
    if not run.ending.now:
        return
    if run.ending.bad_loss:
        raise _diverged(run, run.ending.bad_loss)
    if run.ending.mistake and run.step == 0:  # nothing is trained yet, so there is nothing to save
        raise Refused(run.ending.mistake)
    if run.saved_at != run.step:
        save(run, report)
    where = f"step {run.step} of {run.total}, saved as {run.folder / 'checkpoints' / f'step-{run.step}'}"
    allow = ["--allow-code"] if run.resolved.code else []
    onward = command_to_resume(run.folder, *allow)
    if run.ending.signal:
        raise Stopped(f"Stopped at {where}; go on with:{onward}", run.ending.signal)
    if run.ending.mistake:
        raise Refused(f"{run.ending.mistake}\nThe run stopped at {where}; mend this, then go on with:{onward}")
    raise HookFailed(
        f"{run.ending.failure}. The run stopped at {where}; mend the plugin, then go on, or go on whatever the hook "
        f"does:{onward}" + command_to_resume(run.folder, *allow, "--set", "train.on_hook_error=warn")
    )


def _diverged(run: Run, what: str) -> BadLoss:
    """``what`` is seen after the step before this one, or after this one where it is about to be saved."""
    saved = run.folder / "checkpoints"
    steps = [int(path.name.removeprefix("step-")) for path in read.steps(saved)] if saved.is_dir() else []
    with_these = run.step - 1 in steps and run.saved_at == run.step - 1 and bool(run.ending.bad_loss)
    before = max((step for step in steps if step < run.step - with_these), default=None)
    last = f"step-{before}, from before, is whole" if before is not None else "none was written yet"
    if with_these:  # to go on from it would end in the same way
        last = f"step-{run.step - 1} has the weights that gave this loss; " + last.replace("yet", "before it")
    skip = "" if run.spec.train.on_bad_loss == "skip" else ", or leave such steps out with train.on_bad_loss=skip"
    return BadLoss(
        f"{what}; lower train.optimizer.lr, train in fp32 or bf16, or set train.clip{skip}. "
        f"Checkpoints in {run.folder}: {last}."
    )


def _step(run: Run, batch: Batch, clock: Clock) -> StepResult | None:
    """Look up, backward, the optimiser's step, and then what changes after it, once. None where it was left out."""
    spec = run.spec.train
    before = _forward_state(run.method) if spec.on_bad_loss == "skip" else {}
    moment = Step(clock, spec.seed, spec.batch_size)
    views = {view: images.to(run.device, non_blocking=True) for view, images in batch["views"].items()}
    found: StepResult = run.model(views, batch["index"].to(run.device, non_blocking=True), moment)
    is_bad = not bool(torch.isfinite(found.loss))
    if spec.on_bad_loss == "skip" and run.ending.any_of(is_bad):
        for buffer, value in before.items():
            buffer.copy_(value)
        _skip(run)
        return None
    run.skipped_in_a_row = 0
    if is_bad:  # the other processes wait for this one's backward; they are told after the step
        run.ending.lose(_bad_loss(run, float(found.loss.detach()), batch["index"]))
    run.accelerator.backward(found.loss)
    optimizers.drop_frozen_gradients(run.optimizer, clock)
    if spec.clip is not None and spec.clip_each:
        run.accelerator.unscale_gradients()
        optimizers.clip_each(run.method.parameters(), spec.clip)
    elif spec.clip is not None:
        run.accelerator.clip_grad_norm_(run.method.parameters(), spec.clip)
    run.prepared.step()
    run.prepared.zero_grad()
    if not run.accelerator.optimizer_step_was_skipped:  # fp16 skips a step whose gradient overflowed
        run.method.update(found.keys, moment)
    batch_norm.average_running_statistics(run.method)
    return found


def _skip(run: Run) -> None:
    """Counts a step that is left out. That helps against one bad batch, and not against bad weights."""
    run.skipped_steps += 1
    run.skipped_in_a_row += 1
    if bad := health.blown_up(run.method.state_dict()):
        run.ending.lose(f"the weights are not finite before step {run.step + 1} ({_listed(bad)}), and so is no loss")
    elif run.skipped_in_a_row == _SKIPPED:
        run.ending.lose(f"the loss was no number in {_SKIPPED} steps in a row, up to step {run.step + 1}")


def _listed(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more tensors" if len(names) > 1 else "")


def _forward_state(method: LookUp) -> dict[Tensor, Tensor]:
    """What a forward pass writes: running statistics, a normaliser. (A negative source writes after the step alone.)"""
    return {buffer: buffer.clone() for name, buffer in method.named_buffers() if not name.startswith("negatives.")}


def _bad_loss(run: Run, loss: float, index: Tensor) -> str:
    samples = ", ".join(str(number) for number in index.tolist())
    whose = f" on process {distributed.rank()}" if distributed.world() > 1 else ""
    return f"the loss{whose} is {loss} at step {run.step + 1}, of the samples {samples}"


def _is_due_by_steps(run: Run) -> bool:
    every = run.spec.train.checkpoint.every_steps
    return every is not None and run.step % every == 0


def _epoch_ends(run: Run, report: Report) -> None:
    spec = run.spec
    metrics: dict[str, float | Tensor] = {}
    for evaluator in run.evaluators:
        if evaluator.every and run.epoch % evaluator.every == 0 and run.step < run.total:
            found = report.evaluated(evaluator, run.method.encoder)
            if found is not None:
                metrics[f"{evaluator.name}_top1"] = found.top1
    run.hooks.call("contralex_epoch_end", run=run, epoch=run.epoch, metrics=metrics)
    report.epoch(metrics)
    if run.epoch % spec.train.checkpoint.every == 0 or _is_due_by_steps(run) or run.step == run.total:
        save(run, report, metrics)
    run.model.train()


def save(run: Run, report: Report, metrics: Mapping[str, float | Tensor] | None = None) -> Path:
    """A checkpoint of this moment. Every process takes part, and the main one writes. ``metrics``: the epoch's."""
    pending = report.pending()
    tensors = sharded_state.gather_state(run.method)
    bad = [*health.blown_up(tensors), *health.blown_up(write.flat(run.optimizer)[0])] if run.main else []
    if run.ending.any_of(bool(bad)):
        raise _diverged(run, f"the weights are not finite after step {run.step} ({_listed(bad) if bad else ''})")
    saved = run.folder / "checkpoints"
    target = saved / f"step-{run.step}"
    if run.main:
        run.place.check()
        scaler = run.accelerator.scaler
        state = CheckpointState.make(
            run.resolved,
            run.step,
            {**run.logged, **{name: float(value) for name, value in (metrics or {}).items()}},
            seconds=run.seconds,
            baselines=run.baselines,
            scaler=scaler.state_dict() if scaler is not None else None,
            skipped_steps=run.skipped_steps,
            pending=pending,
            epoch=run.step / run.per_epoch,
            drift=run.drift,
            samples=run.samples,
            plugins=run.plugins,
        )
        written = write.save(saved, state, tensors, run.optimizer)
        retention.prune(saved, run.spec.train.checkpoint, run.step, written)
        run.hooks.call("contralex_checkpoint", run=run, folder=str(target))
    run.saved_at = run.step
    run.accelerator.wait_for_everyone()
    return target


def _baselines(run: Run, report: Report) -> None:
    """What raw pixels and the untrained encoder reach, before the first step; once in a run's life."""
    if run.found is None and any(evaluator.baselines for evaluator in run.evaluators):
        run.baselines = report.baselines(build.encoder(run.spec).to(run.device))


def _finish(run: Run, report: Report) -> dict[str, Any]:
    results = report.results(run.baselines)
    run.hooks.call("contralex_run_end", run=run, results=results)
    if run.main:
        run.place.check()
        write_text(run.folder / "results.json", json.dumps(results, indent=1) + "\n")
    report.summary(results)
    run.ending.agree()
    if run.ending.mistake:
        raise Refused(f"{run.ending.mistake}\nThe run itself is over, and its results are in {run.folder}.")
    if run.ending.failure:
        raise HookFailed(f"{run.ending.failure}. The run itself is over, and its results are in {run.folder}.")
    return results


def _batches(run: Run) -> Iterator[Batch]:
    """This process's part of every global batch from the present step to the end of the run."""
    train = run.spec.train
    devices.set_threads(devices.workers(train.workers, run.device.type), run.device.type)
    with memory_checks.trained(run.spec, lambda: run.step + 1):
        yield from batches(run.split, run.views, train, run.device, epochs=train.epochs, start_step=run.step)


def _where(spec: RunSpec) -> str:
    kind, origin = spec.data.kind_name(), spec.data.read_from()
    return f"{kind} in {origin}" if origin else kind
