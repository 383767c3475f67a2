"""The batches of a run: this process's part of each, read by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from contralex import memory
from contralex.data import workers
from contralex.data.base import Split
from contralex.data.kept_images import KeptImages, bytes_to_keep
from contralex.data.loading import Batch, EpochSampler, ViewDataset, collate, load, unpack
from contralex.data.views import Views
from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.recipes.code_files import Portable
from contralex.recipes.run_spec import TrainSpec
from contralex.training import devices, prefetch


def batches(
    split: Split,
    views: Views,
    train: TrainSpec,
    device: torch.device,
    *,
    epochs: int,
    start_step: int = 0,
    only: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """This process's part of every global batch from ``start_step`` to the end of epoch ``epochs``, which is counted
    from 1. ``only``: the views that are made; None: all. Workers live as long as the iterator, over all its epochs. On
    CUDA the views are on the device already, but where ``train.micro_batch`` or ``train.accumulate`` divides them."""
    sampler = EpochSampler(
        len(split),
        train.batch_size,
        train.seed,
        epochs,
        rank=distributed.rank(),
        world=distributed.world(),
        start_step=start_step,
        parts=train.accumulate,
        places=views.shares_draws,
    )
    num_workers = devices.workers(train.workers, device.type)
    if train.cache == "memory":
        split = keep_images(split, views, num_workers)
    loaded = load(
        Portable(ViewDataset(split, views, train.seed, train.batch_size, only, packed=True)),
        collate,
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    finish = partial(unpack, views=views)
    # A whole batch of views is too much for a device that encodes it in parts, of which each is copied in its turn.
    is_whole = train.micro_batch is None and train.accumulate == 1
    return prefetch.to_device(loaded, device, finish) if is_whole else map(finish, loaded)


def keep_images(split: Split, views: Views, num_workers: int) -> Split:
    """The split, whose decoded images stay in memory. Only workers that are forked share it."""
    if num_workers and workers.worker_context().get_start_method() != "fork":
        raise ContralexError(
            "train.cache is memory, which workers share where they are forked, and here they are not. Try:"
            + remedy("--set", "train.cache=none")
        )
    return KeptImages(split, bytes_to_keep(memory.available()), views.may_scale)
