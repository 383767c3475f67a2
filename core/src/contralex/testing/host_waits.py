"""Counts what would make a host wait for a GPU, on any machine: without a GPU, too.

A GPU works through a queue. The host fills it and runs ahead, until it asks for a number that is not there yet: then
both stand still in turn. Whether code asks is seen on the CPU as well, by the operations that it uses::

    with HostWaits() as waits:
        loss = method(views, sample, step).loss
        loss.backward()
    assert not waits.found, waits
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from contralex.compat import overload_name
from contralex.lookup import host_copies
from contralex.lookup.host_copies import Arrival

_TORCH = str(Path(torch.__file__).parent)
# Read a number, or have a result whose size depends on numbers.
_WAITING = frozenset(
    {
        "_local_scalar_dense",  # item(), bool(), int(), float()
        "is_nonzero",
        "equal",
        "nonzero",
        "masked_select",
        "bincount",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "unique_dim_consecutive",
    }
)
_INDEXING = frozenset({"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"})
_READING = frozenset({"tolist", "numpy", "__array__", "cpu"})  # on the CPU no operation; on a GPU a copy to the host


class HostWaits:
    """Within it, operations are counted that would make the host wait for a GPU: ``found``, by operation and line.

    Seen are ``item()``, ``bool()``, ``int()``, ``float()``, ``tolist()``, ``numpy()``, ``cpu()``, boolean masks as
    indices, ``nonzero``, ``masked_select``, ``unique``, ``equal``, ``bincount``, ``repeat_interleave`` with a tensor of
    repeats, values of Python's that become tensors (``torch.tensor([...])``), and copies between devices that do not
    say ``non_blocking``. Gradients and custom autograd functions are seen, too. What torch's optimisers read of their
    own step counters is not counted: they keep these on the host.

    What is sent to the host to be read later has not arrived before somebody waits for it, or for something that was
    sent after it: as from a GPU that is always behind. Only a read that waits is counted. ``copies``: the tensors that
    ``to_device`` brings to the device, which the host does not wait for.
    """

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self._queue = _Queue(self)
        self._modes = ExitStack()

    @property
    def total(self) -> int:
        return sum(self.found.values())

    def __enter__(self) -> HostWaits:
        self._modes.enter_context(_Operations(self))
        self._modes.enter_context(_Methods(self))
        self._modes.enter_context(self._queue.replace())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._modes.close()

    def __str__(self) -> str:
        return "; ".join(f"{count} × {what}" for what, count in self.found.most_common()) or "nothing waits"

    def add(self, operation: str) -> None:
        frames = traceback.extract_stack()[:-2]
        if any("/torch/optim/" in frame.filename.replace("\\", "/") for frame in frames):
            return
        own = [frame for frame in frames if not frame.filename.startswith(_TORCH) and frame.filename != __file__]
        if own[-1].filename == host_copies.__file__:  # what has arrived on the host is there
            return
        self.found[f"{operation} at {own[-1].filename}:{own[-1].lineno}"] += 1


class _Queue:
    """Stands in for what moves numbers between host and device, and counts it."""

    def __init__(self, waits: HostWaits) -> None:
        self.waits = waits
        self.is_counting = False
        self.sent = 0
        self.arrived = 0

    @contextmanager
    def replace(self) -> Iterator[None]:
        self.is_counting = True
        with (
            mock.patch.object(host_copies, "send_to_host", partial(self._send_to_host, host_copies.send_to_host)),
            mock.patch.object(host_copies, "send_to_device", partial(self._send_to_device, host_copies.send_to_device)),
        ):
            try:
                yield
            finally:
                self.is_counting = False

    def _send_to_host(
        self, send: Callable[[Tensor], tuple[Tensor, Arrival | None]], tensor: Tensor
    ) -> tuple[Tensor, Arrival]:
        copy, arrival = send(tensor)
        self.sent += 1
        return copy, _Arrival(self, self.sent, arrival)

    def _send_to_device(
        self, send: Callable[[Tensor, torch.device], Tensor], tensor: Tensor, device: torch.device
    ) -> Tensor:
        self.waits.copies[f"to_device() at {_caller()}"] += 1
        return send(tensor, device)


class _Arrival:
    def __init__(self, queue: _Queue, number: int, real: Arrival | None) -> None:
        self.queue = queue
        self.number = number
        self.real = real

    def query(self) -> bool:
        if self.queue.is_counting:
            return self.number <= self.queue.arrived
        return self.real is None or self.real.query()

    def synchronize(self) -> None:
        if not self.query():
            self.queue.waits.found[f"a HostCopy at {_caller()}"] += 1
            self.queue.arrived = self.number
        if self.real is not None:
            self.real.synchronize()


def _caller() -> str:
    """Who moves numbers."""
    own = [frame for frame in traceback.extract_stack() if frame.filename not in (__file__, host_copies.__file__)]
    return f"{own[-1].filename}:{own[-1].lineno}"


class _Operations(TorchDispatchMode):
    def __init__(self, waits: HostWaits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        name = _waiting_name(func, args, kwargs or {})
        if name is not None:
            self.waits.add(name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READING:
            self.waits.add(f"{name}()")
        elif func in (torch.tensor, torch.as_tensor) and not isinstance(args[0] if args else None, Tensor):
            self.waits.add("torch.tensor(...) of Python's values")
        return func(*args, **(kwargs or {}))


def _waiting_name(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    """The name of an operation that waits; None of one that does not."""
    name: str = func.overloadpacket.__name__
    if name in _WAITING:
        return name
    if name in _INDEXING and _has_mask(args):
        return "a boolean mask as an index"
    if name == "repeat_interleave" and "Tensor" in overload_name(func) and kwargs.get("output_size") is None:
        return "repeat_interleave without output_size"
    if name in ("_to_copy", "copy_") and _crosses_devices(name, args, kwargs):
        return "a copy between devices without non_blocking"
    return None


def _has_mask(args: Sequence[Any]) -> bool:
    masks = [each for each in args[1] if each is not None and each.dtype in (torch.bool, torch.uint8)]
    # One mask and one number to write is masked_fill, which is computed in place.
    is_fill = len(args) > 2 and len(masks) == 1 and len([e for e in args[1] if e is not None]) == 1 and _is_one(args[2])
    return bool(masks) and not is_fill


def _is_one(values: Any) -> bool:
    return isinstance(values, Tensor) and values.numel() == 1


def _crosses_devices(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    if name == "copy_":
        target, source = args[0].device, args[1].device
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    else:
        source, target = args[0].device, kwargs.get("device") or args[0].device
        waits = not kwargs.get("non_blocking", False)
    return waits and torch.device(target).type != source.type
