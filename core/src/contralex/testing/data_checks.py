"""Checks on views and data sets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from contralex.data.base import Source, Unreadable
from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.lookup.view import View, ViewBatch, company_of, pixels_of, stack_views
from contralex.testing import matching_parts
from contralex.testing.check_errors import Failed, NotApplicable
from contralex.testing.plugin_contents import Kind
from contralex.testing.trials import make_together


def views_follow_the_seed(kind: Kind) -> None:
    """A view is a function of torch's seed alone; the view of evaluation draws nothing."""
    with _items(kind) as (views, items), torch.random.fork_rng(devices=[]):
        for view in range(views.count):
            torch.manual_seed(5)
            one = views.make(items[0], view)
            torch.manual_seed(5)
            if not _are_equal(one, views.make(items[0], view)):
                raise Failed(f"view {view} of one item is another with the same seed; draw from torch's generator only")
        state = torch.get_rng_state()
        plain = views.plain(items[0])
        if not torch.equal(state, torch.get_rng_state()) or not torch.equal(plain, views.plain(items[0])):
            raise Failed("plain() is random; it is what evaluation sees")
        if views.shares_draws:
            _check_shares(views, items)


def views_stack(kind: Kind) -> None:
    """Every item's view has one shape and is finite, so that views make a batch; key_flags() has one flag a view."""
    with _items(kind) as (views, items):
        flags = kind.example().key_flags()
        if flags is not None and len(flags) != views.count:
            raise Failed(f"key_flags() has {len(flags)} flags, and there are {views.count} views")
        for view in range(views.count):
            made = make_together(views, items, view)
            shapes = {tuple(pixels_of(one).shape) for one in made if isinstance(one, Tensor | View)}
            if len(shapes) != 1:
                raise Failed(f"view {view} has the shapes {shapes or 'of no tensor'}; one is needed to make a batch")
            try:
                batch = stack_views(made)
            except ContralexError as error:
                raise Failed(f"view {view} makes no batch: {error}") from None
            for name, value in {"values": pixels_of(batch), **company_of(batch)}.items():
                if not bool(value.isfinite().all()):
                    raise Failed(f"view {view} has {name} that are not finite")


def _check_shares(views: Views, items: Sequence[Any]) -> None:
    """What a batch draws together is a function of the generator that it is given, with a share for each sample."""
    made: list[list[ViewBatch]] = []
    for seed in (1, 2):  # of torch's global generator, from which a batch draws nothing
        torch.manual_seed(seed)
        shares = views.draw_for_batch(len(items), torch.Generator().manual_seed(5))
        if len(shares) != len(items):
            raise Failed(f"draw_for_batch() gives {len(shares)} shares for {len(items)} samples; give one for each")
        torch.manual_seed(5)
        made.append([])
        for view in range(views.count):
            drawn = [views.draw_with_share(item, view, share) for item, share in zip(items, shares, strict=True)]
            made[-1].append(stack_views(views.make_drawn(items, view, drawn)))
    for view, (one, other) in enumerate(zip(*made, strict=True)):
        if not _are_equal(one, other):
            raise Failed(
                f"view {view} of a batch is another with the same seed; draw_for_batch() draws from the generator that "
                "it is given, and from no other"
            )


def _are_equal(one: ViewBatch, other: ViewBatch) -> bool:
    first, second = company_of(one), company_of(other)
    alike = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    return alike and torch.equal(pixels_of(one), pixels_of(other))


def data_reads(kind: Kind) -> None:
    """The tiny set of the kind can be read: items, as many labels as items, classes for the labels."""
    with _source(kind) as source:
        for name, split in (("train", source.train()), ("test", source.test())):
            if split is None:
                continue
            if not len(split):
                raise Failed(f"the {name} split is empty")
            for index in (0, len(split) - 1):
                try:
                    split[index]
                except Unreadable as error:
                    raise Failed(f"item {index} of the {name} split cannot be read: {error.reason}") from None
            if split.labels is not None and len(split.labels) != len(split):
                raise Failed(f"the {name} split has {len(split)} items and {len(split.labels)} labels")
            if split.labels is not None and split.classes is not None and max(split.labels) >= len(split.classes):
                raise Failed(f"the {name} split has label {max(split.labels)} and {len(split.classes)} classes")


@contextmanager
def _source(kind: Kind) -> Iterator[Source]:
    with tempfile.TemporaryDirectory() as folder:
        spec = kind.cls.tiny(folder)
        if spec is None:
            raise NotApplicable(
                "the kind makes no tiny set of its own (a classmethod tiny(folder)), so nothing can be read"
            )
        yield spec.build()


@contextmanager
def _items(kind: Kind) -> Iterator[tuple[Any, list[Any]]]:
    """The views, and three items of a data set that gives what they need."""
    spec = kind.example()
    data = matching_parts.find_data_for(spec)
    if data is None:
        raise NotApplicable("no installed data kind that gives what it needs can make a tiny set")
    with tempfile.TemporaryDirectory() as folder:
        split = matching_parts.write_tiny_data(data, folder).build().train()
        yield spec.build(), [split[index] for index in range(3)]
