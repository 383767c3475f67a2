"""How a batch comes from the worker that made it.

torch's workers put each tensor into shared memory, and hand on an open file for it: a dialogue between the processes
for each tensor, in which a worker that computes answers late. It pays for large tensors alone. Small ones travel as
bytes here, in one message with the batch.
"""

from __future__ import annotations

import io
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor

_SMALL = 1 << 19  # bytes of a batch that travel as such; of twice as many, shared memory takes less time


class Parcel:
    """A batch, or whatever may be pickled, with its small tensors as bytes."""

    __slots__ = ("_content",)

    def __init__(self, batch: Any) -> None:
        written = io.BytesIO()
        _Pickler(written, protocol=5).dump(batch)
        self._content = written.getvalue()

    def open(self) -> Any:
        """What was put into it, equal bit by bit. Once: memory that is shared is handed on once."""
        return pickle.loads(self._content)


class _Pickler(ForkingPickler):
    """torch's way for the tensors of a batch, but for the first ones, which together are small."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self._left = _SMALL

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor or not _is_plain(value) or value.nbytes > self._left:
            return NotImplemented
        self._left -= value.nbytes
        content = value.view(-1).view(torch.uint8).numpy().data
        return _to_tensor, (pickle.PickleBuffer(content), value.dtype, tuple(value.shape))


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is its bytes, in their order, and nothing else."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.requires_grad
    return plain and tensor.is_contiguous() and tensor.numel() > 0


def _to_tensor(content: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(content, dtype=dtype).view(shape)
