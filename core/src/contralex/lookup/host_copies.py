"""Numbers between host and device, moved so that neither waits for the other."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way to the host. It can be read without waiting once it has arrived.

    From a device other than a GPU of CUDA it arrives when it is read.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._event: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor = host.copy_(self._tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    @property
    def has_arrived(self) -> bool:
        return self._event.query() if self._event is not None else self._tensor.device.type == "cpu"

    def read(self) -> list[float]:
        """Its numbers; waits where it has not arrived."""
        return [float(number) for number in self.wait().flatten().tolist()]

    def wait(self) -> Tensor:
        """The tensor of the host; waits where it has not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.cpu()


def read_on_host(tensor: Tensor) -> float:
    """The number of a tensor that is the host's own, as a run's on the CPU are. RuntimeError of another."""
    return float(_require_host(tensor))


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
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
