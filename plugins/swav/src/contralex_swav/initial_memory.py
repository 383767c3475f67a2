"""One pass over the data before the first step, so that the first clustering is of real embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from contralex.plugin import LookUp, Rows, Run, Step, ViewBatch, progress
from contralex_swav.memory import ClusterMemory


@torch.no_grad()
def fill_memory(run: Run) -> None:
    """Remember the key views of the first epoch, in its batches, as the untrained encoder sees them in training mode
    (main_deepclusterv2.py, ``init_memory``), crop by crop. Samples of an incomplete last batch stay unseen."""
    method: LookUp = run.method
    memory: ClusterMemory = run.method.negatives
    was_training = method.training
    method.train()
    memory.forget()
    step = Step(run.clock(), run.spec.train.seed, run.spec.train.batch_size)
    batches = run.epoch_batches(0, views=method.key_views)
    for batch in progress.steps("Filling the memory", batches, run.per_epoch):
        with run.autocast():
            keys = [_keys_of(method, {view: crop}, batch["index"], step) for view, crop in batch["views"].items()]
        memory.update(Rows.cat(keys).gather(gradient=False), step)
    method.train(was_training)


def _keys_of(method: LookUp, view: Mapping[int, ViewBatch], sample: Tensor, step: Step) -> Rows:
    """The keys of one view: each crop is a batch of its own to BatchNorm, where training has all in one."""
    embedded = method.encoder(view) if method.key_encoder.reads_queries else {}
    keys: Rows = method.key_encoder(method.encoder, view, embedded, sample, step)
    return keys
