"""Whose names the published checkpoints of SimSiam have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

LAYOUTS = [
    Layout(
        name="simsiam",
        source="facebookresearch/simsiam, simsiam/builder.py",
        recipes=("simsiam",),
        renames=[
            Rename("encoder.fc.{n}.*", "encoder.projector.{n}.*"),
            Rename("encoder.*", "encoder.backbone.*"),
            Rename("predictor.*", "encoder.predictor.*"),
        ],
        left_out={"encoder.fc.6.bias": "BatchNorm follows, which takes a bias away again"},
    ),
]
