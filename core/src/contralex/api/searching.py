"""The images of a folder that are most like given ones, by the encoder of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from contralex import progress
from contralex.api import contact_sheet
from contralex.api.arguments import checked
from contralex.api.contact_sheet import Cell, Section
from contralex.api.embedding import Embeddings, embed
from contralex.api.image_items import ImageItems, class_name, describe, describe_skipped, open_images, round_cosine
from contralex.api.settings import PathLike, path_text
from contralex.data import images as image_files
from contralex.data.base import Split, Unreadable, printable
from contralex.data.loading import EvalDataset
from contralex.errors import ContralexError
from contralex.evaluation.encoding import encode
from contralex.evaluation.features import Which, feature_function
from contralex.evaluation.neighbours import find_neighbours
from contralex.files import expand_user
from contralex.kinds.datasets.limits import MAX_PIXELS
from contralex.recipes.code_files import permission
from contralex.training import build, devices
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import open_checkpoint

_SHOWN = 10  # queries whose neighbours are printed
_SPARE = 16  # images beyond k that are looked at: the query itself, and those whose cosines differ by rounding alone


@dataclass(frozen=True)
class Neighbour:
    """An image that was found: its ``path`` in the folder, its ``cosine`` with the query, the name of its class, and
    whether it is the query's own file."""

    path: str
    cosine: float
    class_name: str | None = None
    is_query: bool = False


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The nearest images of each query. It prints as a few lines.

    ``neighbours``: for each of the ``queries`` a list, the nearest first. ``embeddings``: of the images that were
    searched, with what could not be read. ``which``: the features by which they were compared.
    """

    queries: list[str]
    neighbours: list[list[Neighbour]]
    which: Which
    embeddings: Embeddings
    images: ImageItems = field(repr=False, compare=False)
    asked: Queries = field(repr=False, compare=False)

    def save_picture(self, path: PathLike) -> Path:
        """Draw each query beside its neighbours into a ``.png``, ``.jpg`` or ``.html`` file. Returns its path."""
        return contact_sheet.save(path, self.headline(), self._sections())

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            **describe(self.embeddings, self.which),
            "queries": [
                {
                    "query": query,
                    "neighbours": [
                        {"path": each.path, "cosine": each.cosine, "class": each.class_name, "is_query": each.is_query}
                        for each in found
                    ],
                }
                for query, found in zip(self.queries, self.neighbours, strict=True)
            ],
        }

    def rows(self) -> list[list[str]]:
        """The table: query, rank, cosine, path, class, and a note."""
        return [
            [
                query,
                str(rank),
                f"{each.cosine:.3f}",
                each.path,
                each.class_name or "",
                "the query itself" if each.is_query else "",
            ]
            for query, found in zip(self.queries, self.neighbours, strict=True)
            for rank, each in enumerate(found, 1)
        ]

    def _sections(self) -> Iterator[Section]:
        for number, (query, found) in enumerate(zip(self.queries, self.neighbours, strict=True)):
            cells = [Cell(query, "query", partial(self.asked.__getitem__, number), marked=True)]
            cells += [Cell(each.path, _caption(each), partial(self.images.read, each.path)) for each in found]
            yield Section(query, cells)

    def headline(self) -> str:
        return f"The nearest of {len(self.embeddings):,} images, by the cosine of the {self.which} features"

    def below(self) -> list[str]:
        """The sentences under the table."""
        return describe_skipped(self.embeddings)

    def __repr__(self) -> str:
        lines = [self.headline()]
        for query, found in list(zip(self.queries, self.neighbours, strict=True))[:_SHOWN]:
            lines += [f"{query}:", *(f"  {_caption(each)}  {each.path}" for each in found)]
        if len(self.queries) > _SHOWN:
            lines.append(f"... and {len(self.queries) - _SHOWN:,} more queries")
        return "\n".join([*lines, *self.below()])


def _caption(neighbour: Neighbour) -> str:
    note = "the query itself" if neighbour.is_query else neighbour.class_name
    return f"{neighbour.cosine:.3f}" + (f", {note}" if note else "")


Query = PathLike | Image.Image


@checked
def search(
    run: PathLike,
    images: Query | Sequence[Query],
    data: PathLike | None = None,
    *,
    k: int = 10,
    which: Which = "backbone",
    without_query: bool = False,
    batch_size: int | None = None,
    allow_code: bool = False,
) -> SearchResult:
    """The ``k`` images of a folder that are nearest to each of some images, by the cosine of their features.

    ``images``: a path or an image of PIL, or a list of them. ``data``: where is searched, a folder or a kind such as
    ``cifar10``; without it, the run's own data. ``which``: the ``backbone``'s features, or the ``embedding`` behind the
    projector. An image that lies in the folder finds itself: it is marked, or left out by ``without_query``. There are
    fewer neighbours where the folder has fewer images. The features of the folder are those of :func:`embed`.

    >>> import contralex
    >>> found = contralex.search("runs/my-run", "photos/cat/0.png", "photos", k=3)
    >>> found.neighbours[0][0].path, found.neighbours[0][0].is_query
    ('cat/0.png', True)
    """
    if k < 1:
        raise ContralexError(f"search: k is {k}, and must be at least 1")
    asked = [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)
    if not asked:
        raise ContralexError("search: give an image to search for")
    with progress.listening("stderr"):
        queries = Queries(asked)
        one = open_checkpoint(Path(run), [MODEL]).folder  # for all that follows: a run that is trained writes others
        items = open_images(one, path_text(data), allow_code, "search")
        features = _features(one, queries, which, batch_size, allow_code)  # first: what cannot be read is said here
        found = embed(one, data, which=which, batch_size=batch_size, allow_code=allow_code)
        scores, index = find_neighbours(features, found.features, k + _SPARE, device=devices.to_evaluate_on())
    lists = [
        _neighbours(found, items, file, line, own)
        for file, line, own in zip(queries.files, scores.tolist(), index.tolist(), strict=True)
    ]
    lists = [[each for each in line if not (without_query and each.is_query)][:k] for line in lists]
    return SearchResult(queries.names, lists, which, found, items, queries)


class Queries(Split):
    """The images that are searched for. Each is read where it is needed, so that many take no memory."""

    def __init__(self, asked: Sequence[Query]) -> None:
        super().__init__()
        self._asked = asked
        self.names = [
            f"image {number}" if isinstance(query, Image.Image) else printable(os.fspath(query))
            for number, query in enumerate(asked, 1)
        ]
        self.files = [None if isinstance(query, Image.Image) else expand_user(os.fspath(query)) for query in asked]
        for file in self.files:
            _check_file(file)

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, index: int) -> Image.Image:
        query = self._asked[index]
        if isinstance(query, Image.Image):
            return image_files.to_rgb(query)
        try:
            return image_files.read(expand_user(os.fspath(query)), MAX_PIXELS)
        except Unreadable as error:
            raise ContralexError(f"search: {error.path} cannot be read: {error.reason}") from None


def _check_file(file: Path | None) -> None:
    if file is not None and not file.exists():
        raise ContralexError(f"search: there is no file {printable(file)}")
    if file is not None and file.is_dir():
        raise ContralexError(f"search: {printable(file)} is a folder; give the image to search for")


def _features(run: Path, queries: Queries, which: Which, batch_size: int | None, allow_code: bool) -> Tensor:
    """(Q, F), as :func:`embed` makes them."""
    with permission(allow_code):
        checkpoint = open_checkpoint(run, [MODEL])
        spec = checkpoint.resolved().run
        device = devices.to_evaluate_on()
        encoder = devices.place(build.encoder_of(checkpoint, spec), device, spec.train.channels_last)
        function = feature_function(encoder, which)
        dataset = EvalDataset(queries, spec.method.views.build())
        blocks = encode(function, dataset, batch_size or spec.eval.batch_size, device, workers=0)
        return torch.cat([features.cpu() for features, _ in blocks])


def _neighbours(
    found: Embeddings, items: ImageItems, query: Path | None, cosines: Sequence[float], index: Sequence[int]
) -> list[Neighbour]:
    ranked = sorted((-round_cosine(cosine), number) for cosine, number in zip(cosines, index, strict=True))
    return [
        Neighbour(path := found.paths[number], -cosine, class_name(found, number), _is_file(items.file(path), query))
        for cosine, number in ranked
    ]


def _is_file(one: Path | None, other: Path | None) -> bool:
    """Whether both are the same file, by whatever path or link."""
    try:
        return one is not None and other is not None and os.path.samefile(one, other)
    except OSError:  # one was removed meanwhile
        return False
