"""``fork.json`` in a fork's folder: of which run it is a fork, from which step on, and with what changed. No torch."""

from __future__ import annotations

from pathlib import Path

from contralex.files import read_json
from contralex.training.checkpoints.state import Forked

FORK = "fork.json"


def read_fork(run: Path) -> Forked | None:
    """Of what a run is a fork; None where it is none, or where the file is damaged."""
    try:
        return Forked.model_validate(read_json(run / FORK, 2**20))
    except (OSError, ValueError):
        return None


def describe_fork(forked: Forked) -> str:
    """``Fork of runs/a from step 100 on, with method.loss.temperature: 0.2 → 0.1``."""
    changes = "; ".join(f"{path}: {change}" for path, change in forked.changes.items())
    return f"Fork of {forked.run} from step {forked.step:,} on, with {changes or 'nothing changed'}"
