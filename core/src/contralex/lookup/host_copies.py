"""Numbers between host and device, moved so that neither waits for the other."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Arrival(Protocol):
    """The moment at which a copy is on the host, as an event of CUDA marks it."""

    def query(self) -> bool:
        """Whether it has come."""

    def synchronize(self) -> None:
        """Wait for it."""


class HostCopy:
    """A tensor of the device on its way to the host. It can be read without waiting once it has arrived.

    From a device other than a GPU of CUDA it arrives when it is read.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._arrival = send_to_host(tensor.detach())

    @property
    def has_arrived(self) -> bool:
        return self._arrival.query() if self._arrival is not None else self._tensor.device.type == "cpu"

    def read(self) -> list[float]:
        """Its numbers; waits where it has not arrived."""
        return list_on_host(self.wait())

    def wait(self) -> Tensor:
        """The tensor of the host; waits where it has not arrived."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._tensor.cpu()


def send_to_host(tensor: Tensor) -> tuple[Tensor, Arrival | None]:
    """A copy that has begun, and the moment of its arrival where the device marks one. HostWaits counts here."""
    if tensor.device.type != "cuda":
        return tensor, None
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


def read_on_host(tensor: Tensor) -> float:
    """The number of a tensor that is the host's own, as a run's on the CPU are. RuntimeError of another."""
    return float(_require_host(tensor))


def list_on_host(tensor: Tensor) -> list[float]:
    """The numbers of a tensor that is the host's own. RuntimeError of another."""
    return [float(number) for number in _require_host(tensor).flatten().tolist()]


def equal_on_host(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of the host's own are equal. RuntimeError of others."""
    return torch.equal(_require_host(one), _require_host(other))


def find_on_host(mask: Tensor) -> Tensor:
    """The indices at which a mask (R,) of the host's own is True. RuntimeError of another."""
    return _require_host(mask).nonzero().squeeze(1)


def _require_host(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cpu":
        raise RuntimeError(
            f"a tensor on {tensor.device} is read where only the host's own may be: that would wait for it"
        )
    return tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting for the copy."""
    return send_to_device(tensor, device)


def send_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """What :func:`to_device` returns. HostWaits counts here."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
