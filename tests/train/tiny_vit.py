"""A published Vision Transformer that is small enough to be adapted in seconds, and its training."""

from __future__ import annotations

from typing import Any

WIDTH, DEPTH, HEADS, PATCH, GRID = 12, 2, 2, 4, 5
HEAD = [{"width": 16, "activation": "gelu"}, {"width": 8}]
TINY_VIT: dict[str, Any] = {
    "method.encoder.backbone.width": WIDTH,
    "method.encoder.backbone.depth": DEPTH,
    "method.encoder.backbone.heads": HEADS,
    "method.encoder.backbone.patch": PATCH,
    "method.encoder.backbone.image_size": GRID * PATCH,
    "method.encoder.projector": HEAD,
    "method.views.groups.locals.count": 2,
    "method.negatives.count": 16,
    "train.batch_size": 8,
    "train.workers": 0,
    "train.precision": "fp32",
    "train.threads": 1,
}
