"""One pass over the data before the first step, so that the first clustering is of real embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from contralex.data.loading import EpochSampler, ViewDataset, collate, load
from contralex.lookup import batch_norm, distributed
from contralex.plugin import LookUp, Rows, Step, Views, progress
from contralex.training import devices
from contralex_swav.memory import Clusters

if TYPE_CHECKING:
    from contralex.training.run import Run


@torch.no_grad()
def fill(run: Run) -> None:
    """Remembers the key views of the first epoch, in its batches, as the untrained encoder sees them in training mode
    (main_deepclusterv2.py, ``init_memory``), crop by crop. What is incomplete of a last batch stays unseen."""
    method, clusters = run.method, run.method.negatives
    assert isinstance(clusters, Clusters)
    was_training = method.training
    method.train()
    clusters.forget()
    step = Step(run.clock(), run.spec.train.seed, run.spec.train.batch_size)
    for batch in progress.steps("Filling the memory", _first_epoch(run, method.key_views), run.per_epoch):
        views = {view: batch["views"][view].to(run.device) for view in method.key_views}
        sample = batch["index"].to(run.device)
        with run.accelerator.autocast():
            keys = Rows.cat([_keys_of(method, {view: crop}, sample, step) for view, crop in views.items()])
        clusters.update(keys.gather(gradient=False), step)
        batch_norm.average_running_statistics(method)
    method.train(was_training)


def _keys_of(method: LookUp, view: dict[int, Tensor], sample: Tensor, step: Step) -> Rows:
    """Of one view: each crop is a batch of its own to BatchNorm, where training has all in one."""
    embedded = method.encoder(view) if method.key_encoder.reads_queries else {}
    keys: Rows = method.key_encoder(method.encoder, view, embedded, sample, step)
    return keys


def _first_epoch(run: Run, key_views: tuple[int, ...]) -> Any:
    train = run.spec.train
    views = _Some(run.views, key_views)
    rank, world = distributed.rank(), distributed.world()
    workers = devices.workers(train.workers, run.device.type)
    return load(
        ViewDataset(run.split, views, train.seed, train.batch_size),
        collate,
        batch_sampler=EpochSampler(len(run.split), train.batch_size, train.seed, 1, rank, world),
        num_workers=workers,
        worker_init_fn=devices.quiet_worker,
        multiprocessing_context=devices.context() if workers else None,
    )


class _Some(Views):
    """The views up to the last one that is a key; multi-crop's small ones, which come after, are not made."""

    def __init__(self, all_views: Views, keys: tuple[int, ...]) -> None:
        self.count = max(keys) + 1
        self._all = all_views

    def make(self, item: Any, view: int) -> Tensor:
        return self._all.make(item, view)

    def draw(self, view: int) -> int:
        return self._all.draw(view)

    def plain(self, item: Any) -> Tensor:
        return self._all.plain(item)
