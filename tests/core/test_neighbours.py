"""Nearest neighbours and pairs by cosine, and groups of pairs, against naive loops."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from contralex.evaluation import neighbours
from contralex.evaluation.grouping import join_pairs, list_groups
from contralex.evaluation.neighbours import find_neighbours, find_pairs, select_best


def naive(queries: Tensor, rows: Tensor, k: int) -> tuple[list[list[float]], list[list[int]]]:
    cosines = [[float(q @ r / (q.norm() * r.norm())) for r in rows.double()] for q in queries.double()]
    nearest = [[i for _, i in sorted((-cosine, i) for i, cosine in enumerate(line))[:k]] for line in cosines]
    return [[line[i] for i in index] for line, index in zip(cosines, nearest, strict=True)], nearest


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"_QUERIES": 4, "_ROWS": 7, "_PAIRS": 5}.items():
        monkeypatch.setattr(neighbours, name, size)


@pytest.mark.parametrize("k", [1, 3, 7, 20, 23, 100])
def test_neighbours_are_those_of_a_naive_loop(k: int, small_blocks: None) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, rows = (torch.randn(count, 6, generator=generator) for count in (9, 23))
    scores, index = find_neighbours(queries, rows, k)
    expected_scores, expected = naive(queries, rows, k)
    assert index.tolist() == expected
    torch.testing.assert_close(scores, torch.tensor(expected_scores, dtype=torch.float32))
    assert scores.shape == (9, min(k, 23))


@pytest.mark.parametrize("k", [1, 4, 22, 50])
def test_a_row_of_its_own_is_left_out(k: int, small_blocks: None) -> None:
    rows = torch.randn(23, 6, generator=torch.Generator().manual_seed(0))
    own = torch.arange(23)
    _, index = find_neighbours(rows, rows, k, exclude=own)
    assert index.tolist() == [[i for i in line if i != n][:k] for n, line in enumerate(naive(rows, rows, 23)[1])]
    _, nobody = find_neighbours(rows, rows, min(k, 22), exclude=torch.full((23,), -1))
    assert torch.equal(nobody, find_neighbours(rows, rows, min(k, 22))[1])


def test_of_equal_rows_the_first_come_first(small_blocks: None) -> None:
    rows = torch.eye(4)[[0, 1, 1, 2, 1, 1, 3, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 2]]
    ones = [i for i, row in enumerate(rows) if row[1]]
    for k in range(1, 18):
        scores, index = find_neighbours(torch.eye(4)[1:2], rows, k)
        others = [i for i in range(18) if i not in ones]
        assert index.tolist() == [[*ones, *others][:k]]
        assert scores.tolist() == [([1.0] * len(ones) + [0.0] * len(others))[:k]]
    _, index = find_neighbours(torch.eye(4)[1:2], rows, 3, exclude=torch.tensor([2]))
    assert index.tolist() == [[1, 4, 5]]


def test_the_best_of_a_line_are_those_of_a_stable_sort() -> None:
    scores = torch.randint(4, (50, 30), generator=torch.Generator().manual_seed(1)).float()
    for k in (1, 2, 13, 30, 31):
        best, where = select_best(scores, k)
        expected = scores.sort(dim=1, descending=True, stable=True)
        assert torch.equal(best, expected.values[:, :k])
        assert torch.equal(where, expected.indices[:, :k])


def test_rows_may_be_in_half_precision_and_in_a_mapped_file(tmp_path: Path, small_blocks: None) -> None:
    rows = torch.randn(23, 6, generator=torch.Generator().manual_seed(0)).half()
    rows.numpy().tofile(tmp_path / "rows")
    mapped = torch.from_numpy(np.memmap(tmp_path / "rows", np.float16, "c", shape=(23, 6)))
    for one, other in zip(
        find_neighbours(rows.float(), rows.float(), 5), find_neighbours(rows, mapped, 5), strict=True
    ):
        assert torch.equal(one, other)


def test_nothing_asked_and_one_row() -> None:
    scores, index = find_neighbours(torch.empty(0, 3), torch.rand(5, 3), 2)
    assert scores.shape == index.shape == (0, 2)
    row = torch.rand(1, 3)
    assert find_neighbours(row, row, 9)[1].tolist() == [[0]]
    assert find_neighbours(row, row, 9, exclude=torch.tensor([0]))[1].shape == (1, 0)


def test_pairs_are_those_of_a_naive_loop(small_blocks: None) -> None:
    rows = torch.randn(23, 3, generator=torch.Generator().manual_seed(0))
    parts = list(find_pairs(rows, 0.8))
    found = sorted((int(i), int(j)) for left, right in parts for i, j in zip(left, right, strict=True))
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    assert found == [(i, j) for i, j in itertools.combinations(range(23), 2) if float(unit[i] @ unit[j]) >= 0.8]
    assert len(found) > 10 and len(parts) == 15
    assert next(iter(find_pairs(rows[:1], -1.0)))[0].tolist() == []


@pytest.mark.parametrize("part", [1, 3, 1000])
@pytest.mark.parametrize("pairs", [0, 10, 25, 60])
def test_groups_are_those_of_a_naive_loop(pairs: int, part: int) -> None:
    drawn = torch.randint(40, (pairs, 2), generator=torch.Generator().manual_seed(pairs))
    group = list(range(40))
    for left, right in drawn.tolist():
        old, new = group[right], group[left]
        group = [new if each == old else each for each in group]
    expected = [[i for i in range(40) if group[i] == each] for each in set(group)]
    first = join_pairs(40, (tuple(some.unbind(1)) for some in drawn.split(part)))
    assert first.tolist() == [min(i for i in range(40) if group[i] == each) for each in group]
    listed = [each.tolist() for each in list_groups(first)]
    assert sorted(listed) == sorted(each for each in expected if len(each) > 1)
    assert [len(each) for each in listed] == sorted(map(len, listed), reverse=True)


def test_a_chain_in_any_order_is_one_group() -> None:
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert bool((join_pairs(500, [(order[:-1], order[1:])]) == 0).all())
