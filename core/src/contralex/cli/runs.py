"""``contralex runs``: what a folder of runs holds. Imports no torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.options import Json, path, print_json, print_table


class SortBy(StrEnum):
    CHANGED = "changed"
    NAME = "name"
    RECIPE = "recipe"
    STATE = "state"
    STEPS = "steps"
    LOSS = "loss"
    KNN = "knn"
    SECONDS = "seconds"
    SIZE = "size"


def runs(
    folder: Annotated[Path, typer.Argument(parser=path, metavar="[FOLDER]", help="The folder that holds runs.")] = Path(
        "runs"
    ),
    sort: Annotated[
        SortBy, typer.Option(help="The column to sort by. Names and losses begin with the smallest, the others do not.")
    ] = SortBy.CHANGED,
    as_json: Json = False,
) -> None:
    """List the runs in a folder.

    Each line has a run's recipe, its state (running, ended, stopped or failed), its steps, its last loss, its kNN
    accuracy, its time and its size. Folders of comparisons are searched as well.
    """
    from contralex.api import run_list

    found = run_list.runs(folder, sort=sort.value)
    if as_json:
        print_json(found.as_dicts())
        return
    if not found:
        typer.echo(repr(found))
        return
    print_table(run_list.COLUMNS, [run.cells() for run in found])
    for sentence in found.below():
        typer.echo(sentence)
