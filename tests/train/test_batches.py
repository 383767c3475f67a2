"""How the batches of a run are made."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import contralex
from contralex.data import workers
from contralex.data.base import Split, Unreadable
from contralex.data.kept_images import KeptImages, bytes_to_keep
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
BROKEN = 5


class Pictures(Split):
    def __init__(self) -> None:
        super().__init__()
        chance = np.random.default_rng(0)
        self.pixels = [chance.integers(0, 256, (SIDE, SIDE + at % 3, 3), dtype=np.uint8) for at in range(COUNT)]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


class Reading(Pictures):
    """Counts the reads, in a file, which a worker's are as well."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def __getitem__(self, index: int) -> Image.Image:
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        if index == BROKEN:
            raise Unreadable("broken", "it is")
        return super().__getitem__(index)

    def reads(self) -> list[int]:
        found = sorted(int(line) for line in self.log.read_text().split())
        self.log.unlink()
        return found


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


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_are_kept_are_read_once_by_all_workers_together(workers: int, tmp_path: Path) -> None:
    split = Reading(tmp_path / "log")
    plain = made(split, crops("workers"), settings(workers=workers), epochs=3)
    assert len(split.reads()) >= 3 * COUNT
    kept = made(split, crops("workers"), settings(workers=workers, cache="memory"), epochs=3)
    for one, other in zip(plain, kept, strict=True):
        assert torch.equal(one["index"], other["index"]) and one["unreadable"] == other["unreadable"]
        assert all(torch.equal(pixels(one, view), pixels(other, view)) for view in range(2))
    reads = split.reads()
    assert set(reads) == set(range(COUNT)) and reads.count(BROKEN) == 3
    most = 1 if workers == 0 else workers  # two workers may read one at the same time, as a stand-in and as itself
    assert max(reads.count(index) for index in range(COUNT) if index != BROKEN) <= most


def test_what_has_no_room_is_read_each_time(tmp_path: Path) -> None:
    split = Reading(tmp_path / "log")
    kept = KeptImages(split, 3 * SIDE * SIDE, crops("workers").may_scale)  # of one image
    for _ in range(2):
        for index in (0, 1):
            assert np.array_equal(np.asarray(kept[index]), split.pixels[index])
    assert split.reads() == [0, 1, 1]
    assert bytes_to_keep(400) == 100 and bytes_to_keep(None) > 0


def test_an_image_with_something_beside_its_pixels_is_not_kept() -> None:
    captioned = Pictures()[0]
    captioned.info["caption"] = "a cat"
    kept = KeptImages(OneImage(captioned), 10_000, crops("workers").may_scale)
    assert [kept[0].info["caption"] for _ in range(2)] == ["a cat"] * 2


class OneImage(Split):
    def __init__(self, image: Image.Image) -> None:
        super().__init__()
        self.image = image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Image.Image:
        return self.image


def test_workers_that_are_not_forked_share_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "worker_context", lambda: multiprocessing.get_context("spawn"))
    with pytest.raises(ContralexError, match="share where they are forked") as refused:
        made(Pictures(), Counting(), settings(workers=1, cache="memory"))
    assert str(refused.value).endswith("--set train.cache=none")
