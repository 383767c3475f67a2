"""Whose names the published checkpoints of MAE have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

LAYOUTS = [
    Layout(
        name="mae",
        source="facebookresearch/mae, models_mae.py",
        recipes=("mae",),
        renames=[
            Rename("decoder_embed.*", "encoder.decoder.embed.*"),
            Rename("mask_token", "encoder.decoder.mask_token"),
            Rename("decoder_blocks.*", "encoder.decoder.blocks.*"),
            Rename("decoder_norm.*", "encoder.decoder.norm.*"),
            Rename("decoder_pred.*", "encoder.decoder.predict.*"),
            Rename("*", "encoder.backbone.*"),
        ],
        left_out={"decoder_pos_embed": "fixed sines and cosines, which are made and not stored"},
    ),
]
