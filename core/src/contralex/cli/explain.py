"""``contralex explain``: a method in its five slots, on the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.options import AllowCode, Preset, Recipe, Sets, path, write_out
from contralex.errors import ContralexError


def explain(
    recipe: Recipe,
    preset: Preset = None,
    sets: Sets = None,
    picture: Annotated[
        Path | None,
        typer.Option("--svg", parser=path, help="Draw the method into this file as well.", show_default=False),
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Explain a method: its parts and its gradients.

    It says what stands in each of the five slots, and where gradients flow.
    """
    from contralex.api import recipes

    method = recipes.explain(recipe, preset=preset, sets=sets, allow_code=allow_code)
    typer.echo(repr(method))
    if picture is not None:
        if not picture.parent.is_dir():
            raise ContralexError(f"--svg {picture}: there is no folder {picture.parent}; make it first")
        write_out("--svg", picture, method.svg())
        typer.echo(f"\nDrawn into {picture}.", err=True)
