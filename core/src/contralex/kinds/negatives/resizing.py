"""Put the keys of a queue into a queue of another size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.lookup.ring_buffer import ring_indices

_QUEUE = ("vectors", "sample", "pointer")


def resize_queue(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys of a queue in one of another size. ``vectors`` (S, D), ``sample`` (S,) and the ``pointer`` of each.

    A larger queue gets all keys, from the oldest on, and has random ones behind them; a smaller one gets the newest.
    The pointer is at an empty slot, or at the oldest key where there is none. ``new`` may hold a part of its vectors
    alone, as one process of several does; the result always holds all of them.
    """
    for name in _QUEUE:
        if old[name].dtype != new[name].dtype or old[name].shape[1:] != new[name].shape[1:]:
            stored, built = _describe(old[name]), _describe(new[name])
            raise ContralexError(
                f"negatives.{name} is {stored} in the checkpoint, and the spec makes {built}; of a queue only the size "
                "may change, so set the rest back."
            )
    size = len(old["sample"])
    pointer = int(old["pointer"])
    if len(old["vectors"]) != size or not 0 <= pointer < size:
        raise ContralexError("negatives.pointer of the checkpoint is not within its queue; take another checkpoint.")
    order = ring_indices(pointer, size, size)  # from the oldest
    written = order[old["sample"][order] >= 0]  # what no key was written to yet is random
    kept = written[max(0, len(written) - len(new["sample"])) :]
    made = {name: new[name].detach().cpu().clone() for name in _QUEUE}
    if len(made["vectors"]) != len(made["sample"]):  # the same on every process, which each knows its own part of
        noise = torch.randn(len(made["sample"]), made["vectors"].shape[1], generator=torch.Generator().manual_seed(0))
        made["vectors"] = F.normalize(noise, dim=1).to(made["vectors"])
    for name in ("vectors", "sample"):
        made[name][: len(kept)] = old[name][kept]
    made["pointer"].fill_(len(kept) % len(new["sample"]))
    return made


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
