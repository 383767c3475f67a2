"""A run that goes on from a step of another one, with some values changed: what may change, and what it begins with.

Randomness is a function of the step, so a fork sees the batches and views that its parent saw after that step. Without
a change it is the parent's continuation, to the bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError, remedy
from contralex.files import write_text
from contralex.recipes.diff import Change, diff
from contralex.recipes.layers import Resolved
from contralex.recipes.merging import dotted
from contralex.recipes.paths import local_paths
from contralex.training import health
from contralex.training.checkpoints import read
from contralex.training.checkpoints.read import Checkpoint
from contralex.training.checkpoints.state import Forked
from contralex.training.fork_file import FORK
from contralex.training.resuming import samples_change

if TYPE_CHECKING:
    from torch import Tensor

    from contralex.lookup.step import LookUp
    from contralex.training.run_state import Run

REPLAY = "replay"
"""Within a fork's folder: the steps of its parent that are computed again, until the fork itself begins."""
WAY_OUT = "leave out the change that it comes from, or start a run of its own with contralex train"

_SAME_BATCHES = "a fork sees the batches of its parent"
_FIXED = {  # patterns of paths, and why a fork cannot change them
    "data": _SAME_BATCHES,
    "data.*": _SAME_BATCHES,
    "train.batch_size": _SAME_BATCHES,
    "train.seed": "all random numbers of the parent are functions of it",
    "train.epochs": "schedules end with it; to stop the fork earlier, use --steps",
    "train.max_steps": "schedules end with it; to stop the fork earlier, use --steps",
    "train.optimizer": "a fork goes on with the state of its parent's optimiser, and each kind keeps another",
    "init": "a fork begins with its parent's weights",
    "init.*": "a fork begins with its parent's weights",
}


@dataclass(frozen=True)
class ForkStart:
    """What a fork begins with."""

    source: Path
    """The folder of the run whose state it takes: its parent, or its parent's steps computed again."""
    checkpoint: Checkpoint | None
    """None: it begins with the first step."""
    forked: Forked
    threads: int | None = None
    """The number of threads that the parent had chosen."""
    until: int | None = None
    """The step at which it ends before its last; None: its last."""

    @property
    def step(self) -> int:
        return self.forked.step


def find_checkpoint(run: Path, step: int) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole and of no later step; None where there is none."""
    folder = run / "checkpoints"
    found = read.steps(folder, until=step) if folder.is_dir() else []
    whole = next((path for path in found if read.is_whole(path)), None)
    return read.open_checkpoint(whole, read.TENSORS) if whole is not None else None


def check_changes(before: Resolved, after: Resolved) -> dict[str, str]:
    """What a fork with the spec ``after`` changes of its parent's, by path. Refuses what cannot change."""
    moved = {dotted(("data", *keys)) for keys in local_paths(after.run.data)}  # where the data lie may change
    changed = [change for change in diff(before, after) if change.path not in moved]
    for change in changed:
        reason = next((why for pattern, why in _FIXED.items() if fnmatchcase(change.path, pattern)), None)
        if reason is not None:
            raise ContralexError(f"fork: {change} cannot be changed: {reason}; leave it as it is, or start a new run.")
    return {change.path: _arrow(change) for change in changed}


def _arrow(change: Change) -> str:
    return f"{change.before} → {change.after}"


def check_samples(start: ForkStart, now: dict[str, Any]) -> None:
    """Refuses other data than the parent's: a step's samples go by their number."""
    change = samples_change(start.checkpoint, now) if start.checkpoint is not None else None
    if change is not None:
        raise ContralexError(
            f"{start.forked.run} was trained on other data ({change}), so a fork would see other batches; say where "
            "the data of the run are now:" + remedy("--data", "FOLDER")
        )


def check_step(start: ForkStart, total: int) -> None:
    if start.step >= total:
        raise ContralexError(
            f"{start.forked.run} ends at step {total}, so nothing is left to run from step {start.step}; fork it at an "
            "earlier step."
        )


def fit_state(tensors: Mapping[str, Tensor], method: LookUp) -> dict[str, Tensor]:
    """A checkpoint's tensors for the method of a fork. What the fork has no use for is left out."""
    own = method.state_dict()
    for name, wanted in own.items():
        found = tensors.get(name)
        slot = f"method.{name.partition('.')[0]}"
        if found is None:
            raise ContralexError(f"fork: {slot} has {name}, of which the parent has no state; {WAY_OUT}.")
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ContralexError(
                f"fork: {slot} would make {name} {_describe(wanted)}, and its parent has {_describe(found)}; {WAY_OUT}."
            )
    return {name: tensor for name, tensor in tensors.items() if name in own}


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def write_beginning(run: Run, start: ForkStart) -> None:
    """What the folder of a fork holds from its beginning: of what it is a fork, and its parent's lines until then."""
    run.place.check_still_there()
    write_text(run.folder / FORK, json.dumps(start.forked.model_dump(), indent=1) + "\n")
    file = start.source / "metrics.jsonl"
    lines = health.read_lines(file) if file.is_file() else []
    text = "".join(f"{json.dumps(line)}\n" for line in lines if line["step"] <= start.step)
    write_text(run.folder / "metrics.jsonl", text)


def remove_replay(run: Run, start: ForkStart) -> None:
    """Once the fork has a checkpoint of its own."""
    if start.source == run.folder / REPLAY:
        shutil.rmtree(start.source, ignore_errors=True)
