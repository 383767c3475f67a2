"""Training a method from Python, on one process or several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.fitting import fit_settings
from contralex.api.runs import Run
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.errors import ContralexError, command_to_resume
from contralex.files import expand_user
from contralex.recipes.code_files import permission
from contralex.recipes.data_files import check_present
from contralex.recipes.layers import Resolved, resolve
from contralex.training import folders
from contralex.training.folders import SPEC

if TYPE_CHECKING:
    from contralex.training.dry_run import DryRun

Stream = Literal["stdout", "stderr"]


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
    recipe, texts, folder = path_text(recipe), set_texts(sets, epochs), path_text(out)
    path = None if folder is None else expand_user(folder)
    with progress.listening("stderr") as to:
        options = (recipe, preset, path_text(data), texts, path, resume, allow_code, allow_drift)
        texts = sets_to_train(*options, processes=processes, fit=fit, minutes=minutes)
        resolved = resolve_to_train(recipe, preset, path_text(data), texts, path, resume, allow_code, allow_drift)
        if processes == 1 or is_launched():
            return _train_here(resolved, path, resume, allow_drift, allow_code, to)
        path = path or _new_folder(resolved)
        argv = train_command(recipe, preset, path_text(data), texts, path, resume, allow_code, allow_drift)
        return _train_launched(argv, path, processes, allow_code, to)


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

    options = (path_text(recipe), preset, path_text(data))
    texts = set_texts(sets, epochs)
    with progress.listening("stderr"), permission(allow_code):
        texts = sets_to_train(*options, texts, None, False, allow_code, False, processes=1, fit=fit, minutes=minutes)
        return dry_run(resolve_to_train(*options, texts, None, False, allow_code, False))


def sets_to_train(
    recipe: str | None,
    preset: str | None,
    data: str | None,
    sets: Sequence[str],
    out: Path | None,
    resume: bool,
    allow_code: bool,
    allow_drift: bool,
    *,
    processes: int,
    fit: bool,
    minutes: float | None,
) -> list[str]:
    """The user's ``sets``, and with ``fit`` below them those that fit the run to its data and to this machine."""
    if not fit:
        if minutes is not None:
            raise ContralexError("--minutes says how long a run may train that --fit fits; add --fit")
        return list(sets)

    def resolve_with(more: Sequence[str]) -> Resolved:
        return resolve_to_train(recipe, preset, data, [*more, *sets], out, resume, allow_code, allow_drift)

    with permission(allow_code):
        return [*fit_settings(resolve_with, processes, minutes, resume), *sets]


def train_resolved(resolved: Resolved, out: Path | None, processes: int, allow_code: bool) -> Run:
    """Train a spec that is resolved already, and return the run."""
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
        return Run(train_in_folder(resolved, out, resume, allow_drift, to)[0], allow_code=allow_code)


def _train_launched(argv: list[str], out: Path, processes: int, allow_code: bool, to: Stream) -> Run:
    code = launch(argv, processes, to)
    if code:
        has_begun = (out / SPEC).is_file()
        if not has_begun and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise ContralexError(
            f"training in {processes} processes ended with {code}; the reason is printed above"
            + (f". Go on with:{command_to_resume(out)}" if has_begun else "")
        )
    return Run(out, allow_code=allow_code)


def _new_folder(resolved: Resolved) -> Path:
    """Of a name that every process is told."""
    return folders.make_new(folders.name_by_time(resolved.run.name))[0]


def resolve_to_train(
    recipe: str | None,
    preset: str | None,
    data: str | None,
    sets: Sequence[str],
    out: Path | None,
    resume: bool,
    allow_code: bool,
    allow_drift: bool,
) -> Resolved:
    """The spec of the run that ``contralex train`` with these options trains. Refuses what cannot be trained."""
    recipe = _recipe(recipe, out, resume)
    if allow_drift and not resume:
        raise ContralexError("--allow-drift is about a run that is resumed; add --resume and its --out")
    is_own = resume and out is not None and Path(recipe) == out / SPEC  # which holds no presets itself
    resolved = resolve(recipe, preset=preset, data=data, sets=sets, allow_code=allow_code, presets_of_its_name=is_own)
    if not resume:
        check_present(resolved, recipe, ["contralex", "train", recipe], allow_code=allow_code)
    return resolved


def _recipe(recipe: str | None, out: Path | None, resume: bool) -> str:
    if resume and out is None:
        raise ContralexError("--resume: say which run with --out, such as --out runs/my-run")
    if recipe is not None:
        return recipe
    if not resume or out is None:
        raise ContralexError("train what? give a recipe (`contralex methods` lists them) or the path of a YAML file")
    if not (out / SPEC).is_file():
        raise ContralexError(f"--resume: {out} holds no {SPEC}, so it is not a run's folder")
    return str(out / SPEC)


def is_launched() -> bool:
    """Whether torchrun, accelerate or our own launcher has started this process as one of several."""
    return "LOCAL_RANK" in os.environ or "WORLD_SIZE" in os.environ


def train_command(
    recipe: str | None,
    preset: str | None,
    data: str | None,
    sets: Sequence[str],
    out: Path | None,
    resume: bool,
    allow_code: bool,
    allow_drift: bool,
) -> list[str]:
    """The words of ``contralex train`` with these options, for each process."""
    options = {"--preset": preset, "--data": data, "--out": out}
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    switches = {"--resume": resume, "--allow-code": allow_code, "--allow-drift": allow_drift}
    flags = [name for name, on in switches.items() if on]
    return ["train", *words, *(f"--set={text}" for text in sets), *flags, "--", _recipe(recipe, out, resume)]


def launch(argv: list[str], processes: int, to: Stream) -> int:
    """The exit code of ``contralex`` with these words in so many processes, which report to a stream of this one."""
    from contralex.training.launch import launch

    return launch(argv, processes, to_stderr=to == "stderr")
