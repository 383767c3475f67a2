"""Options that several commands have, and printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from contralex.errors import ContralexError

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="The name of an installed recipe, or the path of a YAML file.", show_default=False
    ),
]
Preset = Annotated[
    str | None, typer.Option(help="A named set of changes that the recipe offers, such as digits.", show_default=False)
]
Data = Annotated[
    str | None,
    typer.Option(help="A folder or file, or a kind such as cifar10.", show_default=False),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one value; may be repeated.", show_default=False),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run the Python files that the recipe names in `code`. Trust them first.")
]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A run's folder, or one checkpoint's.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def must_exist(checkpoint: Path) -> None:
    if not checkpoint.exists():
        raise ContralexError(f"there is no folder {checkpoint}; give a run's folder, or one of its checkpoints")


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere lines of cells with a tab between them, for grep and cut."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0)  # a shortened name would name another
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text, because a reason may hold [brackets]
    Console().print(table)


def write_out(option: str, path: Path, text: str) -> None:
    """Writes a file that an option names."""
    from contralex.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise ContralexError(f"{option} {path}: the file cannot be written ({error.strerror})") from None
