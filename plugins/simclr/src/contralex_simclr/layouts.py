"""Whose names checkpoints of SimCLR in PyTorch have. The official code is TensorFlow."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

_HEAD = "a head without the BatchNorm of the official code, so the recipe's own begins anew"
LAYOUTS = [
    Layout(
        name="simclr-pytorch",
        source="sthalles/SimCLR, models/resnet_simclr.py; Spijkervet/SimCLR, simclr/simclr.py",
        recipes=("simclr-v1",),
        renames=[
            Rename("backbone.*", "encoder.backbone.*"),
            Rename("encoder.*", "encoder.backbone.*"),
        ],
        left_out={"backbone.fc.*": _HEAD, "projector.*": _HEAD},
    ),
]
