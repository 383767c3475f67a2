"""Rows of unit length, with fewer operations in the backward than ``F.normalize`` has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.compat import are_transforms_active

_LEAST = 1e-12  # of a length that is divided by, as in F.normalize


def to_unit_length(vectors: Tensor) -> Tensor:
    """(..., D) each row over its length: ``F.normalize(vectors, dim=-1)``, of float32 or float64.

    Where u = v/‖v‖ has the gradient g, v has (g − u·(u·g))/‖v‖: four operations on all numbers, and not ten. That
    gradient has one of its own.
    """
    is_traced = torch.compiler.is_compiling() or are_transforms_active()
    if is_traced or not (torch.is_grad_enabled() and vectors.requires_grad):
        return F.normalize(vectors, dim=-1)
    units: Tensor = _UnitLength.apply(vectors)
    return units


class _UnitLength(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        units = vectors / _lengths(vectors)
        ctx.save_for_backward(vectors, units)
        return units

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        vectors, units = ctx.saved_tensors
        (gradient,) = grads
        along = (gradient * units).sum(dim=-1, keepdim=True)
        return torch.addcmul(gradient, units, along, value=-1) / _lengths(vectors)


def _lengths(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return lengths.clamp_min(_LEAST)
