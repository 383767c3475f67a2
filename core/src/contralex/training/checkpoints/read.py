"""Finding a checkpoint on disk that is whole. Imports no torch, and believes nothing before it is checked.

A folder ``step-N`` is whole where its manifest fits (see ``manifest.py``) and ``state.json`` has what a
run needs. Of a run's folder, the checkpoint that ``checkpoints/last`` names is taken, and where that is not whole the
newest that is.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from contralex.errors import ContralexError, remedy
from contralex.files import expand_user, opened, read_json
from contralex.recipes import limits
from contralex.training.checkpoints import header, manifest
from contralex.training.checkpoints.manifest import MANIFEST, MODEL, OPTIMIZER, STATE, File
from contralex.training.checkpoints.plugin_versions import plugin_changes
from contralex.training.checkpoints.state import CheckpointState

if TYPE_CHECKING:
    from torch import Tensor

    from contralex.recipes.layers import Resolved

TENSORS = (MODEL, OPTIMIZER)
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,17})")
_ASIDE = re.compile(r"\.step-(0|[1-9][0-9]{0,17})-\w+")  # a draft, or what it was to replace, of a killed run


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: its folder, and what ``state.json`` says."""

    folder: Path
    state: CheckpointState

    @property
    def step(self) -> int:
        return self.state.step

    def resolved(self, *, data: str | None = None, sets: Sequence[str] = ()) -> Resolved:
        """The spec that the run had. Plugins that are missing are an error, and other versions of them a warning.
        ``data`` and ``sets`` change it as ``--data`` and ``--set`` do."""
        from contralex.recipes.layers import resolve_data

        for change in plugin_changes(self.folder, self.state.plugins):
            logging.getLogger("contralex").warning("%s was made with another version: %s.", self.folder, change)
        return resolve_data(self.state.spec, data=data, sets=sets, where=str(self.folder / STATE))

    def tensors(self, name: str = MODEL, prefix: str = "") -> dict[str, Tensor]:
        """Those of a file whose names begin with ``prefix``. The others are not read."""
        from safetensors import SafetensorError, safe_open

        header.read(self.folder / name)
        try:
            with safe_open(self.folder / name, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise _damaged(self.folder, name, str(error)) from error


def open_checkpoint(path: Path, tensors: Sequence[str] = (MODEL,)) -> Checkpoint:
    """A checkpoint from its own folder, from ``checkpoints``, from ``checkpoints/last``, or from a run's folder.

    ``tensors``: the files of tensors that are read of it, and so are checked. The optimiser's file may be damaged or
    missing where it is none of them; the model's must have its size.
    """
    path = expand_user(str(path))
    folder = _steps_folder(path)
    return _of_run(folder, tensors) if folder is not None else _whole(path, tensors)


def find(run: Path) -> Checkpoint | None:
    """What a run goes on from, or None where it ended before its first checkpoint was complete."""
    folder = run / "checkpoints"
    if (run / "spec.yaml").is_file() and not (folder.is_dir() and (steps(folder) or os.path.lexists(folder / "last"))):
        try:
            return _of_run(folder, TENSORS) if folder.is_dir() else None
        except ContralexError:  # a draft that is not complete
            return None
    return open_checkpoint(run, TENSORS)


def names_a_step(path: Path) -> bool:
    """Whether a path is meant as one checkpoint, and not as a run that holds several."""
    return bool(_NAME.fullmatch(path.name)) or any((path / name).exists() for name in (STATE, MANIFEST, MODEL))


def run_folder(path: Path) -> Path:
    """The folder of the run that a path means: its own, that of its ``checkpoints``, or of one of them."""
    whole = Path(os.path.abspath(path))
    levels = 1 if whole.name == "checkpoints" else 2 if whole.is_file() or names_a_step(path) else 0
    if not levels:
        return path
    reaches = len(path.parts) > levels and ".." not in path.parts[-levels:]
    return (path if reaches else whole).parents[levels - 1]


def steps(folder: Path, *, hidden: bool = False, until: int | None = None) -> list[Path]:
    """The folders of checkpoints, newest first; with ``hidden``, what a killed run was about to put in their place."""
    pattern = _ASIDE if hidden else _NAME
    numbers = {path: int(match[1]) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    found = [path for path, number in numbers.items() if until is None or number <= until]
    return sorted(found, key=lambda path: (numbers[path], path.name), reverse=True)


def is_complete(folder: Path, tensors: Sequence[str] = TENSORS) -> bool:
    """Quickly: by the sizes of its files, and without reading them. ``tensors``: as for :func:`open_checkpoint`."""
    return not folder.is_symlink() and not _problems(folder, tensors, hashes=False)


def is_whole(folder: Path) -> bool:
    try:
        _whole(folder, TENSORS)
    except ContralexError:
        return False
    return True


def read_state(folder: Path) -> CheckpointState:
    """What ``state.json`` says, where it has all that a run goes on from, in bounds."""
    try:
        data = read_json(folder / STATE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _damaged(folder, STATE, str(reason)) from None
    if isinstance(data, dict) and data.get("format") != 1:
        found = f"{data.get('format')!r:.20}"
        raise ContralexError(f"{folder / STATE} has format {found}, and this contralex reads 1; update contralex.")
    try:
        state = CheckpointState.model_validate(data)
        limits.check_data(data, str(folder / STATE))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise _damaged(folder, STATE, f"{where}: {first['msg']}") from None
    except ContralexError as error:
        raise ContralexError(f"{error}, or take another checkpoint.") from None
    return state


def _steps_folder(path: Path) -> Path | None:
    """The folder ``checkpoints`` that a path means, or None where it is one checkpoint itself."""
    if path.name == "last" and not path.is_dir():
        return path.parent
    if names_a_step(path):
        return None
    folder = path if path.name == "checkpoints" else path / "checkpoints"
    if not folder.is_dir():
        if (path / "spec.yaml").is_file():
            raise ContralexError(
                f"{path} holds a run that has not saved a checkpoint yet. If it has ended, begin it again:"
                + remedy("contralex", "train", "--resume", "--out", path)
            )
        raise ContralexError(
            f"{path} is no checkpoint: {path / STATE} is missing; give a run's folder or one of its checkpoints/step-N."
        )
    return folder


def _of_run(folder: Path, tensors: Sequence[str]) -> Checkpoint:
    problems: list[str] = []
    for candidate in _candidates(folder, problems):
        try:
            found = _whole(candidate, tensors)
        except ContralexError as error:
            problems.append(str(error))
            continue
        if problems and os.environ.get("RANK", "0") == "0":
            logging.getLogger("contralex").warning("%s So %s is taken.", " ".join(problems), found.folder)
        return found
    listed = " ".join(problems) or "it holds none."
    raise ContralexError(f"{folder} holds no checkpoint that is whole, so there is nothing to go on from: {listed}")


def _candidates(folder: Path, problems: list[str]) -> Iterator[Path]:
    """What ``last`` names, then all from the newest on, and last what a killed run left beside them."""
    named = None
    try:
        named = folder / _named_in(folder / "last")
        yield named
    except (OSError, ValueError) as error:
        problems.append(f"{folder / 'last'} does not name a checkpoint: {getattr(error, 'strerror', None) or error}.")
    both = [*steps(folder), *steps(folder, hidden=True)]
    yield from sorted(
        (path for path in both if path != named), key=lambda path: -int(path.name.lstrip(".").split("-")[1])
    )


def _named_in(last: Path) -> str:
    with opened(last) as file:
        text = file.read(256)
    name = text.decode("utf-8", errors="replace").removesuffix("\n")
    if not _NAME.fullmatch(name):
        raise ValueError(f"it says {name!r:.60} where step-N is expected")
    return name


def _whole(folder: Path, tensors: Sequence[str]) -> Checkpoint:
    """The checkpoint in a folder once its state and these files of tensors are checked."""
    if folder.is_symlink() and not folder.resolve().is_relative_to(folder.parent.resolve()):
        raise ContralexError(f"{folder} is a symbolic link that leads out of {folder.parent}; give the folder itself.")
    if not folder.is_dir():
        raise ContralexError(f"{folder} is missing; give a run's folder or one of its checkpoints/step-N.")
    for file in _problems(folder, tensors, hashes={STATE, *tensors}):
        raise _damaged(folder, file.name, file.problem)
    state = read_state(folder)
    name = _NAME.fullmatch(folder.name)
    if name and int(name[1]) != state.step:
        raise _damaged(folder, STATE, f"it is of step {state.step}")
    for each in tensors:
        header.read(folder / each)
    named = folder.parent.name == "checkpoints"  # and not as from a folder in the run: step-2, or .
    return Checkpoint(folder if named else Path(os.path.abspath(folder)), state)


def _problems(folder: Path, tensors: Sequence[str], hashes: bool | Container[str]) -> list[File]:
    """The files of a checkpoint that do not fit its manifest, without the optimiser's where that is not read."""
    found = manifest.files_of(folder, hashes=hashes)
    return [file for file in found if file.problem and (file.name != OPTIMIZER or OPTIMIZER in tensors)]


def _damaged(folder: Path, name: str, reason: str) -> ContralexError:
    return ContralexError(f"{folder / name} is damaged: {' '.join(reason.split())[:300]}; take another checkpoint.")
