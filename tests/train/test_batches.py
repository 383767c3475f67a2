"""How the batches of a run are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contralex.data.base import Split
from contralex.data.loading import Batch
from contralex.data.views import Views
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import TrainSpec
from contralex.training.batches import batches

SIDE, COUNT, BATCH = 12, 24, 8


class Pictures(Split):
    def __init__(self) -> None:
        super().__init__()
        chance = np.random.default_rng(0)
        self.pixels = [chance.integers(0, 256, (SIDE, SIDE + at % 3, 3), dtype=np.uint8) for at in range(COUNT)]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


class Counting(Views):
    """Two views, and how many were made at a time."""

    count = 2

    def __init__(self) -> None:
        self.together: list[int] = []

    def draw_parameters(self, item: Any, view: int) -> Tensor:
        return torch.rand(1)

    def make(self, item: Any, view: int) -> Tensor:
        return self.make_drawn([item], view, [self.draw_parameters(item, view)])[0]

    def make_drawn(self, items: Sequence[Any], view: int, parameters: Sequence[Any]) -> Sequence[Tensor]:
        self.together.append(len(items))
        return [drawn * np.asarray(item)[0, 0, 0] for item, drawn in zip(items, parameters, strict=True)]

    def plain(self, item: Any) -> Tensor:
        return torch.zeros(1)


def settings(**values: Any) -> TrainSpec:
    spec = resolve("simclr-v1", preset="digits").run.train
    return spec.model_copy(update={"batch_size": BATCH, "workers": 0, **values})


def made(split: Split, views: Views, train: TrainSpec, epochs: int = 1) -> list[Batch]:
    return list(batches(split, views, train, torch.device("cpu"), epochs=epochs))


def test_the_views_of_a_batch_are_made_together() -> None:
    views = Counting()
    found = made(Pictures(), views, settings())
    assert len(found) == COUNT // BATCH and views.together == [BATCH] * (2 * COUNT // BATCH)
    for mine, theirs in zip(found, made(Pictures(), Counting(), settings(workers=1)), strict=True):
        assert mine["index"].equal(theirs["index"])
        assert all(mine["views"][view].equal(theirs["views"][view]) for view in range(2))
