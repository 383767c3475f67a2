"""``contralex compare``: several methods under one budget, and one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from contralex.cli.options import AllowCode, Json, Sets, path, print_json, print_table


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHODS...",
            help="Installed recipes or YAML files; `all`: every installed recipe that has the preset.",
            show_default=False,
        ),
    ],
    preset: Annotated[str | None, typer.Option(help="A preset that each of them has.", show_default=False)] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="So many for each method. Without it, as its recipe says.", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option(help="As for `contralex train`, for all.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same for all.", show_default=False)] = None,
    sets: Sets = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The comparison's folder. Without it: runs/compare-TIME.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in --out.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Of each run, as for `contralex train`.")] = 1,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Train several methods under one budget, one after the other, and judge all alike: one table, one figure.

    One that fails is named with its reason, and the others go on; the exit status is then 1.
    """
    from contralex.api.comparing import compare_methods
    from contralex.comparison.plan import Budget

    found = compare_methods(
        methods,
        Budget(preset, epochs, seed, data, tuple(sets or ()), allow_code),
        out,
        resume,
        processes,
        quiet=as_json or not sys.stdout.isatty(),
        show=lambda result: _print(result, as_json),
    )
    if not as_json:
        typer.echo(f"Saved in {found.folder}")
    if found.failed:
        raise typer.Exit(1)


def _print(result: dict[str, Any], as_json: bool) -> None:
    from contralex.comparison.table import below, cells

    if as_json:
        print_json(result)
        return
    headings = result["columns"]
    print_table(list(headings.values()), [cells(row, headings) for row in result["rows"]])
    for sentence in below(result):
        typer.echo(sentence)
