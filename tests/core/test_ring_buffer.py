"""A ring buffer against a list of which the newest rows are kept."""

from __future__ import annotations

import pytest
import torch

from contralex.lookup import distributed
from contralex.lookup.ring_buffer import ring_indices, write_to_ring
from contralex.lookup.shards import rows_per_process

BATCHES = [[3, 3, 3, 3], [7], [1, 7, 2], [20, 1], [5, 2, 7, 0, 6]]


def rows(start: int, count: int) -> torch.Tensor:
    return torch.stack([torch.arange(start, start + count), torch.arange(count)], dim=1).float()


@pytest.mark.parametrize("batches", BATCHES)
def test_a_ring_holds_the_newest_rows_in_the_slots_of_the_oldest(batches: list[int]) -> None:
    size, table, pointer, seen = 7, torch.full((7, 2), -1.0), 0, 0
    expected: list[list[float]] = [[-1.0, -1.0]] * size
    for count in batches:
        new = rows(seen, count)
        slot = pointer
        for row in new.tolist()[-size:]:
            expected[slot] = row
            slot = (slot + 1) % size
        other = table.clone()
        written = write_to_ring(table, new, torch.tensor(pointer))
        assert write_to_ring(other, new, pointer) == written and torch.equal(other, table)
        assert written == min(count, size)
        pointer, seen = (pointer + written) % size, seen + count
        assert pointer == slot and table.tolist() == expected


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("processes", [2, 3])
def test_the_parts_of_a_sharded_ring_are_those_of_a_complete_one(
    batches: list[int], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, pointer = torch.zeros(7, 2), 0
    monkeypatch.setattr(distributed, "world", lambda: processes)
    parts = [torch.zeros(rows_per_process(7), 2) for _ in range(processes)]
    for count in batches:
        new = rows(pointer + 1, count)
        for rank, part in enumerate(parts):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            assert write_to_ring(part, new, pointer, total=7) == min(count, 7)
        pointer += write_to_ring(whole, new, pointer)
        assert torch.equal(torch.cat(parts)[:7], whole)


def test_rows_are_stored_in_the_dtype_of_the_table() -> None:
    table = torch.zeros(2, dtype=torch.float16)
    write_to_ring(table, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 5)
    assert table.dtype == torch.float16 and table.tolist() == [3.0, 2.0]


def test_indices_go_on_at_the_start() -> None:
    assert ring_indices(5, 4, 6).tolist() == [5, 0, 1, 2]
