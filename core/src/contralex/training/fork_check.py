"""Whether a fork can begin, found out without beginning it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from contralex.recipes.layers import Resolved
from contralex.training import devices, forking
from contralex.training.forking import ForkStart
from contralex.training.prepare import prepare_run
from contralex.training.run_folder import RunFolder


def check_fits(resolved: Resolved, start: ForkStart) -> None:
    """Refuses, before any step is computed again, a fork that the state of its parent does not fit."""
    with (
        TemporaryDirectory() as folder,
        devices.close_process_group(),
        RunFolder(Path(folder) / "run", resolved.run.name, resume=False) as place,
    ):
        forking.check_step(start, prepare_run(resolved.anchored(), place, resume=False, fork=start).total)
