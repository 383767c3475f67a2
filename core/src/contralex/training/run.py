"""One run, from a resolved spec to its results: for every method and any number of processes.

Top-down: :mod:`~contralex.training.prepare` makes a run that can begin, :mod:`~contralex.training.loop` trains it, and
:mod:`~contralex.training.summary` evaluates it and says what came of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from contralex.files import write_text
from contralex.recipes.layers import Resolved
from contralex.training import devices, folders, forking, signals, warm_start
from contralex.training.display import Display
from contralex.training.evaluating import RunEvaluation
from contralex.training.failures import explain_failures
from contralex.training.fork_file import describe_fork
from contralex.training.forking import ForkStart
from contralex.training.loop import TrainingLoop
from contralex.training.metrics import Metrics
from contralex.training.prepare import prepare_run
from contralex.training.run_folder import RunFolder
from contralex.training.run_state import Run
from contralex.training.stop_errors import raise_after_the_end
from contralex.training.summary import evaluate_and_collect, show_summary


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
    fork: ForkStart | None = None,
    evaluate: bool = True,
    until_epoch: int | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Trains what the spec says, and returns the run's folder and what its ``results.json`` holds.

    ``allow_drift``: a run that is resumed may have another spec, or other versions of plugins, than when it began.
    ``to``: the stream that the run reports to. ``fork``: what a new run begins with that goes on from another one.
    ``evaluate``: whether its evaluators measure it at its end. ``until_epoch``: it pauses after this epoch with a
    checkpoint and without a summary, and goes on where it is resumed.

    Raises :class:`ContralexError` for what the user can mend, and :class:`RunStopped` after a signal.
    """
    resolved = resolved.anchored()
    with devices.close_process_group(), RunFolder(out, resolved.run.name, resume) as place:
        run = prepare_run(resolved, place, resume, allow_drift, fork, until_epoch)
        if fork is not None:
            forking.check_step(fork, run.total)
        with (
            explain_failures(run.folder),
            Metrics(run) as metrics,
            Display(run, to) as display,
            signals.defer_signals() as run.stopping.read_signal,
        ):
            evaluation = RunEvaluation(run, display, metrics)
            if run.main:
                write_text(run.folder / folders.SPEC, resolved.to_yaml())
            _say_how_it_begins(run, display, resume)
            with run.prepared.whole():
                evaluation.before_the_first_step()
                run.hooks.call("contralex_run_start", run=run)
            loop = TrainingLoop(run, metrics, display, evaluation)
            if fork is not None:
                _begin_fork(run, fork, loop, display)
            loop.train()
            return run.folder, _finish(run, metrics, display, evaluation, evaluate, until_epoch is None)


def _begin_fork(run: Run, fork: ForkStart, loop: TrainingLoop, display: Display) -> None:
    """With a checkpoint of its own, so that it can be resumed from its first moment on."""
    display.say(f"{describe_fork(fork.forked)}.")
    if run.main:
        forking.write_beginning(run, fork)
    loop.save()
    if run.main:
        forking.remove_replay(run, fork)


def _say_how_it_begins(run: Run, display: Display, resume: bool) -> None:
    if resume and not run.resumed:
        display.say(f"{run.folder} has no checkpoint yet, so the run begins with its first step.")
    for warning in run.warnings:
        display.say(f"Warning: {warning}")
    if run.spec.init is not None and run.warm_start is not None:
        display.say(warm_start.match(run.method.encoder, run.spec.init, run.warm_start).sentence())


def _finish(
    run: Run, metrics: Metrics, display: Display, evaluation: RunEvaluation, evaluate: bool, summarize: bool
) -> dict[str, Any]:
    with run.prepared.whole():
        results = evaluate_and_collect(run, metrics, evaluation, evaluate)
        run.hooks.call("contralex_run_end", run=run, results=results)
    if run.main:
        run.place.check_still_there()
        write_text(run.folder / "results.json", json.dumps(results, indent=1) + "\n")
    if summarize:
        show_summary(run, display, results)
    run.stopping.agree()
    raise_after_the_end(run)
    return results
