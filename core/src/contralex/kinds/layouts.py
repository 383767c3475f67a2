"""Whose names the published weights of backbones have: those of torchvision and timm, which are our backbones' own, and
those of DINOv2."""

from __future__ import annotations

from contralex.plugins.layouts import Layout, PublishedEncoder, Rename

_CLASSIFIERS = ("fc.*", "classifier.*", "head.*", "heads.*", "head_drop.*")
# Of its blocks' layers, ours have timm's names.
_BLOCK = {"mlp.w12.*": "mlp.fc1.*", "mlp.w3.*": "mlp.fc2.*", "*": "*"}
_DINOV2 = {
    **{f"blocks.{{_}}.{{n}}.{theirs}": f"blocks.{{n}}.{ours}" for theirs, ours in _BLOCK.items()},
    **{f"blocks.{{n}}.{theirs}": f"blocks.{{n}}.{ours}" for theirs, ours in _BLOCK.items()},
    "register_tokens": "reg_token",
    **{name: name for name in ("cls_token", "pos_embed", "mask_token", "patch_embed.*", "norm.*")},
}
# Widths, depths and heads of DINOv2's networks (dinov2/models/vision_transformer.py), by the letters of their files.
_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "g": (1536, 40, 24)}


def rename_dinov2_backbone(theirs: str) -> list[Rename]:
    """For a file that has the names of DINOv2's backbones after ``theirs``, such as ``teacher/backbone.``: to those of
    our ``vit``. Blocks may lie in chunks, as its training writes them."""
    return [Rename(f"{theirs}{name}", f"encoder.backbone.{ours}") for name, ours in _DINOV2.items()]


def _published_dinov2(letter: str, registers: int) -> PublishedEncoder:
    """Of patches of 14 pixels, for images of 518 (dinov2/hub/backbones.py)."""
    width, depth, heads = _SIZES[letter]
    file = f"dinov2_vit{letter}14{f'_reg{registers}' if registers else ''}_pretrain.pth"
    backbone = {
        "kind": "vit",
        **{"image_size": 518, "patch": 14, "width": width, "depth": depth, "heads": heads, "any_size": True},
        **{"layer_scale": 1.0, "feed_forward": "swiglu" if letter == "g" else "mlp"},
        **({"registers": registers, "resampling": "antialias"} if registers else {}),
        "frozen_patches": True,
    }
    return PublishedEncoder(
        name=f"dinov2-vit{letter}14{'-reg' if registers else ''}",
        file=file,
        url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{letter}14/{file}",
        recipes=("dinov2", "dino"),
        backbone=backbone,
    )


LAYOUTS = [
    Layout(
        name="backbone",
        source="torchvision.models and timm, and whoever saves a model of theirs",
        renames=[Rename("*", "encoder.backbone.*")],
        left_out=dict.fromkeys(_CLASSIFIERS, "a classifier or head, of which the recipe has its own"),
    ),
    Layout(
        name="dinov2",
        source="facebookresearch/dinov2, dinov2/models/vision_transformer.py: published backbones, and those of its "
        "training, whose blocks lie in chunks",
        renames=[*rename_dinov2_backbone(""), *rename_dinov2_backbone("teacher/backbone.")],
        left_out={
            "mask_token": "the recipe hides no patches",
            "teacher/dino_head.*": "a head, of which the recipe has its own",
            "teacher/ibot_head.*": "a head, of which the recipe has its own",
        },
        inside=("model", "state_dict"),
        note="A backbone of DINOv2 is of kind vit with a layer_scale, and perhaps registers and feed_forward: swiglu.",
        published=[_published_dinov2(letter, registers) for registers in (0, 4) for letter in _SIZES],
    ),
]
