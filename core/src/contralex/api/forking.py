"""Forking a run: the same batches and views from one of its steps on, with some values changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.launching import Stream, check_processes, is_launched, is_main, train_launched
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.comparison.difference import DIFFERENCE, FIGURE, difference, sentences, table, write_difference
from contralex.errors import ContralexError
from contralex.files import expand_user, read_json
from contralex.recipes.code_files import permission
from contralex.recipes.layers import Resolved
from contralex.recipes.layers import resolve as resolve_recipe
from contralex.training import folders, forking
from contralex.training.checkpoints import read
from contralex.training.checkpoints.state import Forked
from contralex.training.folders import SPEC
from contralex.training.fork_check import check_fits
from contralex.training.fork_file import read_fork
from contralex.training.forking import REPLAY, ForkStart


@dataclass(frozen=True, repr=False)
class Fork(os.PathLike[str]):
    """A fork and how it differs from its parent. It prints as a table, and a notebook shows its figure.

    ``folder``: the fork's, a run as any other: every function that takes a run takes this object.
    ``difference``: what ``difference.json`` holds; ``rows`` are the figures of both at each step that both logged.

    >>> import contralex
    >>> changed = {"method.loss.temperature": 0.2}
    >>> fork = contralex.fork("runs/my-run", 1, sets=changed, out="runs/warmer", evaluate=False)
    >>> fork.changes
    {'method.loss.temperature': '0.1 → 0.2'}
    """

    folder: Path
    difference: dict[str, Any]

    @property
    def changes(self) -> dict[str, str]:
        """What was changed, by path."""
        return dict(self.difference["changes"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict for each step that both logged: ``step``, and the figures of ``parent`` and of ``fork``."""
        return list(self.difference["rows"])

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __repr__(self) -> str:
        headings, rows = table(self.difference)
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [headings, *rows]
        ]
        return "\n".join([_title(self.difference), *(lines if rows else []), *sentences(self.difference)])

    def _repr_svg_(self) -> str | None:
        file = self.folder / FIGURE
        return file.read_text("utf-8") if file.is_file() else None


@checked
def fork(
    run: PathLike,
    step: int | None = None,
    *,
    sets: Sets = None,
    steps: int | None = None,
    data: PathLike | None = None,
    out: PathLike | None = None,
    processes: int = 1,
    evaluate: bool = True,
    allow_code: bool = False,
) -> Fork:
    """Go on from a step of a run with the same batches and views and some values changed, and compare the two.

    ``run``: a run's folder; ``step``: the step, which may also stand behind an @: ``"runs/my-run@100"``. ``sets``: what
    is changed; without it, the fork is equal to the run, to the bit. ``steps``: how many the fork has; without it,
    it ends where its parent does. ``data``: where the data lie now, if they have moved. ``out``: the fork's folder;
    without it ``runs/NAME-fork-TIME``. ``evaluate``: whether the evaluators of the run measure the fork at its end.

    Where the run has no checkpoint of the step, the steps since the one before it are computed again first.

    >>> import contralex
    >>> fork = contralex.fork("runs/my-run@1", sets={"method.loss.temperature": 0.2}, out="runs/fork")
    >>> [row["step"] for row in fork.rows]
    [2]
    """
    check_processes(processes)
    path, step = split_step(str(path_text(run)), step)
    folder = choose_folder(path) if out is None else expand_user(str(path_text(out)))
    options = ForkOptions(path, step, folder, tuple(set_texts(sets)), steps, path_text(data), evaluate, allow_code)
    with progress.listening("stderr"):
        return run_fork(options, processes, "stderr")


def split_step(text: str, step: int | None = None) -> tuple[Path, int]:
    """The folder and the step of ``RUN@STEP``, or of a checkpoint's folder."""
    folder, at, number = text.rpartition("@")
    if step is None and at and number.isdecimal() and len(number) < 18:
        return expand_user(folder), int(number)
    path = expand_user(text)
    if step is None and path.name.startswith("step-") and read.names_a_step(path):
        return read.run_folder(path), int(path.name.removeprefix("step-"))
    if step is None:
        raise ContralexError(f"fork: say from which step of {text} on, such as {text}@100. {_listed(path)}")
    if step < 0:
        raise ContralexError(f"fork: step {step} is before the first; the first is 0")
    return path, step


def choose_folder(run: Path) -> Path:
    """Of a fork without ``--out``: a name that is free."""
    folder = folders.name_by_time(f"{run.absolute().name}-fork")
    names = (folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not os.path.lexists(name))


@dataclass(frozen=True)
class ForkOptions:
    """What ``contralex fork`` is told, beside how many processes there are."""

    run: Path
    step: int
    out: Path
    sets: Sequence[str] = ()
    steps: int | None = None
    data: str | None = None
    evaluate: bool = True
    allow_code: bool = False

    def resolve(self) -> tuple[Resolved, ForkStart]:
        """The spec of the fork, and what it begins with. Refuses what cannot be forked."""
        if not (self.run / SPEC).is_file():
            raise ContralexError(f"fork: {self.run} is no run's folder, for it has no {SPEC}; give the folder of --out")
        if self.steps is not None and self.steps < 1:
            raise ContralexError(f"fork: --steps is {self.steps}; a fork has at least one step")
        checkpoint = forking.find_checkpoint(self.run, self.step)
        with permission(self.allow_code):
            if checkpoint is not None:
                before, after = checkpoint.resolved(), checkpoint.resolved(data=self.data, sets=self.sets)
            else:
                spec = str(self.run / SPEC)
                before, after = resolve_recipe(spec), resolve_recipe(spec, data=self.data, sets=self.sets)
        changes = forking.check_changes(before, after)
        forked = Forked(run=str(self.run.absolute()), step=self.step, digest=before.digest, changes=changes)
        start = ForkStart(self.run, checkpoint, self._of_original(forked), self._threads(), self._until())
        return after, start

    def is_there(self, start: ForkStart) -> bool:
        """Whether the run's state at the step is known, and need not be computed again."""
        return (0 if start.checkpoint is None else start.checkpoint.step) == self.step

    def command(self) -> list[str]:
        """The words of ``contralex fork``, for each process."""
        given = {"--out": self.out, "--steps": self.steps, "--data": self.data}
        words = [f"{name}={value}" for name, value in given.items() if value is not None]
        flags = [*([] if self.evaluate else ["--no-eval"]), *(["--allow-code"] if self.allow_code else [])]
        return ["fork", *words, *(f"--set={text}" for text in self.sets), *flags, "--", f"{self.run}@{self.step}"]

    def _until(self) -> int | None:
        return None if self.steps is None else self.step + self.steps

    def _of_original(self, forked: Forked) -> Forked:
        """A fork of its parent's steps computed again is a fork of the parent."""
        replayed = read_fork(self.run) if self._is_replay() else None
        if replayed is None:
            return forked
        return forked.model_copy(
            update={"run": replayed.run, "digest": replayed.digest, "recomputed_from": replayed.step}
        )

    def _is_replay(self) -> bool:
        return self.run.absolute() == (self.out / REPLAY).absolute()

    def _threads(self) -> int | None:
        newest = forking.find_checkpoint(self.run, 2**60)
        return None if newest is None else newest.state.threads


def run_fork(options: ForkOptions, processes: int, to: Stream) -> Fork:
    """Train a fork, in this process or in several, and compare it with its parent."""
    options, resolved, start = prepare_fork(options, processes, to)
    if processes == 1 or is_launched():
        return _train_here(options, resolved, start, to)
    train_launched(options.command(), options.out, processes, to)
    return Fork(options.out, read_json(options.out / DIFFERENCE))


def prepare_fork(options: ForkOptions, processes: int, to: Stream) -> tuple[ForkOptions, Resolved, ForkStart]:
    """Resolve a fork, and where its parent has no checkpoint of the step, compute the steps before it again."""
    resolved, start = options.resolve()
    if options.is_there(start):
        return options, resolved, start
    if is_launched():
        raise ContralexError(
            f"fork: {options.run} has no checkpoint of step {options.step}, and processes that something else has "
            f"launched do not compute the steps before it again; fork it with --processes. {_listed(options.run)}"
        )
    if start.checkpoint is not None:
        with permission(options.allow_code):
            check_fits(resolved, start)
    options = replace(options, run=_replay(options, start, processes, to))
    return options, *options.resolve()


def _replay(options: ForkOptions, start: ForkStart, processes: int, to: Stream) -> Path:
    """The folder of the parent's steps, computed again with its own spec up to the step of the fork."""
    folder = options.out / REPLAY
    begin = 0 if start.checkpoint is None else start.checkpoint.step
    wanted = Forked(run=start.forked.run, step=begin, digest=start.forked.digest)
    found = forking.find_checkpoint(folder, options.step)
    if read_fork(folder) == wanted and found is not None and found.step == options.step:
        return folder  # of a fork that was refused, or stopped, when this was done
    shutil.rmtree(folder, ignore_errors=True)
    progress.say(f"{options.run} has no checkpoint of step {options.step:,}: the steps after {begin:,} are run again.")
    again = replace(options, step=begin, sets=(), steps=options.step - begin, out=folder, evaluate=False)
    run_fork(again, processes, to)
    return folder


def _train_here(options: ForkOptions, resolved: Resolved, start: ForkStart, to: Stream) -> Fork:
    from contralex.training.run import train_in_folder

    with permission(options.allow_code):
        folder, _ = train_in_folder(resolved, options.out, to=to, fork=start, evaluate=options.evaluate)
    return Fork(folder, write_difference(folder) if is_main() else difference(folder))


def _listed(run: Path) -> str:
    """The steps of which a run has checkpoints, as a sentence."""
    folder = run / "checkpoints"
    steps = [path.name.removeprefix("step-") for path in read.steps(folder)] if folder.is_dir() else []
    return f"It has checkpoints of the steps {', '.join(reversed(steps))}." if steps else "It has no checkpoints."


def _title(found: Mapping[str, Any]) -> str:
    changes = "; ".join(f"{path}: {change}" for path, change in found["changes"].items())
    return f"{found['fork']} is {found['parent']} from step {found['step']:,} on, with {changes or 'nothing changed'}"
