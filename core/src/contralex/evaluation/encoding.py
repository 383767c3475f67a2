"""A split through a frozen function, batch after batch, in eval mode; each process has its part of the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from contralex import progress
from contralex.data.base import Unreadable
from contralex.data.loading import EvalDataset, collate_plain, load
from contralex.data.skipped import Skipped
from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.recipes.code_files import Portable

_WORTH_WORKERS = 2_000  # samples; fewer are read before workers have started

Block = tuple[Tensor, Tensor]
"""Features (B, F) and the indices (B,) of the samples that they belong to."""


@torch.no_grad()
def extract_features(
    function: Callable[[Tensor], Tensor],
    dataset: EvalDataset,
    batch_size: int,
    device: torch.device | str,
    workers: int = 0,
) -> Block:
    """Features (N, F) and the indices (N,) that they belong to: those of the items that could be read. The others
    are named. Each process encodes its part, and has the features of all."""
    found = list(encode(function, dataset, batch_size, device, workers))
    everyone = distributed.gather_unequal(torch.cat([features for features, _ in found]) if found else None)
    index = distributed.gather_unequal(torch.cat([at for _, at in found]).to(device) if found else None)
    if everyone is None or index is None:
        raise nothing_readable()
    return everyone, index.cpu()


def encode(
    function: Callable[[Tensor], Tensor],
    dataset: EvalDataset,
    batch_size: int,
    device: torch.device | str,
    workers: int,
) -> Iterator[Block]:
    """Features (B, F) and indices (B,), batch after batch, of this process's part. All processes go to the end."""
    unread = Skipped()
    part = distributed.own_part(len(dataset))
    for features, index, faults in encode_part(function, dataset, part, batch_size, device, workers):
        for fault in faults:
            unread.add(fault.path, fault.reason)
        if features is not None:
            yield features, index
    skip_everywhere(dataset, unread)


def encode_part(
    function: Callable[[Tensor], Tensor],
    dataset: EvalDataset,
    part: Sequence[int],
    batch_size: int,
    device: torch.device | str,
    workers: int,
) -> Iterator[tuple[Tensor | None, Tensor, Sequence[Unreadable]]]:
    """Features and indices of these samples, in their order, with the faults of those that cannot be read. The features
    are None where none of a batch can be."""
    num_workers = workers if len(part) >= _WORTH_WORKERS else 0
    loaded = load(Portable(dataset), collate_plain, num_workers=num_workers, batch_size=batch_size, sampler=part)
    seen = 0
    with evaluating(function), progress.during("Encoding samples to evaluate with", len(part)) as done:
        for at, inputs, faults in loaded:
            seen += len(at) + len(faults)
            done(seen)
            features = None
            if inputs is not None:
                with torch.no_grad():
                    features = _release(function(inputs.to(device)).float(), inputs)
            yield features, at, faults


def _release(features: Tensor, inputs: Tensor) -> Tensor:
    """The features without a larger tensor that they are a part of, such as all tokens of a ViT, and without the memory
    of their inputs, which a worker shares: each batch of it is an open file, and takes of /dev/shm."""
    storage = features.untyped_storage()
    is_part = storage.nbytes() > features.nbytes or storage.data_ptr() == inputs.untyped_storage().data_ptr()
    return features.clone() if is_part else features


def skip_everywhere(dataset: EvalDataset, unread: Skipped) -> None:
    """Name and count, on every process, what any of them could not read."""
    for found in distributed.gather_objects([unread]):
        dataset.split.skip_all(found)


@contextmanager
def evaluating(function: object) -> Iterator[None]:
    """Puts the module behind ``function`` (itself, or the owner of a method) in eval mode, and then each of its
    submodules back as it was: a frozen part may have been in eval mode while the rest trained."""
    owner = getattr(function, "__self__", function)
    before = {module: module.training for module in owner.modules()} if isinstance(owner, nn.Module) else {}
    if isinstance(owner, nn.Module):
        owner.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def nothing_readable() -> ContralexError:
    return ContralexError("None of the items to evaluate on can be read; see the warnings about each.")
