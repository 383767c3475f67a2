"""A buffer whose numbers decide what the host does next, read once and then remembered."""

from __future__ import annotations

from torch import Tensor

from contralex.compat import times_written


class HostMirror:
    """What a buffer holds, remembered on the host: it is read again only where something has written to it since."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._version = -1
        self._value: list[float] = []

    def read(self, buffer: Tensor) -> list[float]:
        """The numbers of a small buffer. Waits where it was written to without a call of :meth:`remember`."""
        if self._buffer is not buffer or self._version != times_written(buffer):
            self.remember(buffer, [float(number) for number in buffer.flatten().tolist()])
        return self._value

    def remember(self, buffer: Tensor, value: list[float]) -> None:
        """The buffer was just written, and these are its numbers."""
        self._buffer, self._version, self._value = buffer, times_written(buffer), value
