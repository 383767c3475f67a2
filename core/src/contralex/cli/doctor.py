"""``contralex doctor``: what this environment has, and what is wrong with it; or what is wrong with a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contralex.cli.options import AllowCode, Json, path, print_json, print_table

if TYPE_CHECKING:
    from contralex.api.health import Diagnosis


def doctor(
    run: Annotated[
        Path | None,
        typer.Argument(
            parser=path, metavar="[RUN]", help="A run's folder, to check whether the run learns.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The path of the run's data, if they have moved.", show_default=False)
    ] = None,
    no_batches: Annotated[
        bool, typer.Option("--no-batches", help="Read the metrics and the spec alone, and measure no batches.")
    ] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Check this machine, or whether a run learns.

    Without RUN: what is installed, what the machine has, and what is wrong. With RUN: what is wrong with the run, from
    its metrics, its spec and a few batches, and settings to try. The exit status is 1 if something is wrong.
    """
    from contralex.api import health

    found = health.doctor(run, data=data, batches=not no_batches, allow_code=allow_code)
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
        signs = [asdict(sign) for sign in found.signs]
        print_json(
            {
                "last": found.facts or None,
                "problems": found.problems,
                "signs": signs,
                "measured": found.measured,
                "notes": found.notes,
            }
        )
        return
    print_table(["what", "last"], [[name, value] for name, value in found.shown().items()])
    if found.measured:
        print_table(["what", "measured"], _cells(found.measured))
    for note in found.notes:
        typer.echo(f"Note: {note}", err=True)
    _print_problems(found, f"Nothing is wrong in {found.periods} logged periods.")


def _cells(measured: dict[str, Any]) -> list[list[str]]:
    plain = {**measured, **{f"seconds, {part}": value for part, value in measured.get("seconds", {}).items()}}
    plain.pop("seconds", None)
    return [[name, f"{value:.4g}" if isinstance(value, float) else str(value)] for name, value in plain.items()]


def _print_problems(found: Diagnosis, otherwise: str) -> None:
    for problem in found.problems:
        typer.echo(f"Problem: {problem}", err=True)
    typer.echo(f"{len(found.problems)} problem(s)." if found.problems else otherwise)
