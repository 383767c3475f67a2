"""Training a spec that a command has made, in this process or in several."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from contralex.cli.run import is_launched

if TYPE_CHECKING:
    from contralex.recipes.layers import Resolved


def train_resolved(resolved: Resolved, out: Path | None = None, processes: int = 1, allow_code: bool = False) -> None:
    """Train a resolved spec as ``contralex train`` does.

    ``out``: the run's folder; None: runs/NAME-TIME. ``processes``: how many to start. ``allow_code``: the Python files
    that it names may be run. Raises ``typer.Exit`` with the exit code where it starts processes.
    """
    if processes > 1 and not is_launched():
        from contralex.training.launch import launch

        options = [*([f"--out={out}"] if out is not None else []), *(["--allow-code"] if allow_code else [])]
        with TemporaryDirectory() as folder:  # the run's own is made when the run can begin
            spec = Path(folder) / "spec.yaml"
            spec.write_text(resolved.to_yaml(), "utf-8")
            raise typer.Exit(launch(["train", *options, "--", str(spec)], processes))

    from contralex.recipes.code_files import permission
    from contralex.training.run import train

    with permission(allow_code):
        train(resolved, out)
