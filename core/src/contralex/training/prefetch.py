"""Batches that are on the device when their step begins: each is copied while the step before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import torch

from contralex.data.loading import Batch

Started = TypeVar("Started")


class Copies(Protocol[Started]):
    """How a batch comes to a device."""

    def start(self, batch: Batch) -> Started:
        """Begin to copy, and do not wait."""

    def finish(self, started: Started) -> Batch:
        """Have the device wait for the copy, and not the host."""


def _keep(batch: Batch) -> Batch:
    return batch


def to_device(
    batches: Iterable[Batch], device: torch.device, finish: Callable[[Batch], Batch] = _keep
) -> Iterator[Batch]:
    """The batches, with their views on the device where that is a GPU of CUDA; elsewhere as they are.

    ``finish`` has what is left to be done to a batch, which is done on the device. The indices stay with the host,
    which reads them.
    """
    if device.type == "cuda":
        return copy_ahead(batches, _CudaCopies(device, finish))
    return map(finish, batches)


def copy_ahead(batches: Iterable[Batch], copies: Copies[Started]) -> Iterator[Batch]:
    """Each batch when its copy is done, and that of the next one has begun."""
    stream = iter(batches)
    first = next(stream, None)
    if first is None:
        return
    present = copies.start(first)
    for batch in stream:
        following = copies.start(batch)
        yield copies.finish(present)
        present = following
    yield copies.finish(present)


class _CudaCopies:
    """From pinned memory, on a stream of their own, so that they do not queue behind the step's kernels; what
    finishes a batch runs there as well."""

    def __init__(self, device: torch.device, finish: Callable[[Batch], Batch]) -> None:
        self.device = device
        self.finish_on_device = finish
        self.stream = torch.cuda.Stream(device)

    def start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(self.stream):
            views = {view: inputs.to(self.device, non_blocking=True) for view, inputs in batch["views"].items()}
            copied = self.finish_on_device({**batch, "views": views})
        return copied, self.stream.record_event()

    def finish(self, started: tuple[Batch, torch.cuda.Event]) -> Batch:
        batch, copied = started
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(copied)
        for inputs in batch["views"].values():
            inputs.record_stream(computing)  # else their memory could be given to a later copy while they are read
        return batch
