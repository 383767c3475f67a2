"""``contralex report``: what runs learnt, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.options import AllowCode, Json, complete_runs, path, print_json
from contralex.reporting.limits import IMAGES, MOST_IMAGES


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            parser=path,
            metavar="RUN...",
            help="Folders of runs, or of single checkpoints. At most 8.",
            show_default=False,
            autocompletion=complete_runs,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            metavar="FILE",
            help="The page to write. Without it: report.html in the run's folder, or of several runs in this folder.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Other images to ask the encoders about: a folder, or a kind such as cifar10.", show_default=False
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, max=MOST_IMAGES, help="Images of the map, and among which neighbours are found.")
    ] = IMAGES,
    umap: Annotated[bool, typer.Option("--umap", help="Lay the map out by UMAP as well. Needs umap-learn.")] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Write a page about one run or several.

    It has the curves, the views, nearest neighbours, a map of the images, the confusion of classes, attention, the
    spec and the commands. It is one HTML file that needs no network. If pyarrow is installed, the map is saved beside
    it as a Parquet file, which the tool embedding-atlas opens.
    """
    from contralex.api import reporting

    found = reporting.report(list(runs), out=out, data=data, images=images, umap=umap, allow_code=allow_code)
    if as_json:
        print_json(
            {
                "report": str(found.path),
                "table": str(found.table) if found.table is not None else None,
                "bytes": found.path.stat().st_size,
                "left_out": list(found.left_out),
            }
        )
        return
    for sentence in found.left_out:
        typer.echo(f"Left out: {sentence}", err=True)
    if found.table is not None:
        typer.echo(f"Map saved in {found.table}")
    typer.echo(f"Saved in {found.path}")
