"""Rows whose samples have places of their own, and what a regression on several places counts as found."""

from __future__ import annotations

import pytest
import torch

from contralex.lookup.dictionary import Dictionary
from contralex.lookup.step import _measure_accuracy
from contralex.lookup.values import Match, Rows, Targets

SAMPLE = torch.tensor([5, 3])


def test_every_sample_has_its_own_positions() -> None:
    vectors = torch.arange(12.0).view(2, 3, 2)
    rows = Rows.from_view(vectors, SAMPLE, 1, torch.tensor([[4, 0, 2], [1, 0, 3]]))
    assert rows.position.tolist() == [4, 0, 2, 1, 0, 3]
    assert rows.sample.tolist() == [5, 5, 5, 3, 3, 3]
    assert torch.equal(rows.vectors, vectors.flatten(0, 1))
    shared = Rows.from_view(vectors, SAMPLE, 1, torch.tensor([4, 0, 2]))
    assert shared.position.tolist() == [4, 0, 2, 4, 0, 2]


def test_partners_of_rows_with_their_own_positions() -> None:
    keys = Rows.from_view(torch.randn(2, 5, 2), SAMPLE, 0)
    queries = Rows.from_view(torch.randn(2, 3, 2), SAMPLE, 0, torch.tensor([[4, 0, 2], [1, 0, 3]]))
    expected = [4, 0, 2, 5 + 1, 5 + 0, 5 + 3]
    assert queries.index_in(keys).tolist() == expected


def test_matching_is_the_key_of_each_query_in_the_queries_order() -> None:
    first = Rows.from_view(torch.arange(4.0).view(2, 2), SAMPLE, 0)
    second = Rows.from_view(torch.arange(4.0, 8.0).view(2, 2), SAMPLE.flip(0), 1)  # in another order than the queries
    queries = Rows.from_view(torch.zeros(2, 2), SAMPLE, 0)
    found = Rows.cat([first, second]).select_matching(queries, Match(0, 1))
    assert found.sample.tolist() == SAMPLE.tolist()
    assert found.view.tolist() == [1, 1]
    assert found.vectors.tolist() == [[6, 7], [4, 5]]


def test_a_query_without_a_key_is_an_error() -> None:
    queries = Rows.from_view(torch.zeros(2, 2), SAMPLE, 0)
    keys = Rows.from_view(torch.ones(1, 2), SAMPLE[:1], 1)
    assert (queries.find_in(keys, same_view=False) < 0).tolist() == [False, True]
    for there in (keys, keys[keys.sample < 0]):  # one key is absent, or all of them
        with pytest.raises(RuntimeError, match="no partner among the keys"):
            there.select_matching(queries, Match(0, 1))


def test_a_regression_on_places_looks_among_the_places_of_its_sample() -> None:
    keys = Rows.from_view(torch.eye(5).repeat(2, 1, 1), SAMPLE, 0)  # the two samples look alike
    positions = torch.tensor([[4, 0, 2], [1, 0, 3]])
    right = torch.nn.functional.one_hot(positions, 5).float()
    nothing = Targets(vectors=torch.zeros(6, 5))
    queries = Rows.from_view(right, SAMPLE, 0, positions)
    assert _measure_accuracy(queries, keys, Dictionary(), nothing, Match(0, 0)) == 1
    queries = Rows.from_view(right, SAMPLE, 0, torch.tensor([[4, 0, 2], [1, 3, 0]]))
    torch.testing.assert_close(
        _measure_accuracy(queries, keys, Dictionary(), nothing, Match(0, 0)), torch.tensor(4 / 6)
    )
    backwards = queries[torch.tensor([3, 4, 5, 0, 1, 2])]  # samples may stand in another order than their keys
    torch.testing.assert_close(
        _measure_accuracy(backwards, keys, Dictionary(), nothing, Match(0, 0)), torch.tensor(4 / 6)
    )
