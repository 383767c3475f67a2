"""Tensors within mappings and sequences, as an encoder of several outputs returns them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def cat(parts: Sequence[Any]) -> Any:
    """What parts of a batch have become, as if the batch had been one; they are shaped alike."""
    return _apply(lambda *tensors: torch.cat(tensors), *parts)


def detach(value: Any) -> Any:
    return _apply(lambda tensor: tensor.detach(), value)


def select(value: Any, which: slice) -> Any:
    """These samples' part of each tensor."""
    return _apply(lambda tensor: tensor[which], value)


def _apply(function: Callable[..., Tensor], *values: Any) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return function(*values)
    if isinstance(first, Mapping):
        return {name: _apply(function, *(value[name] for value in values)) for name in first}
    if isinstance(first, tuple | list):
        return tuple(_apply(function, *each) for each in zip(*values, strict=True))
    return first
