"""``contralex view-information``: how much two views share, against what was learnt from them."""

from __future__ import annotations

from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from contralex.plugin import ContralexError, commands, progress

_STRENGTHS = {"colour": "0,0.25,0.5,1,1.5", "crop": "0.9,0.6,0.4,0.2,0.08"}


class Vary(StrEnum):
    COLOUR = "colour"
    CROP = "crop"


def view_information(
    recipe: commands.Recipe,
    preset: commands.Preset = None,
    data: commands.Data = None,
    sets: commands.Sets = None,
    vary: Annotated[
        Vary, typer.Option(help="The augmentation to make stronger: colour jitter or cropping.")
    ] = Vary.COLOUR,
    strengths: Annotated[
        str | None,
        typer.Option(
            help="Numbers with commas between: factors of the recipe's jitter, or the smallest fraction of the image "
            "in a crop.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(parser=commands.path, help="The folder for the runs, the table and the figure.")
    ] = Path("runs/view-information"),
    allow_code: commands.AllowCode = False,
    as_json: commands.Json = False,
) -> None:
    """Train a recipe at several strengths of views.

    It measures the information that two views have in common, and how good the features become. A strength that has
    been trained in the same folder is not trained again.
    """
    chosen = _numbers(strengths or _STRENGTHS[vary.value])
    if vary is Vary.CROP and not 0 < min(chosen) <= max(chosen) <= 1:
        raise ContralexError(f"--strengths {strengths}: each is a crop's smallest fraction of the image, in (0, 1]")

    from contralex.plugin import figures
    from contralex_infomin.study import study

    if not figures.is_possible():
        typer.echo(f"Warning: {figures.MISSING}", err=True)
    progress.listen("stderr")
    rows = study(recipe, preset, data, sets or [], vary.value, chosen, out, allow_code)
    if as_json:
        commands.print_json(rows)
        return
    commands.print_table(list(rows[0]), [[f"{value:.3g}" for value in row.values()] for row in rows])


def _numbers(text: str) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        raise ContralexError(f"--strengths {text}: give numbers with commas between, such as 0,0.5,1") from None
    if len(set(found)) < 2 or not all(0 <= number < inf for number in found):
        raise ContralexError(f"--strengths {text}: give at least two numbers, none below 0, such as 0,0.5,1")
    return found
