"""Whose names the published checkpoints of Barlow Twins, VICReg and VICRegL have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

LAYOUTS = [
    Layout(
        name="barlow",
        source=(
            "facebookresearch/barlowtwins, main.py; facebookresearch/vicreg, main_vicreg.py; "
            "facebookresearch/VICRegL, main_vicregl.py"
        ),
        recipes=("barlow",),
        renames=[
            Rename("backbone.*", "encoder.backbone.*"),
            Rename("projector.*", "encoder.projector.*"),
            Rename("maps_projector.*", "encoder.heads.dense.projector.*"),
        ],
        left_out={
            "bn.*": "running statistics of the loss, which takes those of the batch",
            "classifier.*": "a classifier that was trained beside, on labels",
        },
    ),
]
