"""The kernels as the compiler makes them, with the blocks that are used."""

from __future__ import annotations

import pytest
import torch

from contralex.lookup import triton_sums
from tests.core.triton_checks import check_others, draw_indices, make_units

pytest.importorskip("triton")


@pytest.mark.parametrize("learns", [True, False], ids=["entries learn", "entries are fixed"])
@pytest.mark.parametrize("dim", [24, *triton_sums.BLOCKS])
def test_sums_and_gradients_are_the_plain_ones(dim: int, learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("Triton's interpreter needs a process of its own: tests/core/test_triton_sums.py")
    monkeypatch.setattr(triton_sums, "FORCED", True)
    queries, entries = make_units(300, dim, 1) / 0.1, make_units(1000, dim, 2)
    check_others(queries, entries, draw_indices(300, 0, 1000, 3), (draw_indices(300, -1, 1000, 4),), learns)
