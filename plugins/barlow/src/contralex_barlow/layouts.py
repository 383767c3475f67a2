"""Whose names the published checkpoints of Barlow Twins and VICReg have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

LAYOUTS = [
    Layout(
        name="barlow",
        source="facebookresearch/barlowtwins, main.py; facebookresearch/vicreg, main_vicreg.py",
        recipes=("barlow",),
        renames=[
            Rename("backbone.*", "encoder.backbone.*"),
            Rename("projector.*", "encoder.projector.*"),
        ],
        left_out={"bn.*": "running statistics of the loss, which takes those of the batch"},
    ),
]
