"""``contralex embed``: the features of all images of a folder, into a file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from contralex import progress
from contralex.cli.options import AllowCode, path


class Which(StrEnum):
    BACKBONE = "backbone"
    EMBEDDING = "embedding"


def embed(
    run: Annotated[
        Path,
        typer.Argument(parser=path, metavar="RUN", help="A run's folder, or one checkpoint's.", show_default=False),
    ],
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A folder of images, or a kind of data such as cifar10.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=path, help="The file to write: .safetensors, .npz or .parquet.", show_default=False, metavar="FILE"
        ),
    ],
    which: Annotated[
        Which, typer.Option(help="The backbone's features, or the embedding behind the projector.")
    ] = Which.BACKBONE,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images that are encoded at once. Without it: as the run evaluates.", show_default=False
        ),
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Save the features of a folder of images.

    The file holds the features, the paths and the labels. Of a folder with splits, the images are those that a run
    would train on or evaluate on; a folder that is left out is named.
    """
    from contralex.api import embedding, feature_files, runs

    progress.listen("stderr")
    feature_files.check(out)
    opened = runs.open(run, allow_code=allow_code)
    found = embedding.embed(opened, folder, which=which.value, batch_size=batch_size, allow_code=allow_code)
    found.save(out)
    typer.echo(found)
    typer.echo(f"Saved in {out}")
