"""Training a method from Python, on one process or several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.launching import Stream, check_processes, is_launched, is_main, train_launched
from contralex.api.runs import Run
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.api.train_options import TrainOptions
from contralex.files import expand_user
from contralex.recipes.code_files import permission
from contralex.recipes.layers import Resolved
from contralex.training import folders
from contralex.training.folders import SPEC
from contralex.training.fork_file import FORK

if TYPE_CHECKING:
    from contralex.training.dry_run import DryRun


@checked
def train(
    recipe: PathLike | None = None,
    *,
    preset: str | None = None,
    data: PathLike | None = None,
    epochs: int | None = None,
    sets: Sets = None,
    out: PathLike | None = None,
    resume: bool = False,
    processes: int = 1,
    allow_code: bool = False,
    allow_drift: bool = False,
    fit: bool = False,
    minutes: float | None = None,
) -> Run:
    """Train a method, and return the run.

    ``recipe``: the name of an installed recipe, or the path of a YAML file; may be left out with ``resume``.
    ``preset``: a named set of changes that the recipe offers. ``data``: a folder or file, or a kind such as
    ``cifar10``. ``sets``: single values by their paths. ``out``: the run's folder; without it ``runs/RECIPE-TIME``.
    ``resume``: go on with the run in ``out``. ``processes``: how many to start, on the GPUs where there are any.
    ``allow_code``: run the Python files that the recipe names in ``code``. ``allow_drift``: with ``resume``, take the
    spec and the plugins as they are now. ``fit``: set what depends on the number of samples and on the device, so that
    it takes about so many ``minutes``, where they are given.

    Progress goes to stderr; in a notebook, one line of the output is kept up to date. Raises :class:`ContralexError`.

    >>> import contralex
    >>> few = {"train.max_steps": 2, "train.log_every": 1}
    >>> run = contralex.train("moco-v2", preset="digits", sets=few, out="runs/my-run")
    >>> run.results["steps"]
    2
    """
    check_processes(processes)
    folder = path_text(out)
    path = None if folder is None else expand_user(folder)
    texts = set_texts(sets, epochs)
    options = TrainOptions(path_text(recipe), preset, path_text(data), texts, path, resume, allow_code, allow_drift)
    with progress.listening("stderr") as to:
        options = options.fitted(processes, fit, minutes)
        resolved = options.resolve()
        if processes == 1 or is_launched():
            return _train_here(resolved, path, resume, allow_drift, allow_code, to)
        path = path or _new_folder(resolved)
        return _train_launched(replace(options, out=path).command(), path, processes, allow_code, to)


@checked
def dry_run(
    recipe: PathLike,
    *,
    preset: str | None = None,
    data: PathLike | None = None,
    epochs: int | None = None,
    sets: Sets = None,
    allow_code: bool = False,
    fit: bool = False,
    minutes: float | None = None,
) -> DryRun:
    """Say what :func:`train` with these arguments would take, from a few timed steps on one process. Nothing is left on
    disk.

    >>> import contralex
    >>> found = contralex.dry_run("moco-v2", preset="digits", epochs=2)
    >>> found.steps, found.steps_an_epoch
    (44, 22)
    """
    from contralex.training.dry_run import dry_run

    options = TrainOptions(path_text(recipe), preset, path_text(data), set_texts(sets, epochs), allow_code=allow_code)
    with progress.listening("stderr"), permission(allow_code):
        return dry_run(options.fitted(1, fit, minutes).resolve())


def train_resolved(resolved: Resolved, out: Path | None, processes: int, allow_code: bool) -> Run:
    """Train a spec that is resolved already, and return the run."""
    check_processes(processes)
    with progress.listening("stderr") as to:
        if processes == 1 or is_launched():
            return _train_here(resolved, out, False, False, allow_code, to)
        out = out or _new_folder(resolved)
        with spec_command(resolved, out, allow_code) as argv:
            return _train_launched(argv, out, processes, allow_code, to)


@contextmanager
def spec_command(resolved: Resolved, out: Path | None, allow_code: bool) -> Iterator[list[str]]:
    """The words of ``contralex train`` for a resolved spec, for each process; it is in a file while this lasts."""
    options = [*([f"--out={out}"] if out is not None else []), *(["--allow-code"] if allow_code else [])]
    with TemporaryDirectory() as folder:  # the run's own is made when the run can begin
        spec = Path(folder) / SPEC
        spec.write_text(resolved.to_yaml(), "utf-8")
        yield ["train", *options, "--", str(spec)]


def _train_here(
    resolved: Resolved, out: Path | None, resume: bool, allow_drift: bool, allow_code: bool, to: Stream
) -> Run:
    from contralex.training.run import train_in_folder

    with permission(allow_code):  # also for the files of a run whose encoder this one takes
        folder, _ = train_in_folder(resolved, out, resume, allow_drift, to)
    if resume and is_main() and (folder / FORK).is_file():
        from contralex.comparison.difference import DIFFERENCE, write_difference

        write_difference(folder)
        progress.say(f"The difference to the parent of this fork is in {folder / DIFFERENCE}.")
    return Run(folder, allow_code=allow_code)


def _train_launched(argv: list[str], out: Path, processes: int, allow_code: bool, to: Stream) -> Run:
    train_launched(argv, out, processes, to)
    return Run(out, allow_code=allow_code)


def _new_folder(resolved: Resolved) -> Path:
    """Of a name that every process is told."""
    return folders.make_new(folders.name_by_time(resolved.run.name))[0]
