"""The loop of a run: step after step, and between them what is logged, evaluated, saved and agreed on.

Its order is what all processes share: each collective is reached by all of them, in the same place.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext

from torch import Tensor

from contralex.data.loading import Batch
from contralex.lookup import batch_norm, sharded_state
from contralex.training import health, memory_checks, optimizers, threads
from contralex.training.batches import batches
from contralex.training.checkpoints import retention, write
from contralex.training.display import Display
from contralex.training.evaluating import RunEvaluation
from contralex.training.metrics import Metrics
from contralex.training.run_state import Run
from contralex.training.stop_errors import RefusedByHook, bad_loss_error, stopped_error
from contralex.training.train_step import take_step


class TrainingLoop:
    """Takes a run from its present step to its last, or to the one at which it stops."""

    def __init__(self, run: Run, metrics: Metrics, display: Display, evaluation: RunEvaluation) -> None:
        self.run = run
        self.metrics = metrics
        self.display = display
        self.evaluation = evaluation

    def train(self) -> None:
        """Saves a checkpoint at its end, too. Raises where the run is to stop at once."""
        run = self.run
        self.stop_if_agreed()  # before the first step: a signal, or a hook that failed
        if run.step >= run.total:
            self.display.say(f"This run is complete: {run.total} steps of {run.total}.")
            return
        if run.until is not None and run.step >= run.until:  # it was stopped where it was to pause
            return
        run.prepared.wrapped_method.train()
        began, before = time.perf_counter(), run.progress.seconds
        for batch in [] if run.stopping.stop else self._batches():
            self._step(batch, before - began)
            if run.ends_epoch:
                self._end_epoch()
            elif self._is_due_by_steps():
                self.save()
            if run.ends_epoch or self._is_due_by_steps():
                self.stop_if_agreed()
                # Evaluation and saving are not training.
                began, before = time.perf_counter(), run.progress.seconds
            if run.stopping.stop or run.step >= run.total:
                break
        if run.progress.saved_at != run.step:  # stopped between two checkpoints
            if self.metrics.steps and run.step != run.until:  # what goes on from here logs what its parent did
                self._log()
            self.save()

    def stop_if_agreed(self) -> None:
        """Asks all processes whether the run goes on. All are here."""
        self.run.stopping.agree()
        self._stop_at_once()

    def _batches(self) -> Iterable[Batch]:
        """This process's part of every global batch from the present step to the end of the run."""
        run, train = self.run, self.run.spec.train
        made = batches(run.split, run.views, train, run.device, epochs=train.epochs, start_step=run.step)
        with memory_checks.explain_batch_memory(run.spec, lambda: run.step + 1):
            yield from threads.with_fastest(made, run, self.display.say)

    def _step(self, batch: Batch, seconds_before: float) -> None:
        """``seconds_before``: of training until now, less the present time."""
        run, train = self.run, self.run.spec.train
        for path, reason in batch["unreadable"].items():
            run.split.skip(path, reason)
        clock = run.clock()
        rate = optimizers.set_rates(run.optimizer, train.optimizer, clock, train.batch_size)
        with memory_checks.explain_step_memory(run.spec, run.step + 1):
            result = take_step(run, batch, clock)
        run.progress.step += 1
        if run.step == run.until:
            by = "contralex fork" if run.progress.forked is not None else "contralex adapt"
            run.stopping.ask(by, f"it has the steps that were asked for, up to {run.step}")
        run.progress.seconds = seconds_before + time.perf_counter()
        self.metrics.add_step(result, rate)
        self.display.advance()
        self._call_step_hooks()
        is_logged = run.step % train.log_every == 0 or run.step == run.total
        if is_logged:
            self._log()
        elif run.ends_epoch or self._is_due_by_steps() or run.step == run.until:
            self._settle()
        else:
            run.loss_check.read(wait=False)
            run.stopping.agree_later()
        self._stop_at_once()

    def _call_step_hooks(self) -> None:
        run = self.run
        uses_encoders = run.hooks.use_encoders_after_steps
        if uses_encoders:
            self._average_statistics()
        with run.prepared.whole() if uses_encoders else nullcontext():
            run.hooks.call("contralex_step_end", run=run, metrics=self.metrics.added)

    def _log(self) -> None:
        """A line, where no loss until now was bad. All are here. The device is waited for once, for the line's numbers:
        what tells whether a loss was bad was sent before them, and has arrived with them."""
        line = self.metrics.make_line()
        self._settle()
        if line is None or self.run.stopping.bad_loss:
            return
        self.metrics.log(line)
        self.display.show(line)
        for sign in self.metrics.watch.new_signs(line):
            self.display.say(f"Warning: {sign}")

    def _average_statistics(self) -> None:
        """BatchNorm's, over the processes, before somebody uses or saves them. A step of training writes them and never
        reads them, and they are linear in the batches' statistics, so one average is that of all steps before it."""
        batch_norm.average_running_statistics(self.run.method)

    def _end_epoch(self) -> None:
        run = self.run
        self._average_statistics()
        with run.prepared.whole():
            metrics: dict[str, float | Tensor] = {**self.evaluation.between_epochs()}
            run.hooks.call("contralex_epoch_end", run=run, epoch=run.epoch, metrics=metrics)
        self.metrics.log_epoch(metrics)
        is_due = run.epoch % run.spec.train.checkpoint.every == 0 or self._is_due_by_steps()
        if is_due or run.step == run.total:
            self.save(metrics)
        run.prepared.wrapped_method.train()

    def _is_due_by_steps(self) -> bool:
        every = self.run.spec.train.checkpoint.every_steps
        return every is not None and self.run.step % every == 0

    def _stop_at_once(self) -> None:
        """After a signal, a bad loss, or a hook that failed, on which all processes have agreed."""
        run = self.run
        if not run.stopping.at_once:
            return
        if run.stopping.bad_loss:
            raise bad_loss_error(run, run.stopping.bad_loss)
        if run.stopping.mistake and run.step == 0:  # nothing is trained yet, so there is nothing to save
            raise RefusedByHook(run.stopping.mistake)
        if run.progress.saved_at != run.step:
            self.save()
        raise stopped_error(run)

    def _settle(self) -> None:
        """Every process knows of every loss until now whether it was bad: a bad one is neither logged nor saved. All
        are here."""
        self.run.loss_check.read(wait=True)
        self.run.stopping.agree()

    def _check_losses(self) -> None:
        """Raises where a loss until now was bad. Every process calls this."""
        self._settle()
        if self.run.stopping.bad_loss:
            raise bad_loss_error(self.run, self.run.stopping.bad_loss)

    def save(self, metrics: Mapping[str, float | Tensor] | None = None) -> None:
        """A checkpoint of this moment. Every process takes part, and the main one writes. ``metrics``: the epoch's."""
        run = self.run
        self._check_losses()
        self._average_statistics()
        pending = self.metrics.pending()
        tensors = sharded_state.gather_state(run.method)
        kept = run.prepared.gather_optimizer()
        bad = [*health.blown_up(tensors), *health.blown_up(write.flatten_optimizer(kept)[0])] if run.main else []
        if run.stopping.is_any(bool(bad)):
            found = health.name_some(bad) if bad else ""
            raise bad_loss_error(run, f"the weights are not finite after step {run.step} ({found})")
        if run.main:
            run.place.check_still_there()
            folder = run.folder / "checkpoints"
            figures = {name: float(value) for name, value in (metrics or {}).items()}
            values, kept_by_hooks = run.hooks.collect_state()
            written = write.save(folder, run.checkpoint_state(pending, figures, values), tensors, kept, kept_by_hooks)
            retention.prune(folder, run.spec.train.checkpoint, run.step, written)
            run.hooks.call("contralex_checkpoint", run=run, folder=str(written))
        run.progress.saved_at = run.step
        run.accelerator.wait_for_everyone()
