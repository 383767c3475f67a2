"""``contralex check``: holds an installed plugin against the conformance kit."""

from __future__ import annotations

from typing import Annotated

import typer

from contralex import progress
from contralex.cli.options import Json, print_json, print_table
from contralex.errors import ContralexError


def check(
    distribution: Annotated[
        str, typer.Argument(metavar="DIST", help="An installed plugin, such as contralex-moco.", show_default=False)
    ],
    only: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Run only the checks whose name contains this text.", show_default=False),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the traceback of each error that a part raised.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a plugin against the conformance kit.

    Each check is one row. The exit status is 1 if one fails.
    """
    try:
        from contralex.testing.kit import cases
    except ImportError as error:
        raise ContralexError(
            f"the conformance kit needs {error.name}, which is not installed; run: pip install 'contralex[testing]'"
        ) from error

    chosen = [case for case in cases(distribution) if only is None or only in case.id]
    if not chosen:
        raise ContralexError(f"--only {only}: no check of {distribution} has this text in its name.")
    outcomes = []
    progress.listen("stderr")
    with progress.during(f"Checking {distribution}", len(chosen)) as done:
        for number, case in enumerate(chosen):
            done(number)
            outcomes.append(case.run())
    if as_json:
        print_json([vars(outcome) for outcome in outcomes])
    else:
        print_table(["check", "state", "why"], [[outcome.id, outcome.state, outcome.reason] for outcome in outcomes])
        counts = {state: sum(outcome.state == state for outcome in outcomes) for state in STATES}
        typer.echo(f"{distribution}: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
        for outcome in outcomes if verbose else ():
            if outcome.traceback:
                typer.echo(f"\n{outcome.id}\n{outcome.traceback}")
    if any(outcome.bad for outcome in outcomes):
        raise typer.Exit(1)


STATES = ("passed", "failed", "unexpected pass", "expected failure", "not applicable")
