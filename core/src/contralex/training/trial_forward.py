"""Two samples go through the method before anything is trained, so that what cannot work is known at once.

Images of a size that a backbone does not take, pieces that a head does not fit, statistics over a single value and too
little memory are mistakes of the user's, and depend on what the views really are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contralex.data.base import Split
from contralex.data.loading import ViewDataset, collate
from contralex.data.views import Views
from contralex.lookup.slots import Encoder
from contralex.lookup.step import LookUp
from contralex.lookup.view import ViewBatch
from contralex.recipes.run_spec import RunSpec
from contralex.training import batch_norm_check, devices, image_check, memory_checks, micro_batch_check
from contralex.training.run_state import Machine, TrainingData


@dataclass(frozen=True)
class FirstSamples:
    """``views``: those of two samples. ``plain`` (1, ...): the first of them as evaluation sees it."""

    views: Mapping[int, ViewBatch]
    plain: Tensor


def check(spec: RunSpec, method: LookUp, data: TrainingData, machine: Machine) -> None:
    """Raises :class:`ContralexError`, on every process alike. The method is as before, and on its device.

    Called before BatchNorm is replaced by what ``train.batch_norm`` says, so no process waits for another.
    """
    memory_checks.check_training(spec, method, machine.device)
    samples = first_samples(spec, data.split, data.views)
    memory_checks.check_batch(spec, samples.views, devices.workers(spec.train.workers, machine.device.type))
    with memory_checks.explain_sample_memory(spec, samples.views):
        devices.place(method, machine.device, spec.train.channels_last)
        with machine.accelerator.autocast():
            show(spec, method, samples, len(data.split), machine.device)


def first_samples(spec: RunSpec, split: Split, views: Views) -> FirstSamples:
    """The first sample of the first epoch, and the second. Others stand in for those that cannot be read."""
    dataset = ViewDataset(split, views, spec.train.seed, spec.train.batch_size)
    first = dataset.order.of(0)[:2].tolist()
    items = [dataset[0, index] for index in (first[0], first[-1])]
    return FirstSamples(collate(items)["views"], views.plain(split[items[0]["index"]])[None])


def show(spec: RunSpec, method: LookUp, samples: FirstSamples, dataset_size: int, device: torch.device) -> None:
    """Through each encoder goes what it will be given: query views in training, a plain image in evaluation, and key
    views where an encoder of their own sees them."""
    encoder = method.encoder
    views = {view: inputs.to(device) for view, inputs in samples.views.items()}
    keys = {view: views[view] for view in method.encoded_keys}
    online = [*method.encoded_queries, *(method.encoded_keys if method.key_encoder.reads_queries else ())]

    def embed() -> None:
        embedded = encoder({view: views[view] for view in dict.fromkeys(online)})
        for output, asked in method.asked_views.items():
            encoder.queries_of(output, {view: embedded[view] for view in asked})

    method.train()
    with _unchanged(encoder, device), torch.no_grad():
        with batch_norm_check.watch(encoder) as norms, image_check.watch(spec, encoder, "method.encoder"):
            embed()
        _evaluate(spec, encoder, "method.encoder", lambda: encoder.features(samples.plain.to(device)))
        method.eval()
        micro_batch_check.check(spec, method, views)
        method.train()
        for other in method.key_encoder.children():
            if isinstance(other, Encoder):
                _evaluate(spec, other, "method.key_encoder", lambda other=other: other.encode_keys(keys))  # type: ignore[misc]
    batch_norm_check.check(norms, spec, dataset_size)


def _evaluate(spec: RunSpec, encoder: Encoder, place: str, forward: Callable[[], object]) -> None:
    was_training = encoder.training
    encoder.eval()
    try:
        with image_check.watch(spec, encoder, place):
            forward()
    finally:
        encoder.train(was_training)


@contextmanager
def _unchanged(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Running statistics and random numbers are afterwards what they were."""
    before = {buffer: buffer.clone() for buffer in module.buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in before.items():
                    buffer.copy_(value)
