"""What workers send arrives as it was, whether as bytes or in shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.data.base import Unreadable
from contralex.data.loading import load
from contralex.data.packed import PackedViews
from contralex.data.parcels import Parcel
from contralex.lookup.view import View

LARGE = 1 << 20  # bytes, more than travel as such

TENSORS = {
    "bytes": torch.arange(24, dtype=torch.uint8).view(2, 3, 4),
    "float32": torch.tensor([0.1, -0.0, float("inf")]),
    "float64": torch.rand(3, 1, 5, dtype=torch.float64),
    "bfloat16": torch.rand(7).bfloat16(),
    "bool": torch.tensor([[True, False]]),
    "complex": torch.rand(3, dtype=torch.complex64),
    "a number": torch.tensor(5),
    "nothing": torch.empty(0, 3),
    "transposed": torch.rand(3, 4).T,
    "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "a part": torch.arange(20)[3:9],
    "large": torch.arange(LARGE // 8),
}


def same(one: Tensor, other: Tensor) -> bool:
    return (
        one.dtype == other.dtype
        and one.stride() == other.stride()
        and torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))
    )


class Batches:
    """Items are numbers of batches, of which each is made by a worker."""

    def __init__(self, made: Sequence[Any]) -> None:
        self.made = made

    def __len__(self) -> int:
        return len(self.made)

    def __getitems__(self, wanted: Sequence[int]) -> list[Any]:
        return [self.made[index] for index in wanted]


def first(items: Sequence[Any]) -> Any:
    return items[0]


def sent(*batches: Any) -> list[Any]:
    """By a worker."""
    return list(load(Batches(batches), first, batch_size=1, num_workers=1))


def test_tensors_of_any_kind_arrive_as_they_were() -> None:
    (arrived,) = sent(TENSORS)
    assert arrived.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        if tensor.numel():
            assert same(arrived[name], tensor), name
        else:
            assert arrived[name].shape == tensor.shape and arrived[name].dtype == tensor.dtype
    assert arrived["large"].is_shared() and not arrived["bytes"].is_shared()


def test_as_many_tensors_travel_as_bytes_as_are_small_together() -> None:
    part = torch.zeros(LARGE // 8, dtype=torch.uint8)
    (arrived,) = sent([part + number for number in range(9)])
    assert [bool(tensor.is_shared()) for tensor in arrived] == [False] * 4 + [True] * 5
    assert [int(tensor[-1]) for tensor in arrived] == list(range(9))


def test_what_arrives_may_be_written_to() -> None:
    (arrived,) = sent({"view": torch.zeros(4)})
    arrived["view"][2] = 1
    assert arrived["view"].tolist() == [0, 0, 1, 0]


def test_views_with_company_packed_views_and_faults_arrive() -> None:
    view = View(torch.rand(2, 3), mask=torch.tensor([[True], [False]]))
    packed = PackedViews(torch.arange(6, dtype=torch.uint8), torch.rand(1, 4, dtype=torch.float64), ((1, 2),))
    (arrived,) = sent((view, packed, [Unreadable("a.jpg", "it is empty")]))
    assert torch.equal(arrived[0].pixels, view.pixels) and torch.equal(arrived[0].mask, view.mask)
    assert torch.equal(arrived[1].levels, packed.levels) and torch.equal(arrived[1].table, packed.table)
    assert arrived[1].sizes == packed.sizes and arrived[2][0].reason == "it is empty"


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_workers": 1}, {"num_workers": 2}])
def test_batches_do_not_depend_on_workers(options: dict[str, int]) -> None:
    made = [{"index": torch.tensor([number]), "view": torch.full((300, 300), number)} for number in range(5)]
    arrived = list(load(Batches(made), first, batch_size=1, **options))
    for one, other in zip(made, arrived, strict=True):
        assert torch.equal(one["index"], other["index"]) and torch.equal(one["view"], other["view"])


def test_a_parcel_is_what_was_put_into_it_at_that_time() -> None:
    tensor = torch.zeros(3)
    parcel = Parcel({"view": tensor})
    tensor += 1
    assert parcel.open()["view"].tolist() == [0, 0, 0]
