"""How commands start training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from contralex.recipes.layers import Resolved


def train_resolved(resolved: Resolved, out: Path | None = None, processes: int = 1, allow_code: bool = False) -> None:
    """Train a resolved spec as ``contralex train`` does.

    ``out``: the run's folder; None: runs/NAME-TIME. ``processes``: how many to start. ``allow_code``: the Python files
    that it names may be run. Raises ``typer.Exit`` with the exit code where it starts processes.
    """
    from contralex.api import launching, training

    if processes > 1 and not launching.is_launched():
        with training.spec_command(resolved, out, allow_code) as argv:
            raise typer.Exit(launching.launch(argv, processes, "stdout"))
    training.train_resolved(resolved, out, 1, allow_code)
