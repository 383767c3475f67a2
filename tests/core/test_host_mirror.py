"""A buffer is read once, and again where something else has written to it."""

from __future__ import annotations

import torch

from contralex.lookup.host_mirror import HostMirror
from contralex.testing.host_waits import HostWaits


def test_a_buffer_is_read_again_only_after_it_was_written() -> None:
    buffer, mirror = torch.tensor([3, 4]), HostMirror()
    assert mirror.read(buffer) == [3, 4]
    with HostWaits() as waits:
        assert mirror.read(buffer) == [3, 4]
        buffer += 1
        mirror.remember(buffer, [4, 5])
        assert mirror.read(buffer) == [4, 5]
    assert not waits.found, str(waits)
    buffer.copy_(torch.tensor([7, 8]))  # as a checkpoint does
    assert mirror.read(buffer) == [7, 8]
    assert mirror.read(torch.tensor([9])) == [9]  # as after a move to another device
