"""Features as points of a plane."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.errors import ContralexError, remedy

_NEIGHBOURS = 15  # of UMAP, where there are as many samples


@torch.no_grad()
def principal_components(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Coordinates (N, count) along the first principal components of (N, F), and the fraction of the variance that each
    explains. Signs are fixed: the largest weight of a component is positive. Components beyond the rank are 0."""
    centred = values.double() - values.double().mean(dim=0)
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    variances, axes = variances.flip(0)[:count].clamp_min(0), axes.flip(1)[:, :count]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    points = centred @ (axes * largest.sign())
    total = centred.square().sum().clamp_min(1e-30)
    missing = count - points.shape[1]
    return F.pad(points, (0, missing)).float(), F.pad(variances / total, (0, missing)).float()


def umap_points(values: Tensor, seed: int) -> Tensor:
    """(N, 2) by UMAP over cosine distances (McInnes et al., 2018, arXiv:1802.03426), the same for the same seed."""
    neighbours = min(_NEIGHBOURS, len(values) - 1)
    if neighbours < 2:
        raise ContralexError(f"UMAP needs at least 3 images, and there are {len(values)}")
    model = import_umap().UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
    return torch.from_numpy(np.asarray(model.fit_transform(values.numpy()), dtype=np.float32))


def import_umap() -> Any:
    try:
        import umap
    except ImportError:
        raise ContralexError(
            "--umap needs umap-learn, which is not installed:" + remedy("pip", "install", "contralex[umap]")
        ) from None
    return umap


def pack(points: Tensor) -> str:
    """Points (N, 2), each in [0, 1] of the longer side of their rectangle, as base64 of little-endian uint16."""
    low, high = points.min(dim=0).values, points.max(dim=0).values
    side = (high - low).max().clamp_min(1e-12)
    centred = (points - (low + high) / 2) / side + 0.5
    levels = (centred.clamp(0, 1) * 65535).round().to(torch.int32).numpy().astype("<u2")
    return base64.b64encode(levels.tobytes()).decode()
