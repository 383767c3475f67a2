"""The views of a few samples, as the method sees them: a row for each sample, a column for each view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from contralex.data.base import Split, Unreadable, printable
from contralex.data.loading import DrawnTogether, Order, mix_seed
from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.lookup.view import ViewBatch, company_of, pixels_of
from contralex.reporting.limits import NAME, VIEWS
from contralex.reporting.thumbnails import to_image

_TRIES = 20  # at an item that can be read
_COVER = 0.85  # how much of a masked patch is grey: what lies below can still be guessed
_NUMBERS = 8  # of a companion that are written out


@dataclass(frozen=True)
class ViewCell:
    """One view: a picture, or a text where it is none; and what it went through, as far as its engine knows."""

    image: Image.Image | None
    text: str
    steps: Sequence[str]


@dataclass(frozen=True)
class ViewRow:
    """A sample, as its file has it (None where it is no image), and its views."""

    name: str
    original: Image.Image | None
    cells: Sequence[ViewCell]


@dataclass(frozen=True)
class ViewRows:
    """``columns``: the names of the views. ``left_out``: how many more views there are."""

    columns: Sequence[str]
    rows: Sequence[ViewRow]
    left_out: int = 0


def view_rows(
    split: Split, views: Views, seed: int, samples: int, *, batch: int = 1, most: int = VIEWS, epoch: int = 0
) -> ViewRows:
    """The views that a run with this seed and batches of ``batch`` makes of ``samples`` samples in an epoch, counted
    from 0: the same pixels.

    The samples stand evenly apart in the split. For one that cannot be read the next that can is taken. Of each at most
    ``most`` views are made.
    """
    count = min(views.count, most)
    wanted = min(samples, len(split))
    rows: list[ViewRow] = []
    together = DrawnTogether(views, Order(len(split), batch, seed)) if views.shares_draws else None
    with torch.random.fork_rng(devices=[]):
        for start in (number * len(split) // wanted for number in range(wanted)):
            index, item = _readable(split, start)
            seeds = [mix_seed(seed, epoch, index, views.draw(view)) for view in range(count)]
            share = (together.share(epoch, index),) if together else ()
            cells = [_cell(views, item, view, seeds[view], *share) for view in range(count)]
            original = item if isinstance(item, Image.Image) else None
            rows.append(ViewRow(short_name(split.item_name(index)), original, cells))
    return ViewRows(list(names(views, count)), rows, views.count - count)


def make_view(views: Views, item: Any, view: int, seed: int, *share: Any) -> tuple[ViewBatch, Any]:
    """A view as training makes it with this seed, and the parameters that were drawn for it. ``share``: its share of
    what its batch has drawn, where the views of a batch draw together."""
    torch.default_generator.manual_seed(seed)
    parameters = views.draw_with_share(item, view, *share) if share else views.draw_parameters(item, view)
    return views.make_drawn([item], view, [parameters])[0], parameters


def names(views: Views, count: int) -> Iterator[str]:
    for view in range(count):
        named = views.names[view] if view < len(views.names) else ""
        yield f"view {view}" + (f": {named}" if named else "")


def short_name(name: str) -> str:
    """The end of a path, which says most: the file and its folder."""
    end = "/".join(PurePath(printable(name)).parts[-2:])
    return end if len(end) <= NAME else f"…{end[-NAME + 1 :]}"


def _cell(views: Views, item: Any, view: int, seed: int, *share: Any) -> ViewCell:
    made, parameters = make_view(views, item, view, seed, *share)
    shown = views.to_picture(pixels_of(made), view, item)
    company = company_of(made)
    steps = [*views.describe_drawn(parameters, view), *(_describe(name, value) for name, value in company.items())]
    if isinstance(shown, str):
        return ViewCell(None, shown, steps)
    return ViewCell(to_image(cover_masked(shown, company["mask"]) if "mask" in company else shown), "", steps)


def cover_masked(picture: Tensor, mask: Tensor) -> Tensor:
    """A picture (..., C, H, W) in [0, 1] with its masked patches in grey. ``mask`` (P,): patches row after row, in a
    grid that is shaped as the picture; of another shape it covers nothing."""
    height, width = picture.shape[-2:]
    rows = round((len(mask) * height / width) ** 0.5)
    if mask.dim() != 1 or rows == 0 or len(mask) % rows:
        return picture
    grid = mask.view(1, 1, rows, -1).float()
    covered = nn.functional.interpolate(grid, (height, width), mode="nearest")[0, 0] > 0
    return torch.where(covered, picture * (1 - _COVER) + 0.5 * _COVER, picture)


def _describe(name: str, value: Tensor) -> str:
    """A companion of a view's pixels, in a phrase."""
    if value.dtype == torch.bool:
        return f"{name}: {int(value.sum())} of {value.numel()}"
    if value.numel() > _NUMBERS:
        return f"{name}: {' × '.join(map(str, value.shape))} values"
    return f"{name}: {', '.join(f'{number:g}' for number in value.flatten().tolist())}"


def _readable(split: Split, start: int) -> tuple[int, Any]:
    last: Unreadable | None = None
    for index in range(start, min(start + _TRIES, len(split))):
        try:
            return index, split[index]
        except Unreadable as error:
            last = error
    reason = f": {last.path}: {last.reason}" if last is not None else ""
    raise ContralexError(f"none of {_TRIES} samples from number {start} on can be read{reason}")
