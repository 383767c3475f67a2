"""Groups of rows that hang together by pairs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def join_pairs(count: int, pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """(count,) for each row the smallest index of its group, where the rows of each pair belong to one group.

    ``pairs``: parts of them, indices (p,) and (p,). Memory is that of ``count`` rows and of one part.
    """
    first = torch.arange(count)
    for left, right in pairs:
        left, right = first[left], first[right]
        while True:
            apart = left != right
            if not bool(apart.any()):
                break
            left, right = left[apart], right[apart]
            low, high = torch.minimum(left, right), torch.maximum(left, right)
            first.scatter_reduce_(0, high, low, "amin")
            first = _follow(first)
            left, right = first[left], first[right]
    return first


def list_groups(first: Tensor) -> list[Tensor]:
    """The indices of each group of two or more, in ascending order; the largest group first.

    ``first`` (count,): as :func:`join_pairs` returns it.
    """
    order = first.argsort(stable=True)
    sizes = torch.unique_consecutive(first[order], return_counts=True)[1]
    groups = [group for group in order.split(sizes.tolist()) if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _follow(first: Tensor) -> Tensor:
    """Each row points at its group's first row itself."""
    while not torch.equal(first, ahead := first[first]):
        first = ahead
    return first
