"""Before a run starts: is the encoding of a batch the same in micro-batches? If not, it is refused or said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from contralex.compat import BatchNorm
from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Rows, Step
from contralex.lookup.view import ViewBatch
from contralex.recipes.run_spec import RunSpec

_CLOSE = 1e-3  # of the length of the rows: kernels of another size round in another way


def check(spec: RunSpec, method: LookUp, views: Mapping[int, ViewBatch]) -> None:
    """Refuses what gives a sample other rows when it is encoded alone than beside another one.

    ``views`` are those of two samples. BatchNorm is in evaluation mode here; see :func:`warnings`.
    """
    if not _is_divided(spec):
        return
    sample = torch.arange(2, device=next(iter(views.values())).device)
    with _precisely(sample.device):
        together, again, alone = (
            method.encode_own(views, sample, Step(Clock(0, 1, 1), spec.train.seed, batch=2, micro_batch=size))
            for size in (None, None, 1)
        )
    sides = {"method.encoder": 0, "method.key_encoder": 1}
    for slot, side in sides.items():
        if _are_close(together[side], again[side]) and not _are_close(together[side], alone[side]):
            raise ContralexError(
                f"train.micro_batch: {slot} makes other vectors of a sample where it is encoded beside other samples, "
                "so a batch cannot be encoded in parts. Try:" + remedy("--set", "train.micro_batch=null")
            )


@contextmanager
def _precisely(device: torch.device) -> Iterator[None]:
    """In float32 itself. In bfloat16, or in the TF32 that cuDNN takes for it, one layer after another adds to the
    difference: a GPU computes a sample alone by other kernels than two."""
    cudnn = torch.backends.cudnn
    without_tf32 = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False)
    with torch.autocast(device.type, enabled=False), without_tf32:
        yield


def warnings(spec: RunSpec, method: nn.Module) -> list[str]:
    """A sentence where BatchNorm's statistics are of fewer samples than without micro-batches."""
    train = spec.train
    if not _is_divided(spec) or train.batch_norm != "local" or not _has_batch_norm(method.modules()):
        return []
    return [
        f"BatchNorm's statistics are of {train.micro_batch} samples, a micro-batch, and not of the "
        f"{train.look_up_size // distributed.world()} that each process has of a batch. All else is as with the whole "
        f"batch. To say so in the recipe:{remedy('--set', f'train.batch_norm={train.micro_batch}')}"
    ]


def _is_divided(spec: RunSpec) -> bool:
    world = distributed.world()
    return spec.train.samples_at_once(world) < spec.train.look_up_size // world


def _has_batch_norm(modules: Iterable[nn.Module]) -> bool:
    return any(isinstance(module, BatchNorm) for module in modules)


def _are_close(one: Mapping[str, Rows], other: Mapping[str, Rows]) -> bool:
    """Whether the rows of each output are the same but for rounding."""
    pairs = [(rows.vectors.float(), other[output].vectors.float()) for output, rows in one.items()]
    return all(bool((first - second).norm() <= _CLOSE * first.norm()) for first, second in pairs)
