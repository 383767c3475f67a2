"""Options that several commands have, and printing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from contralex.api.settings import set_texts
from contralex.errors import ContralexError
from contralex.files import expand_user
from contralex.streams import can_print

_NAME_LIMIT = 255  # bytes of a file's name, on every system that is in use


def path(text: str | Path) -> Path:
    """A path that a user gave: ``~`` is a home, and what no system takes is refused before anything is done."""
    given = expand_user(str(text))
    if not str(text).strip():
        raise typer.BadParameter("it is empty; give a path, or leave the option out")
    if "\0" in str(text):
        raise typer.BadParameter("a path holds no NUL character")
    name = next((name for name in given.parts if len(os.fsencode(name)) > _NAME_LIMIT), None)
    if name is not None:
        raise typer.BadParameter(f"a name has at most {_NAME_LIMIT} bytes, and {name[:40]}... has more")
    return given


def with_epochs(sets: Sequence[str] | None, epochs: int | None) -> list[str]:
    """``--epochs N`` as ``--set train.epochs=N``, which is refused beside it."""
    return set_texts(sets, epochs)


def complete_recipes(incomplete: str) -> list[str]:
    """For shells: the installed recipes of this beginning. Where there is none, shells complete files."""
    from contralex.plugins.registry import registry

    return [name for name in sorted(registry().recipes()) if name.startswith(incomplete)]


def complete_presets(ctx: typer.Context, incomplete: str) -> list[str]:
    """For shells: the presets of the installed recipes that stand before the option, parsed or not."""
    from contralex.api.method_list import presets
    from contralex.plugins.registry import registry

    words = ctx.parent.args if ctx.parent is not None else []
    there = {name: None for word in words if word in registry().recipes() for name in presets(word)}
    return [name for name in there if name.startswith(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """For shells: the folders of runs below ``runs``. Where there is none, shells complete files."""
    return [
        str(spec.parent) for spec in sorted(Path("runs").glob("*/spec.yaml")) if str(spec.parent).startswith(incomplete)
    ]


Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="The name of an installed recipe, or the path of a YAML file.",
        show_default=False,
        autocompletion=complete_recipes,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="A named set of changes that the recipe offers, such as digits.",
        show_default=False,
        autocompletion=complete_presets,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="Your data: a folder or file, or a kind of data such as cifar10.", show_default=False),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value of the recipe. May be repeated.", show_default=False
    ),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run the Python files that the recipe names in `code`. Trust them first.")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="The same as --set train.epochs=N.", metavar="N", show_default=False)
]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        parser=path,
        metavar="RUN",
        help="A run's folder, or one checkpoint's.",
        show_default=False,
        autocompletion=complete_runs,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def must_exist(checkpoint: Path) -> None:
    if not checkpoint.exists():
        raise ContralexError(f"there is no folder {checkpoint}; give a run's folder, or one of its checkpoints")


def print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo(text if can_print(text, sys.stdout) else json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere lines of cells with a tab between them, for grep and cut, the header first."""
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
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
    Console(markup=False).print(table)


def write_out(option: str, path: Path, text: str) -> None:
    """Writes a file that an option names."""
    from contralex.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise ContralexError(f"{option} {path}: the file cannot be written ({error.strerror})") from None
