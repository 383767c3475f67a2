"""``contralex doctor``: what this environment has, and what is wrong with it; or what is wrong with a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contralex.cli.options import Json, path, print_json, print_table

if TYPE_CHECKING:
    from contralex.api.health import Diagnosis


def doctor(
    run: Annotated[
        Path | None,
        typer.Argument(
            parser=path, metavar="[RUN]", help="A run's folder, to check whether the run learns.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine, or whether a run learns.

    Without RUN: what is installed, what the machine has, and what is wrong. With RUN: whether the run has collapsed or
    stands still, and the most likely reason. The exit status is 1 if something is wrong.
    """
    from contralex.api import health

    found = health.doctor(run)
    if run is not None:
        _print_run(found, as_json)
    elif as_json:
        print_json({"facts": found.facts, "plugins": found.plugins, "problems": found.problems})
    else:
        print_table(["what", "found"], [[name, str(value)] for name, value in found.facts.items()])
        rows = [[row["name"], row["version"], row["state"]] for row in found.plugins]
        print_table(["plugin", "version", "state"], rows)
        _print_problems(found, "Everything is in order.")
    if found.problems:
        raise typer.Exit(1)


def _print_run(found: Diagnosis, as_json: bool) -> None:
    if as_json:
        print_json({"last": found.facts or None, "problems": found.problems})
        return
    print_table(["what", "last"], [[name, value] for name, value in found.shown().items()])
    _print_problems(found, f"Nothing is wrong in {found.periods} logged periods.")


def _print_problems(found: Diagnosis, otherwise: str) -> None:
    for problem in found.problems:
        typer.echo(f"Problem: {problem}", err=True)
    typer.echo(f"{len(found.problems)} problem(s)." if found.problems else otherwise)
