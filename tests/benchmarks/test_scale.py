"""The formulas of docs/performance.md against what is counted, on one process and on two."""

from __future__ import annotations

import pytest

from benchmarks.scale import BATCH, counted, exchanged, gathered_bytes

DIM = 128  # of the vectors of the presets `digits`
TAGS = 24 * BATCH  # bytes of three integers for each key of one view, at the most


@pytest.mark.parametrize("name", ["in-batch, both views (SimCLR)", "in-batch, the other view (CLIP)", "queue (MoCo)"])
@pytest.mark.parametrize("size", [128, 2048])
def test_the_products_of_a_look_up_grow_with_queries_and_entries(name: str, size: int) -> None:
    queries, entries, found = counted(name, size)
    per = found.flops / (queries * entries * DIM)
    assert 2 <= per <= 10  # at least each score once, and at most every product twice


def test_what_processes_exchange_follows_the_formulas() -> None:
    found = exchanged(2, ("simclr-v1", "moco-v2", "byol", "barlow"))
    both = gathered_bytes(BATCH, 2, DIM, gradient=True)
    one, images = gathered_bytes(BATCH, 1, DIM, gradient=False), BATCH * 3 * 32 * 32 * 4
    wide = gathered_bytes(BATCH, 1, 512, gradient=True) + 8 * 512**2 + 32 * 512
    expected = {
        "simclr-v1": (both, both + 2 * TAGS),
        "moco-v2": (images + one, images + 2 * (one + TAGS) + 8 * BATCH),
        "byol": (both // 2, both // 2 + 2 * TAGS),
        "barlow": (wide, wide + TAGS),
    }
    for recipe, (least, most) in expected.items():
        total = sum(size for size, _ in found[recipe].values())
        assert least <= total <= most, recipe
