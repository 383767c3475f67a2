"""``contralex compare``: several methods under one budget, and one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from contralex.cli.options import AllowCode, Json, path, print_json, print_table
from contralex.errors import ContralexError


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHODS...",
            help="Installed recipes or YAML files, or `all` for every installed recipe that has the preset.",
            show_default=False,
        ),
    ],
    preset: Annotated[str | None, typer.Option(help="A preset that every method has.", show_default=False)] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs for each method. Without it: as its recipe says.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="The data of all methods: a folder or file, or a kind such as cifar10.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed of all methods.", show_default=False)] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Seeds to train each method with, such as 0,1,2. The table then has means and deviations.",
            show_default=False,
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change one value of all methods. Several values with commas between them, such as a=1,2,3, are "
            "trained one by one; a list in brackets, such as [1,2], is one value. May be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The comparison's folder. Without it: runs/compare-TIME.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the comparison in --out.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes for each run, as for `contralex train`.")] = 1,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs to train at the same time. Without it: one for each GPU (or each --processes of them), and one "
            "on the CPU.",
            show_default=False,
        ),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Train several methods and compare them.

    They are trained under one budget and evaluated alike, with one or several seeds. The result is one
    table and one figure. A method that fails is named with its reason, the others go on, and the exit status is 1.
    """
    from contralex.api.comparing import compare_methods
    from contralex.comparison.plan import Budget

    found = compare_methods(
        methods,
        Budget(preset, epochs, seed, data, tuple(sets or ()), allow_code, _numbers(seeds)),
        out,
        resume,
        processes,
        at_once=at_once,
        quiet=as_json or not sys.stdout.isatty(),
        show=lambda result: _print(result, as_json),
    )
    if not as_json:
        typer.echo(f"Saved in {found.folder}")
    if found.failed:
        raise typer.Exit(1)


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",")) if text is not None else ()
    except ValueError:
        raise ContralexError(f"--seeds {text}: write whole numbers with commas between them, such as 0,1,2") from None


def _print(result: dict[str, Any], as_json: bool) -> None:
    from contralex.comparison.table import below, cells

    if as_json:
        print_json(result)
        return
    headings = result["columns"]
    print_table(list(headings.values()), [cells(row, headings) for row in result["rows"]])
    for sentence in below(result):
        typer.echo(sentence)
