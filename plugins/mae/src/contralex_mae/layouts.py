"""Whose names the published checkpoints of MAE have."""

from __future__ import annotations

from contralex.plugin import Adaptation, Layout, PublishedEncoder, Rename


def _published(letter: str, size: str, patch: int, width: int, depth: int, heads: int) -> PublishedEncoder:
    """The encoder alone (FINETUNE.md)."""
    file = f"mae_pretrain_vit_{size}.pth"
    return PublishedEncoder(
        name=f"mae-vit{letter}{patch}",
        file=file,
        url=f"https://dl.fbaipublicfiles.com/mae/pretrain/{file}",
        recipes=("mae",),
        backbone={"patch": patch, "width": width, "depth": depth, "heads": heads, "frozen_patches": True},
        settings={"method.views.patch": patch},
    )


# The decoder is new.
_ADAPTATION = Adaptation(
    recipe="mae",
    settings={
        "train.optimizer.lr": {"kind": "cosine", "start": 1e-4, "end": 0.0, "warmup_epochs": 1},
        "train.optimizer.scaling": {"rule": "none"},
        "train.optimizer.layer_decay": 0.75,
    },
)
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
        published=[
            _published("b", "base", 16, 768, 12, 12),
            _published("l", "large", 16, 1024, 24, 16),
            _published("h", "huge", 14, 1280, 32, 16),
        ],
        adaptations=[_ADAPTATION],
    ),
]
