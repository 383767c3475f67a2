"""``contralex eval quality``, ``retrieval`` and ``few-label``. Imports no torch before the options are read."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from contralex import progress
from contralex.cli.options import AllowCode, Checkpoint, Data, Json, Sets, path, print_json, print_table
from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.evaluation.base import Measures
    from contralex.evaluation.records import Evaluation

Number = TypeVar("Number", int, float)


class Which(StrEnum):
    BACKBONE = "backbone"
    EMBEDDING = "embedding"


class Gallery(StrEnum):
    TEST = "test"
    TRAIN = "train"


Features = Annotated[Which, typer.Option(help="The backbone's features, or the embedding behind the projector.")]


def quality(
    run: Checkpoint,
    data: Data = None,
    features: Features = Which.BACKBONE,
    samples: Annotated[int, typer.Option(min=2, help="Images at most, a fixed random part.")] = 10_000,
    drawn: Annotated[int, typer.Option(min=2, help="Images at most that are seen in random views.")] = 1000,
    draws: Annotated[int, typer.Option(min=2, help="Random views of each of them.")] = 10,
    neighbours: Annotated[int, typer.Option(min=1, help="Nearest neighbours whose overlap is measured.")] = 10,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Measure features without labels.

    RankMe, effective rank, alpha-ReQ and LiDAR say how many directions the features use. Alignment,
    uniformity and the overlap of neighbours say how they lie to each other. The untrained encoder is measured as well.
    """
    opened = _open(run, allow_code)
    found = opened.quality(
        data, features=features.value, samples=samples, drawn=drawn, draws=draws, neighbours=neighbours, sets=sets
    )
    show(found, as_json)


def retrieval(
    run: Checkpoint,
    data: Data = None,
    features: Features = Which.BACKBONE,
    recall: Annotated[str, typer.Option(help="Numbers of neighbours, with commas.", metavar="K,K")] = "1,5,10",
    gallery: Annotated[Gallery, typer.Option(help="Search the other test images, or the training images.")] = (
        Gallery.TEST
    ),
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Search for images of the same class.

    The figures are the mean average precision, and the recall at numbers of neighbours.
    """
    opened = _open(run, allow_code)
    ks = whole_numbers("--recall", recall)
    show(opened.retrieval(data, features=features.value, recall=ks, gallery=gallery.value, sets=sets), as_json)


def few_label(
    run: Checkpoint,
    data: Data = None,
    features: Features = Which.BACKBONE,
    fractions: Annotated[
        str, typer.Option(help="Fractions of the labels, with commas; an empty text leaves them out.", metavar="F,F")
    ] = "0.01,0.1",
    subset: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            help="In place of fractions: a list of the images to learn from, such as the official 1percent.txt.",
            show_default=False,
            metavar="FILE",
        ),
    ] = None,
    shots: Annotated[
        str, typer.Option(help="Images of each class in an episode; an empty text leaves them out.", metavar="K,K")
    ] = "1,5",
    ways: Annotated[int, typer.Option(min=2, help="Classes in an episode.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Images of each class that an episode classifies.")] = 15,
    episodes: Annotated[int, typer.Option(min=2, help="Episodes.")] = 600,
    svm: Annotated[
        str, typer.Option(help="Images of each class to train SVMs on, with commas.", metavar="K,K", show_default=False)
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="The seed of all random choices.")] = 0,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Classify with few labels on frozen features.

    A linear probe learns from 1 % and 10 % of the labels. Episodes of a few classes have one and five images of each.
    `--svm` trains support vector machines as VISSL does. To train the encoder further: contralex finetune
    """
    opened = _open(run, allow_code)
    found = opened.few_label(
        data,
        features=features.value,
        fractions=numbers("--fractions", fractions),
        subset=subset,
        shots=whole_numbers("--shots", shots),
        ways=ways,
        queries=queries,
        episodes=episodes,
        svm=whole_numbers("--svm", svm),
        seed=seed,
        sets=sets,
    )
    show(found, as_json)


def transfer(
    run: Checkpoint,
    to: Annotated[
        str, typer.Option(help="Kinds of data, with commas, such as cifar10,dtd.", metavar="DATA,DATA")
    ] = "cifar10,cifar100,flowers102,oxford_pets,food101,dtd,aircraft",
    root: Annotated[str, typer.Option(help="The folder of their files.", metavar="FOLDER")] = "data",
    download: Annotated[bool, typer.Option("--download", help="Download what is not in --root.")] = False,
    decays: Annotated[
        str, typer.Option(help="Weight decays to choose from, with commas.", metavar="W,W", show_default=False)
    ] = "",
    features: Features = Which.BACKBONE,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Classify other data sets on frozen features.

    Nearest neighbours and a linear classifier learn from the training images of each data set.
    """
    opened = _open(run, allow_code)
    found = opened.transfer(
        [name.strip() for name in to.split(",") if name.strip()],
        root=root,
        download=download,
        features=features.value,
        decays=numbers("--decays", decays),
        sets=sets,
    )
    if as_json:
        print_json({name: each.record for name, each in found.items()})
        return
    names = list(next(iter(found.values())).figures) if found else []
    rows = [[name, *(f"{each.figures[figure]:.1%}" for figure in names)] for name, each in found.items()]
    print_table(["data", *names], rows)
    for each in found.values():
        typer.echo(each.text)


def segmentation(
    run: Checkpoint,
    data: Annotated[str, typer.Option(help="The folder with images and masks.", metavar="FOLDER")],
    positions: Annotated[int, typer.Option(min=1, help="Positions to learn from, at most.")] = 100_000,
    weight_decay: Annotated[float, typer.Option(help="The weight decay of the classifier.", metavar="W")] = 1e-3,
    ignored: Annotated[int, typer.Option(help="The value of pixels that have no class.", metavar="VALUE")] = 255,
    seed: Annotated[int, typer.Option(min=0, help="The seed of all random choices.")] = 0,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Classify each position of images linearly.

    The folder holds `images` and `masks` of the same names, or `train` and `val` that hold them. A mask
    has one channel, whose values are the classes.
    """
    opened = _open(run, allow_code)
    found = opened.segmentation(
        data, positions=positions, weight_decay=weight_decay, ignored=ignored, seed=seed, sets=sets
    )
    show(found, as_json)


def numbers(option: str, text: str) -> list[float]:
    """``0.1,1`` as numbers."""
    return _read_list(option, text, float, "numbers")


def whole_numbers(option: str, text: str) -> list[int]:
    """``1,5`` as whole numbers."""
    return _read_list(option, text, int, "whole numbers")


def _read_list(option: str, text: str, read: Callable[[str], Number], what: str) -> list[Number]:
    try:
        return [read(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ContralexError(f"{option} {text}: give {what} with commas between them, such as {option} 1,5") from None


def show(found: Evaluation[Measures], as_json: bool) -> None:
    """The figures of each subject, the protocol, and the line for a paper; or the whole record."""
    if as_json:
        print_json(found.record)
        return
    names = list(found.figures)
    print_table(
        ["figure", *found],
        [[name, *(_figure(result.figures.get(name)) for result in found.values())] for name in names],
    )
    typer.echo("; ".join(f"{name}: {value}" for name, value in found.protocol.items()))
    typer.echo(found.text)
    if found.file is not None:
        progress.say(f"Kept in {found.file}")


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}"


def _open(run: Path, allow_code: bool) -> Any:
    from contralex.api import runs

    progress.listen("stderr")
    return runs.open(run, allow_code=allow_code)
