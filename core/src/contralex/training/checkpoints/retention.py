"""Which checkpoints of a run are kept, by ``train.checkpoint`` and what each one's ``state.json`` says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from contralex.errors import ContralexError
from contralex.recipes.run_spec import CheckpointSpec
from contralex.training.checkpoints import read
from contralex.training.checkpoints.state import CheckpointState


def prune(folder: Path, spec: CheckpointSpec, step: int, written: Path | None = None) -> None:
    """Removes what need not be kept, and what a killed run left; never the newest that is whole.

    ``step`` is the run's. ``written``: the checkpoint that it has just written, and so need not check. A checkpoint
    that is damaged, or of a later step, from which somebody went back, is not counted, and is left to its owner.
    """
    complete = [path for path in read.steps(folder, until=step) if read.is_complete(path)]
    newest = next((path for path in complete if path == written or read.is_whole(path)), None)
    if newest is None:  # then what a killed run left may be the only one
        return
    states = {path: state for path in complete if (state := _state(path)) is not None}
    kept = {newest, *(path for path in choose_kept(states, spec))}
    for path in [*states.keys() - kept, *read.steps(folder, hidden=True)]:
        remove(path)


def choose_kept(states: dict[Path, CheckpointState], spec: CheckpointSpec) -> list[Path]:
    """``states``: what each checkpoint's ``state.json`` says, newest first."""
    newest = list(states)[: spec.keep_last]
    for_good = [path for path, state in states.items() if _is_kept_for_good(state, spec)]
    return [*newest, *for_good, *_best(states, spec)]


def remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _is_kept_for_good(state: CheckpointState, spec: CheckpointSpec) -> bool:
    return spec.keep_every is not None and state.epoch > 0 and state.epoch % spec.keep_every == 0


def _best(states: dict[Path, CheckpointState], spec: CheckpointSpec) -> Sequence[Path]:
    """The best one by the metric; of equals, the older one, so that it is not written in vain."""
    figures = {path: None if spec.best is None else state.metrics.get(spec.best) for path, state in states.items()}
    known = {path: figure for path, figure in reversed(figures.items()) if figure is not None}
    if not known:
        return []
    choose = max if spec.best_is == "highest" else min
    return [choose(known, key=lambda path: known[path])]


def _state(path: Path) -> CheckpointState | None:
    try:
        return read.read_state(path)
    except ContralexError:
        return None
