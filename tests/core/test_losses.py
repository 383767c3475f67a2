"""Losses of the general vocabulary where their input is at its limits."""

from __future__ import annotations

from dataclasses import replace

import torch

from contralex.lookup.clock import Clock
from contralex.plugin import Dictionary, InfoNCE, Rows, SoftCrossEntropy, Step, Targets

STEP = Step(Clock(0, 10, 5), seed=0, batch=4)


def test_soft_cross_entropy_takes_masked_entries_for_absent_ones() -> None:
    loss = SoftCrossEntropy(temperature=0.5)
    vectors, entries = torch.randn(4, 3), torch.randn(5, 3)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[:, 2] = False
    weights = torch.rand(4, 5).masked_fill(~mask, 0.0)
    asked = vectors.clone().requires_grad_()
    queries = Rows.from_view(asked, torch.arange(4), 0)
    found = loss(queries, Dictionary(shared=entries, mask=mask), Targets(weights=weights), STEP)
    found.backward()
    assert asked.grad is not None and asked.grad.isfinite().all()

    there = [0, 1, 3, 4]
    plain = replace(queries, vectors=vectors)
    without = loss(plain, Dictionary(shared=entries[there]), Targets(weights=weights[:, there]), STEP)
    torch.testing.assert_close(found.detach(), without)


def test_info_nce_is_multiplied_by_its_weight() -> None:
    queries, entries = Rows.from_view(torch.randn(4, 3), torch.arange(4), 0), Dictionary(shared=torch.randn(5, 3))
    targets = Targets(index=torch.arange(4))
    plain, twice = (InfoNCE(temperature=0.5, weight=w) for w in (1.0, 2.0))
    torch.testing.assert_close(twice(queries, entries, targets, STEP), 2 * plain(queries, entries, targets, STEP))
