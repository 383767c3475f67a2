"""Features that several evaluators share in memory."""

from __future__ import annotations

import pytest
import torch

from contralex.data.base import Subset
from contralex.data.loading import EvalDataset
from contralex.evaluation import remembered
from contralex.evaluation.remembered import RememberedFeatures
from tests.core.test_feature_cache import Twice, collect, rows
from tests.core.test_knn import AsIs, Rows


def test_the_same_items_are_encoded_once() -> None:
    store, function, split = RememberedFeatures(), Twice(), Rows(rows(), None, broken=[3])
    for _ in range(2):
        for part in (split, Subset(split, [5, 1])):
            found, index = collect(store.encode(function, EvalDataset(part, AsIs()), "backbone", 4, "cpu", 0))
            expected = [at for at in range(35) if at != 3] if part is split else [0, 1]
            assert index == expected
            assert torch.equal(found, 2 * (rows()[index] if part is split else rows()[[5, 1]]))
    assert function.seen == 34 + 2
    collect(store.encode(function, EvalDataset(split, AsIs()), "embedding", 4, "cpu", 0))
    collect(store.encode(function, EvalDataset(Rows(rows(), None), AsIs()), "backbone", 4, "cpu", 0))
    assert function.seen == 34 + 2 + 34 + 35


def test_more_than_fits_is_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "LIMIT", 35 * 8 + 10 * 8)
    store, function = RememberedFeatures(), Twice()
    first, second, third = Rows(rows(), None), Rows(rows(), None), Rows(rows(10), None)
    for _ in range(2):
        for split in (first, second, third):
            found, _index = collect(store.encode(function, EvalDataset(split, AsIs()), "backbone", 4, "cpu", 0))
            assert torch.equal(found, 2 * split.rows)
    assert function.seen == 35 + 2 * 35 + 10
