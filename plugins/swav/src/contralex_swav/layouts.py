"""Whose names the published checkpoints of SwAV and DeepCluster-v2 have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

LAYOUTS = [
    Layout(
        name="swav",
        source="facebookresearch/swav, src/resnet50.py",
        recipes=("swav",),
        renames=[
            Rename("projection_head.*", "encoder.projector.*"),
            Rename("prototypes.weight", "negatives.layer.weight"),
            Rename("*", "encoder.backbone.*"),
        ],
        left_out={"prototypes.prototypes{n}.weight": "DeepCluster-v2 finds its clusters anew as each epoch begins"},
    ),
]
