"""How much memory the activations of a sample take, which the gradient needs, measured on two of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from contralex import memory
from contralex.lookup.slots import Encoder
from contralex.lookup.view import ViewBatch
from contralex.recipes.run_spec import RunSpec
from contralex.training import build, trial_forward


def bytes_a_sample(spec: RunSpec) -> int:
    """Bytes that the encoder keeps of one sample for its backward pass, on any device."""
    split, views = build.read_source(spec.data).train(), spec.method.views.build()
    first = trial_forward.first_samples(spec, split, views).views
    return bytes_kept(spec, build.encoder(spec).train(), first) // len(next(iter(first.values())))


def bytes_kept(spec: RunSpec, encoder: Encoder, views: Mapping[int, ViewBatch]) -> int:
    """Bytes that the encoder keeps of these views for its backward pass, in the precision of the run."""
    asked = {question: spec.matches(question) for question in spec.method.questions()}
    encoded = {query for matches in asked.values() for query, _ in matches}
    if spec.method.key_encoder.key_weights == "shared":
        encoded |= {key for matches in asked.values() for _, key in matches}
    kept = _KeptStorages(encoder)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec.train.precision)
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(kept.add, lambda kept: kept),
        torch.autocast("cpu", dtype, enabled=dtype is not None),
    ):
        embedded = encoder({view: views[view] for view in sorted(encoded)})
        for question, matches in asked.items():
            output = spec.method.questions()[question].of
            encoder.queries_of(output, {view: embedded[view] for view in {query for query, _ in matches}})
    return kept.bytes


def free(device: str) -> int | None:
    """Bytes that this process may have for activations; None where the system does not say."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else memory.available()


class _KeptStorages:
    """The storages that autograd keeps, but for those of parameters."""

    def __init__(self, module: nn.Module) -> None:
        self.bytes = 0
        self._known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        self._alive: list[torch.UntypedStorage] = []  # so that no address is used twice

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self._alive.append(storage)
            self.bytes += storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it, and none would ever be freed
