"""Rows whose samples have places of their own, and what a regression on several places counts as found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from contralex.kinds.negatives.parts import InBatchSource
from contralex.lookup import late_checks
from contralex.lookup.clock import Clock
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.question import _measure_accuracy
from contralex.lookup.values import Match, Rows, Step, Targets
from contralex.testing.host_waits import HostWaits

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


def _searched(queries: Rows, others: Rows, same_view: bool) -> list[int]:
    """The naive search of the tags."""
    found = []
    for sample, view, position in zip(queries.sample, queries.view, queries.position, strict=True):
        same = (others.sample == sample) & (others.position == position)
        same = same & (others.view == view) if same_view else same
        found.append(int(same.nonzero()[0]) if same.any() else -1)
    return found


@pytest.mark.parametrize("asked", [1, 3, 5, "some"])
@pytest.mark.parametrize("view", [0, 1])
def test_what_is_known_of_rows_is_what_a_search_finds(asked: int | str, view: int) -> None:
    keys = Rows.from_views({each: (torch.randn(2, 5, 2), None) for each in (0, 1)}, SAMPLE)
    count, positions = (asked, None) if isinstance(asked, int) else (3, torch.tensor([[4, 0, 2], [1, 0, 3]]))
    queries = Rows.from_view(torch.randn(2, count, 2), SAMPLE, view, positions)
    by_hand = Rows(queries.vectors, queries.sample, queries.view, queries.position)
    assert by_hand.layout is None
    for others, same_view in ((keys, True), (keys.select_view(1), False)):
        expected = _searched(queries, others, same_view)
        assert queries.find_in(others, same_view=same_view).tolist() == expected
        assert by_hand.find_in(others, same_view=same_view).tolist() == expected
    assert queries.select_matching(queries, Match(view, view)).vectors.tolist() == queries.vectors.tolist()


def test_a_sample_that_is_twice_in_a_batch_is_its_own_key_twice() -> None:
    """With a layout and without one, a query hides its own key, and finds that of its own second view."""
    sample = torch.tensor([7, 3, 7, 5, 7])
    vectors = torch.nn.functional.normalize(torch.randn(10, 4), dim=1)
    known = Rows.from_views({0: (vectors[:5], None), 1: (vectors[5:], None)}, sample)
    searched = Rows(known.vectors, known.sample, known.view, known.position)
    assert searched.layout is None
    step, match = Step(Clock(0, 1, 1), 0, 5), Match(0, 1)
    for rows in (known, searched):
        queries = rows.select_view(0)
        dictionary = InBatchSource("all")(queries, rows, match, step)
        assert dictionary.hidden is not None and dictionary.hidden.tolist() == [0, 1, 2, 3, 4]
        assert dictionary.positives(queries, match).tolist() == [5, 6, 7, 8, 9]
    fewer = searched[torch.tensor([5, 6, 8])]  # of a view with one row of the sample, all find that one
    assert searched.select_view(0).find_in(fewer, same_view=False).tolist() == [0, 1, 0, 2, 0]


def test_a_row_that_fills_up_has_no_partner() -> None:
    """Its position is -1; a search by packed tags must not take it for the last one of the sample before."""
    keys = Rows.from_view(torch.randn(3, 5, 2), torch.arange(3), 0)
    queries = Rows.from_view(torch.randn(3, 2, 2), torch.arange(3), 0, torch.tensor([[4, -1], [-1, -1], [2, -1]]))
    expected = [4, -1, -1, -1, 12, -1]
    assert queries.find_in(keys, same_view=False).tolist() == expected
    order = torch.tensor([5, 1, 3, 0, 2, 4])
    assert queries[order].find_in(keys, same_view=False).tolist() == [expected[i] for i in order]
    by_hand = Rows(keys.vectors, keys.sample, keys.view, keys.position)
    assert queries.find_in(by_hand, same_view=True).tolist() == expected


def test_a_row_that_fills_up_is_not_counted_as_found() -> None:
    keys = Rows.from_view(torch.eye(5).repeat(2, 1, 1), SAMPLE, 0)
    positions = torch.tensor([[-1, 4, -1], [-1, -1, -1]])
    like_the_last = torch.nn.functional.one_hot(torch.full((2, 3), 4), 5).float()
    queries = Rows.from_view(like_the_last, SAMPLE, 0, positions)
    found = _measure_accuracy(queries, keys, Dictionary(), Targets(vectors=torch.zeros(6, 5)), Match(0, 0))
    torch.testing.assert_close(found, torch.tensor(1 / 6))


def test_nothing_that_training_asks_of_rows_waits() -> None:
    with HostWaits() as waits, late_checks.collect():
        keys = Rows.from_views({each: (torch.randn(2, 5, 2), None) for each in (0, 1)}, SAMPLE).gather(gradient=True)
        queries = Rows.from_view(torch.randn(2, 3, 2), SAMPLE, 0, torch.tensor([4, 0, 2]))
        keys.select_matching(queries, Match(0, 1))
        keys.select_matching(keys.select_view(0), Match(0, 1))
        assert keys.views == (0, 1)
        assert keys.per_sample == 5
    assert not [what for what in waits.found if "torch.tensor" not in what], str(waits)


def test_rows_with_other_tags_are_searched() -> None:
    keys = Rows.from_view(torch.arange(4.0).view(2, 2), SAMPLE, 0)
    turned = replace(keys, sample=SAMPLE.flip(0))
    assert turned.layout is None
    assert turned.index_in(keys).tolist() == [1, 0]
    assert replace(keys, vectors=keys.vectors * 2).layout is not None


def test_parts_of_a_batch_may_be_joined_in_any_order() -> None:
    views = {view: torch.randn(2, 3) for view in (0, 1)}
    parts = [
        Rows.from_views({view: (vectors[i : i + 1], None) for view, vectors in views.items()}, SAMPLE[i : i + 1])
        for i in (0, 1)
    ]
    joined = Rows.cat(parts)  # view 0, view 1 of the first sample, then of the other
    for view, vectors in views.items():
        assert torch.equal(joined.select_view(view).vectors, vectors)
    queries = Rows.from_view(views[0], SAMPLE, 0)
    assert torch.equal(joined.select_matching(queries, Match(0, 1)).vectors, views[1])


def test_a_position_that_no_key_has_is_refused_in_training_too() -> None:
    keys = Rows.from_view(torch.randn(2, 5, 2), SAMPLE, 0)
    queries = Rows.from_view(torch.randn(2, 1, 2), SAMPLE, 0, torch.tensor([5]))
    with pytest.raises(RuntimeError, match="no partner among the keys"):
        queries.index_in(keys)
    with late_checks.collect() as checks:
        queries.index_in(keys)
    assert [bool(check.is_wrong) for check in checks] == [True]


def test_a_view_that_was_selected_without_a_gradient_has_one_later() -> None:
    vectors = torch.rand(4, 3, requires_grad=True)
    rows = Rows.from_views({0: (vectors[:2], None), 1: (vectors[2:], None)}, SAMPLE)
    with torch.no_grad():
        rows.select_view(0)
    rows.select_view(0).vectors.sum().backward()
    assert vectors.grad is not None and torch.equal(vectors.grad[:2], torch.ones(2, 3))
    assert rows.select_view(0) is rows.select_view(0)
