"""Checks on views and data sets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from contralex.data.base import Source, Unreadable
from contralex.testing import matching_parts
from contralex.testing.check_errors import Failed, NotApplicable
from contralex.testing.plugin_contents import Kind


def views_follow_the_seed(kind: Kind) -> None:
    """A view is a function of torch's seed alone; the view of evaluation draws nothing."""
    with _items(kind) as (views, items), torch.random.fork_rng(devices=[]):
        for view in range(views.count):
            torch.manual_seed(5)
            one = views.make(items[0], view)
            torch.manual_seed(5)
            if not torch.equal(one, views.make(items[0], view)):
                raise Failed(f"view {view} of one item is another with the same seed; draw from torch's generator only")
        state = torch.get_rng_state()
        plain = views.plain(items[0])
        if not torch.equal(state, torch.get_rng_state()) or not torch.equal(plain, views.plain(items[0])):
            raise Failed("plain() is random; it is what evaluation sees")


def views_stack(kind: Kind) -> None:
    """Every item's view has one shape and is finite, so that views make a batch; key_flags() has one flag a view."""
    with _items(kind) as (views, items):
        flags = kind.example().key_flags()
        if flags is not None and len(flags) != views.count:
            raise Failed(f"key_flags() has {len(flags)} flags, and there are {views.count} views")
        for view in range(views.count):
            made = [views.make(item, view) for item in items]
            shapes = {tuple(one.shape) for one in made if isinstance(one, Tensor)}
            if len(shapes) != 1:
                raise Failed(f"view {view} has the shapes {shapes or 'of no tensor'}; one is needed to make a batch")
            if not all(bool(one.isfinite().all()) for one in made):
                raise Failed(f"view {view} has values that are not finite")


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
