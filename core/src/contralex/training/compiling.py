"""``train.compile``: encoders compiled by ``torch.compile``, in place, so that no name of a tensor changes."""

from __future__ import annotations

import torch
from torch import nn

from contralex.errors import ContralexError, remedy
from contralex.lookup.slots import Encoder
from contralex.lookup.step import LookUp

BACKEND = "inductor"


def compile_encoders(method: LookUp, device: torch.device) -> None:
    """Have the query encoder, and the key encoder's own where it has one, compiled when they are first called. The
    look-up is not: its tables change their sizes, and it takes a small part of a step."""
    torch.compiler.reset()  # what runs before this one in the same process have compiled counts towards torch's limit
    _check_compiler(device)
    for module in [method.encoder, *method.key_encoder.modules()]:
        if isinstance(module, Encoder):
            module.compile(backend=BACKEND)


def _check_compiler(device: torch.device) -> None:
    """Compile something small, because torch says only then that a compiler is missing, with pages of text."""
    probe = _Probe()
    probe.compile(backend=BACKEND)
    try:
        probe(torch.zeros(1, 1, device=device))
    except Exception as error:  # of many kinds, which differ between versions and platforms
        lines = [line.strip() for line in str(error).splitlines()]
        reason = next((line for line in lines if line and not line.endswith(":")), type(error).__name__)
        raise ContralexError(
            f"train.compile is true, and torch.compile does not work here ({reason}); install a C++ compiler such as "
            "g++, or do without:" + remedy("--set", "train.compile=false")
        ) from error


class _Probe(nn.Module):
    """A module of our own, because torch before 2.5 leaves its own uncompiled. It draws no random numbers."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + 1
