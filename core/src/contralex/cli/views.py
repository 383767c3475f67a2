"""``contralex views``: the augmented views of some samples, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.options import AllowCode, Data, Preset, Recipe, Sets, path


def views(
    recipe: Recipe,
    preset: Preset = None,
    data: Data = None,
    sets: Sets = None,
    samples: Annotated[int, typer.Option(min=1, max=100, help="Samples that are drawn.")] = 6,
    out: Annotated[
        Path, typer.Option(parser=path, metavar="FILE", help="The file to draw into: .png or .html.")
    ] = Path("views.png"),
    allow_code: AllowCode = False,
) -> None:
    """Draw the views that a method will see.

    Each row is a sample and each column a view, with what it went through. The views are those of the first epoch
    of a training with these options. Nothing is trained.
    """
    from contralex.api import viewing

    viewing.check_name(out)
    found = viewing.views(recipe, preset=preset, data=data, sets=sets, samples=samples, allow_code=allow_code)
    found.save(out)
    typer.echo(f"Saved in {out}")
