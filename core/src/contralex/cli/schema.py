"""``contralex schema``: what a YAML editor needs to complete and check a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.options import path, write_out


def schema(
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The file to write. Without it, the schema is printed.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of recipes, for editors.

    It holds every kind and recipe that is installed.
    """
    from contralex.cli.look import warn_of_unusable
    from contralex.recipes.json_schema import recipe_schema

    text = json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"
    warn_of_unusable()
    if out is None:
        typer.echo(text, nl=False)
        return
    write_out("--out", out, text)
