"""``contralex fork``: a run goes on from one of its steps with some values changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contralex import progress
from contralex.cli.options import AllowCode, Json, complete_runs, path, print_json, print_table

if TYPE_CHECKING:
    from contralex.api.forking import Fork


def fork(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN@STEP",
            help="A run's folder and the step to go on from, such as runs/mine@100.",
            show_default=False,
            autocompletion=complete_runs,
        ),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change one value of the run. May be repeated.", show_default=False
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of the fork. Without it: to the end of the run.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The fork's folder. Without it: runs/NAME-fork-TIME.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The path of the run's data, if they have moved.", show_default=False)
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes to start, as for `contralex train`.")] = 1,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Do not evaluate the fork at its end.")] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Go on from a step of a run with one value changed.

    The fork sees the batches and views that the run saw after that step, and the two are compared: a table, a figure,
    and the distance of their weights. Without a change the fork is equal to the run, to the bit.
    """
    from contralex.api import forking, launching

    to: launching.Stream = "stderr" if as_json else "stdout"
    progress.listen(to)
    folder, step = forking.split_step(run)
    options = forking.ForkOptions(
        folder, step, out or forking.choose_folder(folder), tuple(sets or ()), steps, data, not no_eval, allow_code
    )
    if processes > 1 and not launching.is_launched():
        options, *_ = forking.prepare_fork(options, processes, to)  # mistakes are said once
        words = [*options.command(), *(["--json"] if as_json else [])]
        raise typer.Exit(launching.launch(words, processes, "stdout"))
    found = forking.run_fork(options, 1, to)
    if launching.is_main():
        _print(found, as_json)


def _print(found: Fork, as_json: bool) -> None:
    from contralex.comparison.difference import sentences, table

    if as_json:
        print_json(found.difference)
        return
    headings, rows = table(found.difference)
    if rows:
        print_table(headings, rows)
    for sentence in sentences(found.difference):
        typer.echo(sentence)
    typer.echo(f"The difference is in {found.folder}: difference.json and difference.svg.")
