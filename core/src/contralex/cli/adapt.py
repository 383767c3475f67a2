"""``contralex adapt``: a published encoder goes on learning from one's own images, as long as it helps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contralex import progress
from contralex.cli.options import Data, Json, Sets, path, print_json, print_table


def adapt(
    encoder: Annotated[
        str | None,
        typer.Argument(
            metavar="ENCODER", help="A published encoder, such as dinov2-vits14, or timm/NAME.", show_default=False
        ),
    ] = None,
    data: Data = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            metavar="FILE",
            help="The published file. Without it: one of that name, here or where torch.hub keeps its downloads.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path, metavar="FOLDER", help="The folder to write. Without it: below runs.", show_default=False
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs at most. Without it: 20.", show_default=False)
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs between evaluations. Without it: a tenth of all.", show_default=False),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Evaluations that may be no better than the best before it stops. Without it: 3.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels of the large crops. Without it: 224.", show_default=False)
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The recipe to go on with. Without it: the encoder's.", show_default=False),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="FIGURE",
            help="The figure that decides. Without it: knn_top1 where there are labels, else lidar, or rankme of mae.",
            show_default=False,
        ),
    ] = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the adaptation in --out, by the settings that it has.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Go on pre-training a published encoder.

    It learns from your own images, without labels. The untouched weights are evaluated beside the adapted ones, the
    best checkpoint is kept, and training stops when it no longer helps. Nothing is downloaded.
    """
    from contralex.api import adapting

    progress.listen("stderr")
    found = adapting.adapt(
        encoder,
        data,
        weights=weights,
        out=out,
        epochs=epochs,
        every=every,
        patience=patience,
        size=size,
        recipe=recipe,
        by=by,
        sets=sets,
        resume=resume,
    )
    if as_json:
        print_json(found.to_dict())
        return
    print_table(*found.table())
    for sentence in found.sentences():
        typer.echo(sentence)
