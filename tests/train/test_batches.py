"""How the batches of a run are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import contralex
from contralex.data.base import Split
from contralex.data.loading import Batch
from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.kinds.views.augment import Augment, Group, MadeOn
from contralex.kinds.views.parts import CropViews
from contralex.lookup.view import pixels_of
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import TrainSpec
from contralex.training.batches import batches
from tests.train.tiny import TINY

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


def crops(device: MadeOn) -> CropViews:
    crop = {"size": 8, "scale": (0.3, 1.0)}
    flipped = Augment.model_validate({"order": ("crop", "flip"), "crop": crop, "flip": {"p": 0.5}})
    return CropViews({"two": Group(count=2, augment=flipped)}, device=device)


def settings(**values: Any) -> TrainSpec:
    spec = resolve("simclr-v1", preset="digits").run.train
    return spec.model_copy(update={"batch_size": BATCH, "workers": 0, **values})


def pixels(batch: Batch, view: int) -> Tensor:
    return pixels_of(batch["views"][view])


def made(split: Split, views: Views, train: TrainSpec, epochs: int = 1) -> list[Batch]:
    return list(batches(split, views, train, torch.device("cpu"), epochs=epochs))


def test_the_views_of_a_batch_are_made_together() -> None:
    views = Counting()
    found = made(Pictures(), views, settings())
    assert len(found) == COUNT // BATCH and views.together == [BATCH] * (2 * COUNT // BATCH)
    for mine, theirs in zip(found, made(Pictures(), Counting(), settings(workers=1)), strict=True):
        assert mine["index"].equal(theirs["index"])
        assert all(torch.equal(pixels(mine, view), pixels(theirs, view)) for view in range(2))


def test_views_that_are_made_on_the_device_come_from_a_worker_as_from_the_process_itself() -> None:
    choices: list[tuple[int, MadeOn]] = [(0, "accelerator"), (1, "accelerator"), (0, "workers")]
    one, other, exact = (made(Pictures(), crops(device), settings(workers=workers)) for workers, device in choices)
    for mine, theirs, cpus in zip(one, other, exact, strict=True):
        for view in range(2):
            assert torch.equal(pixels(mine, view), pixels(theirs, view))
            assert (pixels(mine, view) - pixels(cpus, view)).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("setting", ["train.micro_batch=2", "train.accumulate=2"])
def test_a_batch_in_parts_has_no_views_from_the_device(setting: str, tmp_path: Path, images: Path) -> None:
    sets = [*TINY, setting, "method.views.device=accelerator"]
    with pytest.raises(ContralexError, match="makes the views of a whole batch at once") as refused:
        contralex.train("simclr-v1", preset="digits", data=images, sets=sets, out=tmp_path / "run")
    assert str(refused.value).endswith("--set method.views.device=workers")


def test_a_run_trains_on_views_from_the_device_as_on_those_of_workers(tmp_path: Path, images: Path) -> None:
    losses = []
    for device in ("workers", "accelerator"):
        sets = [*TINY, f"method.views.device={device}", "train.epochs=1", "train.log_every=1"]
        contralex.train("simclr-v1", preset="digits", data=images, sets=sets, out=tmp_path / device)
        lines = (tmp_path / device / "metrics.jsonl").read_text("utf-8").splitlines()
        losses.append([line["loss"] for line in map(json.loads, lines) if "loss" in line])
    assert len(losses[0]) == 5 and losses[1] == pytest.approx(losses[0], rel=1e-2)
