"""Draws that a batch shares: the same on any number of processes and workers, with train.accumulate and after a resume.

The views are those of a masked model that predicts blocks (I-JEPA): one block size for a batch, a place for each image,
and the places of the context, of which all images of a batch keep equally many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.data.base import Split, Unreadable
from contralex.data.loading import DrawnTogether, EpochSampler, Order, ViewDataset, collate, load
from contralex.errors import ContralexError
from contralex.plugin import View, Views

GRID, BATCH, SEED, SAMPLES = 6, 8, 3, 26
Step = dict[int, tuple[Tensor, Tensor, Tensor]]


class Numbers(Split):
    """Sample i is the number i."""

    unreadable: tuple[int, ...] = ()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        if index in self.unreadable:
            raise Unreadable(f"{index}.png", "it is broken")
        return index


class Blocks(Views):
    count = 1

    def make(self, item: Any, view: int) -> View:
        return self.make_alone(item, view)  # type: ignore[return-value]

    def draw_for_batch(self, size: int, generator: torch.Generator) -> Sequence[tuple[Tensor, Tensor]]:
        height, width = torch.randint(1, 4, (2,), generator=generator).tolist()  # one size for the batch
        shares = []
        for _ in range(size):  # a place for each image
            top = int(torch.randint(GRID - height + 1, (), generator=generator))
            left = int(torch.randint(GRID - width + 1, (), generator=generator))
            block = torch.zeros(GRID, GRID, dtype=torch.bool)
            block[top : top + height, left : left + width] = True
            dropped = torch.rand(GRID * GRID, generator=generator) < 0.2
            shares.append((block.flatten(), ~block.flatten() & ~dropped))
        kept = min(int(context.sum()) for _, context in shares)
        return [(block.nonzero()[:, 0], context.nonzero()[:kept, 0]) for block, context in shares]

    def draw_with_share(self, item: Any, view: int, share: tuple[Tensor, Tensor]) -> View:
        return View(item + torch.rand(2), targets=share[0], context=share[1])

    def plain(self, item: Any) -> Tensor:
        return torch.full((2,), float(item))


class Chance(Views):
    """The same pixels, and nothing that is shared."""

    count = 1

    def make(self, item: Any, view: int) -> Tensor:
        return item + torch.rand(2)

    def plain(self, item: Any) -> Tensor:
        return torch.full((2,), float(item))


def steps(
    *, world: int = 1, parts: int = 1, start: int = 0, workers: int = 0, split: Split | None = None
) -> list[Step]:
    """For each step of two epochs, what each sample was given, over all processes."""
    found: list[Step] = []
    for rank in range(world):
        data = ViewDataset(split or Numbers(), Blocks(), SEED, BATCH, packed=True)
        sampler = EpochSampler(SAMPLES, BATCH, SEED, 2, rank, world, start, parts, places=True)
        for number, batch in enumerate(load(data, collate, batch_sampler=sampler, num_workers=workers)):
            view = batch["views"][0]
            rows = zip(batch["index"].tolist(), view.pixels, view.targets, view.context, strict=True)
            if number == len(found):
                found.append({})
            found[number].update({index: values for index, *values in rows})  # type: ignore[misc]
    return found


def assert_equal(one: Sequence[Step], other: Sequence[Step]) -> None:
    assert len(one) == len(other) > 0
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for index in mine:
            assert all(torch.equal(a, b) for a, b in zip(mine[index], theirs[index], strict=True))


@pytest.fixture(scope="module")
def alone() -> list[Step]:
    return steps()


def test_a_batch_has_one_size_and_each_image_a_place(alone: list[Step]) -> None:
    assert len(alone) == 6
    sizes = [{(len(targets), len(context)) for _, targets, context in step.values()} for step in alone]
    assert all(len(found) == 1 for found in sizes) and len(set.union(*sizes)) > 1
    assert any(len({tuple(targets.tolist()) for _, targets, _ in step.values()}) > 1 for step in alone)


def test_two_processes_share_the_draws_of_one(alone: list[Step]) -> None:
    assert_equal(alone, steps(world=2))


def test_a_step_of_several_look_ups_has_the_draws_of_one(alone: list[Step]) -> None:
    assert_equal(alone, steps(world=2, parts=2))


def test_a_resumed_run_has_the_draws_of_one_that_never_stopped(alone: list[Step]) -> None:
    assert_equal(alone[4:], steps(start=4))


def test_workers_have_the_draws_of_the_main_process(alone: list[Step]) -> None:
    assert_equal(alone, steps(workers=2))


def test_a_stand_in_takes_the_share_of_the_one_that_cannot_be_read(alone: list[Step]) -> None:
    split = Numbers()
    split.unreadable = (next(iter(alone[0])),)
    first = steps(split=split)[0]
    stand_in = next(iter(first.keys() - alone[0].keys()))
    for mine, theirs in zip(first[stand_in][1:], alone[0][split.unreadable[0]][1:], strict=True):
        assert torch.equal(mine, theirs)


def test_an_item_can_be_asked_for_without_its_place(alone: list[Step]) -> None:
    data = ViewDataset(Numbers(), Blocks(), SEED, BATCH)
    index = list(alone[4])[3]
    view = data[1, index]["views"][0]
    assert isinstance(view, View) and torch.equal(view.targets, alone[4][index][1])


def test_the_pixels_are_those_of_views_that_share_nothing(alone: list[Step]) -> None:
    data = ViewDataset(Numbers(), Chance(), SEED, BATCH)
    sampler = EpochSampler(SAMPLES, BATCH, SEED, 2)
    for step, batch in zip(alone, sampler, strict=True):
        assert all(len(at) == 2 for at in batch)  # the contract of data sets that need nothing more
        for item in data.__getitems__(batch):
            assert torch.equal(item["views"][0], step[item["index"]][0])


def test_steps_draw_differently_and_seeds_too() -> None:
    shares = [
        DrawnTogether(Blocks(), Order(SAMPLES, BATCH, seed)).share(0, 0, at)[0] for seed in range(6) for at in (0, 8)
    ]
    assert len({tuple(share.tolist()) for share in shares}) > 6


def test_a_wrong_number_of_shares_is_refused() -> None:
    class TooFew(Blocks):
        def draw_for_batch(self, size: int, generator: torch.Generator) -> Sequence[tuple[Tensor, Tensor]]:
            return super().draw_for_batch(size, generator)[1:]

    with pytest.raises(ContralexError, match=r"TooFew\.draw_for_batch gave 7 shares for a batch of 8 samples"):
        ViewDataset(Numbers(), TooFew(), SEED, BATCH)[0, 0]


def test_a_view_alone_is_a_batch_of_its_own() -> None:
    torch.manual_seed(0)
    one = Blocks().make(4, 0)
    torch.manual_seed(0)
    assert torch.equal(one.targets, Blocks().make(4, 0).targets) and 4 <= float(one.pixels.min()) < 5
