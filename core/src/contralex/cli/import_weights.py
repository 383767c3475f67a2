"""``contralex import``: published weights as a run of step 0."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contralex import progress
from contralex.cli.options import (
    AllowCode,
    Data,
    Json,
    Preset,
    Sets,
    complete_recipes,
    path,
    print_json,
)
from contralex.errors import command_to_resume, remedy


def import_weights(
    file: Annotated[
        Path,
        typer.Argument(
            parser=path,
            metavar="FILE",
            help="A published checkpoint: .pth, .pt, .tar or .safetensors.",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="RECIPE",
            help="The recipe whose method the file holds.",
            show_default=False,
            autocompletion=complete_recipes,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(parser=path, metavar="RUN", help="The folder of the run to write.", show_default=False),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The layout of the file. Without it: the best one.", show_default=False),
    ] = None,
    preset: Preset = None,
    data: Data = None,
    sets: Sets = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave tensors of the file out. May be repeated.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what fits, and write nothing.")] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Make a run from a published checkpoint.

    The run has done no step. Begin another from its encoder, or continue it. The exit status is 1 if a dry run finds
    tensors that do not fit.
    """
    from contralex.api import importing

    progress.listen("stderr")
    found = importing.import_weights(
        file,
        recipe,
        out,
        layout=layout,
        preset=preset,
        data=data,
        sets=sets,
        skip=skip or (),
        dry_run=dry_run,
        allow_code=allow_code,
    )
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(found)
        if found.run is not None:
            _say_what_next(found.run.path, recipe, preset, data, sets, allow_code)
    if found.problems:
        raise typer.Exit(1)


def _say_what_next(run: Path, recipe: str, preset: Preset, data: Data, sets: Sets, allow_code: bool) -> None:
    options = [f"{name}={value}" for name, value in (("--preset", preset), ("--data", data)) if value is not None]
    settings = [word for text in [*(sets or ()), f"init.checkpoint={run}"] for word in ("--set", text)]
    flags = ["--allow-code"] if allow_code else []
    typer.echo(
        f"Saved in {run}. Begin another run from its encoder, or continue it:"
        + remedy("contralex", "train", recipe, *options, *settings, *flags)
        + command_to_resume(run, *flags)
    )
