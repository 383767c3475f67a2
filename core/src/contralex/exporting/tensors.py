"""Tensors in a file of safetensors as other libraries expect it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """transformers refuses a file whose metadata do not name a format."""
    # One tensor under two names, as tied weights are, is written twice.
    # Not by save_file, whose files only their owner may read.
    whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    path.write_bytes(save(whole, metadata={"format": "pt"}))
