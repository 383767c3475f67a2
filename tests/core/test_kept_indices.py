"""Indices that are made once: the right numbers, known again, and never those that somebody wrote."""

from __future__ import annotations

import pytest
import torch

from contralex.lookup import kept_indices

CPU = torch.device("cpu")


def test_a_range_is_made_once_and_known_again() -> None:
    made = kept_indices.make_range(3, 7, CPU)
    assert made.tolist() == [3, 4, 5, 6] and kept_indices.make_range(3, 7, CPU) is made
    assert kept_indices.find_range(made) == (3, 7) and kept_indices.find_bounds(made) == (3, 6)
    assert kept_indices.find_constant(made) is None
    for other in (made.clone(), made[:], torch.arange(3, 7)):
        assert kept_indices.find_range(other) is None and kept_indices.find_bounds(other) is None


def test_a_constant_is_known_again() -> None:
    made = kept_indices.make_constant(0, 3, CPU)
    assert made.tolist() == [0, 0, 0] and made.dtype == torch.long
    assert kept_indices.find_constant(made) == 0 and kept_indices.find_bounds(made) == (0, 0)
    assert kept_indices.find_bounds(kept_indices.make_constant(0, 0, CPU)) is None


def test_runs_and_positions() -> None:
    assert kept_indices.make_runs([(4, 2), (1, 3)], CPU).tolist() == [4, 4, 1, 1, 1]
    assert kept_indices.make_positions([(2, 3), (3, 1)], CPU).tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 0]
    assert kept_indices.make_positions([(2, 1), (1, 1)], CPU).tolist() == [0, 0, 0]


def test_what_was_written_is_not_given_again() -> None:
    made = kept_indices.make_range(0, 5, CPU)
    made += 1
    assert kept_indices.find_range(made) is None
    assert kept_indices.make_range(0, 5, CPU).tolist() == [0, 1, 2, 3, 4]


def test_they_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for stop in range(1000):
        kept_indices.make_range(0, stop, CPU)
    assert len(kept_indices._TENSORS) <= kept_indices._MOST and len(kept_indices._MEANINGS) <= kept_indices._MOST
    monkeypatch.setattr(kept_indices, "_LARGEST", 3)
    large = kept_indices.make_range(0, 4, CPU)
    assert large.tolist() == [0, 1, 2, 3] and kept_indices.find_range(large) is None


def test_one_that_is_made_in_inference_serves_a_backward() -> None:
    with torch.inference_mode():
        index = kept_indices.make_range(1, 3, CPU)
    vectors = torch.ones(4, 2, requires_grad=True)
    vectors[index].sum().backward()
    assert vectors.grad is not None and vectors.grad.sum() == 4
