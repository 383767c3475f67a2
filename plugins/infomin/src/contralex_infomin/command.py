"""``contralex view-information``: how much two views share, against what was learnt from them."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.options import AllowCode, Data, Json, Preset, Recipe, Sets, path, print_json, print_table
from contralex.plugin import ContralexError, progress

_STRENGTHS = {"colour": "0,0.25,0.5,1,1.5", "crop": "0.9,0.6,0.4,0.2,0.08"}


class Vary(StrEnum):
    COLOUR = "colour"
    CROP = "crop"


def view_information(
    recipe: Recipe,
    preset: Preset = None,
    data: Data = None,
    sets: Sets = None,
    vary: Annotated[Vary, typer.Option(help="What is made stronger: colour jitter, or cropping.")] = Vary.COLOUR,
    strengths: Annotated[
        str | None,
        typer.Option(
            help="With commas between: factors of the recipe's jitter, or the smallest share of the image in a crop.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(parser=path, help="The folder of the runs, the table and the figure.")] = Path(
        "runs/view-information"
    ),
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Train a recipe at several strengths of its views; report what the views share, and what was learnt from them.

    Strengths that have been trained in the same folder already are not trained again.
    """
    chosen = _numbers(strengths or _STRENGTHS[vary.value])
    if vary is Vary.CROP and not 0 < min(chosen) <= max(chosen) <= 1:
        raise ContralexError(f"--strengths {strengths}: each is a crop's smallest share of the image, in (0, 1]")

    from contralex.comparison.figure import MISSING, is_possible
    from contralex_infomin.study import study

    if not is_possible():
        typer.echo(f"Warning: {MISSING}", err=True)
    progress.listen("stderr")
    with redirect_stdout(sys.stderr):  # where the runs speak; the table alone is for stdout
        rows = study(recipe, preset, data, sets or [], vary.value, chosen, out, allow_code)
    if as_json:
        print_json(rows)
        return
    print_table(list(rows[0]), [[f"{value:.3g}" for value in row.values()] for row in rows])


def _numbers(text: str) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        raise ContralexError(f"--strengths {text}: give numbers with commas between, such as 0,0.5,1") from None
    if len(set(found)) < 2 or not all(0 <= number < inf for number in found):
        raise ContralexError(f"--strengths {text}: give at least two numbers, none below 0, such as 0,0.5,1")
    return found
