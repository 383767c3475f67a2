"""``contralex search``, ``cluster`` and ``duplicates``: what is in a folder of images, by the encoder of a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contralex import progress
from contralex.cli.embed import Which
from contralex.cli.options import AllowCode, Checkpoint, Json, path, print_json, print_table
from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.api.clustering import Clusters
    from contralex.api.duplicates import Duplicates
    from contralex.api.searching import SearchResult


class By(StrEnum):
    KMEANS = "kmeans"
    HDBSCAN = "hdbscan"


Folder = Annotated[
    str,
    typer.Argument(metavar="FOLDER", help="A folder of images, or a kind of data such as cifar10.", show_default=False),
]
Features = Annotated[
    Which, typer.Option("--which", help="The backbone's features, or the embedding behind the projector.")
]
Picture = Annotated[
    Path | None,
    typer.Option(
        parser=path, metavar="FILE", help="A picture of the result to write: .png, .jpg or .html.", show_default=False
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Images that are encoded at once. Without it: as the run evaluates.", show_default=False),
]


def search(
    run: Checkpoint,
    images: Annotated[
        list[Path], typer.Argument(parser=path, metavar="IMAGE...", help="Images to search for.", show_default=False)
    ],
    folder: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="FOLDER",
            help="The folder to search in, or a kind of data such as cifar10. Without it: the run's own data.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Images to find for each.")] = 10,
    without_query: Annotated[
        bool, typer.Option("--without-query", help="Leave out an image of the folder that is the query itself.")
    ] = False,
    which: Features = Which.BACKBONE,
    picture: Picture = None,
    batch_size: BatchSize = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Find the images of a folder that look alike.

    They are the nearest by the cosine of their features. A query that lies in the folder finds itself, and is marked.
    """
    from contralex.api import contact_sheet, searching

    progress.listen("stderr")
    if picture is not None:
        contact_sheet.check(picture)
    found = searching.search(
        run,
        images,
        folder,
        k=k,
        which=which.value,
        without_query=without_query,
        batch_size=batch_size,
        allow_code=allow_code,
    )
    _show(found, ["query", "rank", "cosine", "path", "class", "note"], picture, as_json)


def duplicates(
    run: Checkpoint,
    folder: Folder,
    threshold: Annotated[
        float, typer.Option(min=-1, max=1, help="The cosine from which on two images are near-duplicates.")
    ] = 0.95,
    which: Features = Which.BACKBONE,
    picture: Picture = None,
    batch_size: BatchSize = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Find copies and near-duplicates in a folder.

    Files with the same content are found first, then the images whose features have a cosine of at least the
    threshold. Nothing is removed. In each group the first image is the one with the largest file.
    """
    from contralex.api import contact_sheet
    from contralex.api import duplicates as api

    progress.listen("stderr")
    if picture is not None:
        contact_sheet.check(picture)
    found = api.duplicates(
        run, folder, threshold=threshold, which=which.value, batch_size=batch_size, allow_code=allow_code
    )
    _show(found, ["group", "cosine", "path", "class", "note"], picture, as_json)


def cluster(
    run: Checkpoint,
    folder: Folder,
    clusters: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The number of clusters for k-means. Without it, the number with the best silhouette is taken.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[By, typer.Option(help="The algorithm. HDBSCAN finds the number of clusters itself.")] = By.KMEANS,
    min_size: Annotated[
        int | None,
        typer.Option(
            min=2, help="With --by hdbscan: the fewest images of a cluster. Without it: 5.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of k-means and of samples.")] = 0,
    which: Features = Which.BACKBONE,
    picture: Picture = None,
    batch_size: BatchSize = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Find clusters of similar images in a folder.

    The classes of the folder are not looked at. Where it has some, the agreement of clusters and classes is printed.
    """
    from contralex.api import clustering, contact_sheet

    progress.listen("stderr")
    if picture is not None:
        contact_sheet.check(picture)
    found = clustering.cluster(
        run,
        folder,
        clusters=clusters,
        by=by.value,
        min_size=min_size,
        seed=seed,
        which=which.value,
        batch_size=batch_size,
        allow_code=allow_code,
    )
    _show(found, ["cluster", "images", "classes", "nearest to the centre"], picture, as_json)


def _show(found: SearchResult | Duplicates | Clusters, columns: list[str], picture: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(found.as_dict())
    else:
        typer.echo(found.headline())
        print_table(columns, found.rows())
        for line in found.below():
            typer.echo(line)
    if picture is None:
        return
    try:
        found.save_picture(picture)
    except OSError as error:
        raise ContralexError(f"--picture {picture}: the file cannot be written ({error.strerror})") from None
    typer.echo(f"Saved in {picture}", err=as_json)
