"""FSDP2: each process keeps a part of the encoders, of their gradients, and of what the optimiser keeps of them.

Asked for by ``accelerate``'s configuration. Every encoder of the method is sharded by torch's ``fully_shard``, the
student and its teacher alike, so that the moving average of a part needs no other part. An encoder is gathered when it
is called, and stays whole until its gradients are there, because its head may be called by itself. All else is whole on
each process, because a dictionary is written after the step, and prototypes in place before it. Its gradients are
averaged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from contralex.compat import copy_each
from contralex.lookup import distributed
from contralex.lookup.sharded_tensors import gather_parts, is_sharded
from contralex.lookup.slots import Encoder
from contralex.lookup.step import LookUp
from contralex.training import optimizers
from contralex.training.accelerate_check import ShardingPlan
from contralex.training.run_state import PreparedMethod


@dataclass(frozen=True)
class ShardedMethod(PreparedMethod):
    """A method whose encoders are sharded. All processes call each of its functions."""

    gradients: _Gradients
    units: tuple[Any, ...]
    """The modules that are gathered at once, torch's ``FSDPModule``."""
    is_sharded = True

    def without_reduction(self) -> AbstractContextManager[None]:
        return self.gradients.without_reduction()

    def clip_gradients(self, largest: float) -> None:
        optimizers.clip_norm(self.method.parameters(), largest)

    def end_backward(self) -> None:
        for unit in self.units:  # a teacher has no gradients, at whose arrival it would be sharded again
            unit.reshard()

    @contextmanager
    def whole(self) -> Iterator[None]:
        for unit in self.units:
            unit.unshard()
        try:
            yield
        finally:
            self.end_backward()

    def gather_optimizer(self) -> GatheredOptimizer:
        return GatheredOptimizer(self.optimizer)


class GatheredOptimizer:
    """What an optimiser keeps, complete: on the CPU of the main process, and nowhere else. A collective."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._state = {
            place: {name: _gather(value) for name, value in kept.items()}
            for place, kept in optimizer.state_dict()["state"].items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state}


def shard(method: LookUp, optimizer: Optimizer, accelerator: Accelerator, plan: ShardingPlan) -> ShardedMethod:
    """Shard the encoders of a method, whose weights are the same on all processes, and its optimiser with them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(accelerator.device.type, (distributed.world(),))
    before = dict(method.named_parameters())
    for encoder in _encoders(method):
        scalars = {parameter for parameter in encoder.parameters() if not parameter.dim()}  # which have no parts
        for parameter in encoder.parameters():
            parameter.data = parameter.data.contiguous()
        for unit in _units(encoder, plan):
            fully_shard(unit, mesh=mesh, reshard_after_forward=plan.reshard_after_forward, ignored_params=scalars)
        fully_shard(encoder, mesh=mesh, ignored_params=scalars)
    _replace_parameters(optimizer, before, dict(method.named_parameters()))
    gradients = _Gradients(method)
    return ShardedMethod(
        method,
        optimizer,
        accelerator.prepare_model(method, evaluation_mode=True),  # in the run's precision, and not wrapped
        optimizer,
        gradients.backward,
        accelerator,
        gradients,
        tuple(module for module in method.modules() if isinstance(module, FSDPModule)),
    )


def _encoders(method: LookUp) -> list[Encoder]:
    """The student, and its teachers."""
    return [method.encoder, *(part for part in method.key_encoder.children() if isinstance(part, Encoder))]


def _units(encoder: Encoder, plan: ShardingPlan) -> list[nn.Module]:
    """The modules below an encoder that are gathered one by one, the innermost first."""
    below = [module for module in encoder.modules() if module is not encoder]
    found = [module for module in below if type(module).__name__ in plan.classes]
    if plan.least:
        found += [module for module in below if _count(module) >= plan.least and not isinstance(module, nn.ModuleList)]
    return list(dict.fromkeys(reversed(found)))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _replace_parameters(optimizer: Optimizer, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """The optimiser takes the sharded parameters, with its own part of what it keeps of each."""
    new = {id(parameter): after[name] for name, parameter in before.items()}
    for group in optimizer.param_groups:
        for at, parameter in enumerate(group["params"]):
            sharded = group["params"][at] = new[id(parameter)]
            kept = optimizer.state.pop(parameter, None)
            if kept is not None:
                optimizer.state[sharded] = {name: _part_like(value, sharded) for name, value in kept.items()}


def _part_like(value: Any, parameter: Any) -> Any:
    """This process's part of a tensor that every process has, laid out as a parameter is."""
    if not is_sharded(parameter) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import DTensor

    rows = -(-len(value) // distributed.world())  # as torch cuts: parts of the same size, but for the last ones
    start = min(distributed.rank() * rows, len(value))
    own = value[start : start + rows].contiguous().clone()
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(own, mesh, placements, run_check=False, shape=value.shape, stride=value.stride())


def _gather(value: Any) -> Any:
    if not isinstance(value, Tensor) or not is_sharded(value):
        return value
    whole = gather_parts(value)
    return whole.cpu() if distributed.rank() == 0 else whole.new_empty(0)


class _Gradients:
    """Backward, and the means over the processes of the gradients of what is not sharded; FSDP sees to the others."""

    def __init__(self, method: LookUp) -> None:
        self._method = method
        self._encoders: list[Any] = _encoders(method)  # FSDP modules
        self._reduces = True

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        if self._reduces:
            self._average()

    @contextmanager
    def without_reduction(self) -> Iterator[None]:
        self._set(reduces=False)
        try:
            yield
        finally:
            self._set(reduces=True)

    def _set(self, *, reduces: bool) -> None:
        self._reduces = reduces
        for encoder in self._encoders:
            encoder.set_requires_gradient_sync(reduces)

    def _average(self) -> None:
        parameters = [parameter for parameter in self._method.parameters() if not is_sharded(parameter)]
        gradients = [each.grad for each in parameters if each.grad is not None]
        if gradients:
            flat = torch.cat([each.flatten() for each in gradients])
            dist.all_reduce(flat)
            means = (flat / distributed.world()).split([each.numel() for each in gradients])
            copy_each(gradients, [mean.view_as(each) for mean, each in zip(means, gradients, strict=True)])
