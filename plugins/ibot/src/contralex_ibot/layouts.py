"""Encoders that iBOT has published, and how iBOT goes on with published encoders."""

from __future__ import annotations

from contralex.plugin import Adaptation, Layout, PublishedEncoder, Rename

_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}  # models/vision_transformer.py


def _published(letter: str) -> PublishedEncoder:
    """The teacher's backbone alone (README.md), in a file that has one name for all."""
    width, depth, heads = _SIZES[letter]
    backbone = {
        "kind": "vit",
        "patch": 16,
        "width": width,
        "depth": depth,
        "heads": heads,
        "any_size": True,
        "layer_scale": None,
        "feed_forward": "mlp",
        "frozen_patches": True,
    }
    return PublishedEncoder(
        name=f"ibot-vit{letter}16",
        file="checkpoint_teacher.pth",
        url="https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/"
        f"vit{letter}_16/checkpoint_teacher.pth",
        recipes=("ibot", "dino"),
        backbone=backbone,
    )


# As DINO goes on; the mask token is new, too, for the teacher has none.
_ADAPTATION = Adaptation(
    recipe="ibot",
    settings={
        "method.negatives.count": 4096,
        "method.key_encoder.momentum": {"kind": "cosine", "start": 0.99, "end": 1.0},
        "method.targets.temperature": 0.04,
        "method.look_ups.patches.targets.temperature": 0.04,
        "train.optimizer.lr": {"kind": "cosine", "start": 1e-4, "end": 1e-6, "warmup_epochs": 1},
        "train.optimizer.scaling": {"rule": "none"},
        "train.optimizer.weight_decay": 0.04,
        "train.optimizer.layer_decay": 0.75,
        "train.optimizer.groups": [
            {"match": "negatives.layer.*", "frozen_epochs": 1},
            {"match": "encoder.backbone.mask_token", "layer_decay": False},
            {"match": "norm_and_bias", "weight_decay": 0},
        ],
        "train.batch_norm": "local",
    },
    crops={
        "method.views.groups.globals.augment.crop.size": 1.0,
        "method.views.groups.second.augment.crop.size": 1.0,
        "method.views.groups.locals.augment.crop.size": 3 / 7,  # 96 of 224
    },
    patches=["method.views.masks.patch"],
)
LAYOUTS = [
    Layout(
        name="ibot",
        source="bytedance/ibot, extract_backbone_weights.py, models/vision_transformer.py",
        recipes=("ibot",),
        renames=[
            Rename("masked_embed", "encoder.backbone.mask_token"),  # of a student
            Rename("*", "encoder.backbone.*"),
        ],
        published=[_published(letter) for letter in _SIZES],
        adaptations=[_ADAPTATION],
    ),
]
