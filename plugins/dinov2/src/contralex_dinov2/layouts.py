"""Whose names the checkpoints of DINOv2's training have, and how DINOv2 goes on with published encoders."""

from __future__ import annotations

from contralex.plugin import Adaptation, Layout, Rename, rename_dinov2_backbone, rename_weight_norm


def _head(theirs: str, projector: str, prototypes: str) -> list[Rename]:
    return [
        Rename(f"teacher/{theirs}.mlp.{{n}}.*", f"{projector}.{{n}}.*"),
        *rename_weight_norm(f"teacher/{theirs}.last_layer", f"{prototypes}.layer"),
    ]


# The heads are new, and so is the mask token of all networks but the ViT-g, of which the others are distilled: theirs
# is zero in the published files (facebookresearch/dinov2#527). Some thousand images fill fewer prototypes, and some
# hundred steps need a teacher that moves.
_ADAPTATION = Adaptation(
    recipe="dinov2",
    settings={
        "method.encoder.backbone.drop_path": 0.1,
        "method.negatives.count": 1024,
        "method.look_ups.patches.negatives.count": 1024,
        "method.key_encoder.momentum": {"kind": "cosine", "start": 0.99, "end": 1.0},
        "method.targets.temperature": 0.06,
        "method.look_ups.patches.targets.temperature": 0.06,
        "train.optimizer.lr": {"kind": "cosine", "start": 1e-4, "end": 1e-6, "warmup_epochs": 1},
        "train.optimizer.scaling": {"rule": "none"},
        "train.optimizer.weight_decay": 0.04,
        "train.optimizer.layer_decay": 0.75,
        "train.optimizer.groups": [
            {"match": "*negatives.layer.*", "frozen_epochs": 1, "frozen_by": "rate"},
            {"match": "encoder.backbone.mask_token", "layer_decay": False},
            {"match": "norm_and_bias", "weight_decay": 0},
        ],
    },
    crops={
        "method.views.groups.globals.augment.crop.size": 1.0,
        "method.views.groups.second.augment.crop.size": 1.0,
        "method.views.groups.locals.augment.crop.size": 7 / 16,  # 98 of 224
    },
    patches=["method.views.masks.patch"],
)
LAYOUTS = [
    Layout(
        name="dinov2-teacher",
        source="facebookresearch/dinov2, dinov2/train/train.py, layers/dino_head.py: teacher_checkpoint.pth, with its "
        "heads",
        recipes=("dinov2",),
        renames=[
            *rename_dinov2_backbone("teacher/backbone."),
            *_head("dino_head", "encoder.projector", "negatives"),
            *_head("ibot_head", "encoder.heads.patches.projector", "look_ups.patches.negatives"),
        ],
        note="A file of a network or head of other sizes is read by settings; its backbone alone, by --layout dinov2.",
        adaptations=[_ADAPTATION],
    ),
]
