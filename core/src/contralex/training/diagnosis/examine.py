"""All signs of a run, from everything that there is of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError
from contralex.lookup.clock import Clock
from contralex.recipes.layers import Resolved
from contralex.training.checkpoints import read
from contralex.training.checkpoints.read import Checkpoint
from contralex.training.diagnosis.from_batches import batch_signs
from contralex.training.diagnosis.from_metrics import late_accuracy, metric_signs
from contralex.training.diagnosis.from_spec import spec_signs
from contralex.training.diagnosis.measure import Measured, measure
from contralex.training.diagnosis.signs import Sign
from contralex.training.folders import SPEC

if TYPE_CHECKING:
    from contralex.recipes.run_spec import RunSpec


@dataclass
class Examination:
    """What was found. ``measured``: figures of a few batches. ``notes``: what could not be looked at, and why."""

    signs: list[Sign] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def examine(run: Path, lines: Sequence[dict[str, Any]], data: str | None, with_batches: bool) -> Examination:
    """``lines``: of ``metrics.jsonl``, with a loss. ``data``: where the data lie now. ``with_batches``: whether a few
    batches are measured, which restores the run's newest checkpoint."""
    found = Examination()
    checkpoint, resolved = _restore_spec(run, data, found.notes)
    spec = resolved.run if resolved is not None else None
    found.signs += metric_signs(lines, spec)
    if checkpoint is not None and spec is not None:
        samples = checkpoint.state.samples.get("count", 0)
        found.signs += spec_signs(spec, samples, _clock(checkpoint, spec, samples))
    if not with_batches:
        return found
    if checkpoint is None or resolved is None or spec is None:
        found.notes.append("No batches were measured, because the run has no checkpoint that can be read.")
        return found
    try:
        measured = measure(resolved, checkpoint)
    except ContralexError as error:
        found.notes.append(f"No batches were measured: {error}")
        return found
    found.measured = _plain(measured)
    known = {sign.name for sign in found.signs}
    found.signs += (sign for sign in batch_signs(measured, spec, late_accuracy(lines)) if sign.name not in known)
    return found


def _restore_spec(run: Path, data: str | None, notes: list[str]) -> tuple[Checkpoint | None, Resolved | None]:
    """The newest checkpoint of a run and its spec; what cannot be read is said in ``notes``."""
    if not (run / SPEC).is_file() and not (run / "checkpoints").is_dir():
        return None, None
    try:
        checkpoint = read.find(run)
        return checkpoint, checkpoint.resolved(data=data) if checkpoint is not None else None
    except ContralexError as error:
        notes.append(str(error))
        return None, None


def _clock(checkpoint: Checkpoint, run: RunSpec, samples: int) -> Clock:
    per_epoch = max(samples // run.train.batch_size, 1)
    total = per_epoch * run.train.epochs
    return Clock(checkpoint.step, min(total, run.train.max_steps or total), per_epoch)


def _plain(found: Measured) -> dict[str, Any]:
    figures: Mapping[str, Any] = asdict(found)
    waiting = {} if found.waiting is None else {"waiting": found.waiting}
    return {**{name: value for name, value in figures.items() if value not in (None, {})}, **waiting}
