"""Whose names the published checkpoints of CLIP have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

_IMAGE, _TEXT = "encoder.towers.0", "encoder.towers.1"


def _blocks(theirs: str, ours: str, parts: dict[str, str]) -> list[Rename]:
    return [
        Rename(
            f"{theirs}.{{n}}.{name}{end}", f"{ours}.{{n}}.{new}.*" if end == ".*" else f"{ours}.{{n}}.{new}.{end[1:]}"
        )
        for name, new in parts.items()
        for end in ((".*",) if not name.endswith("in_proj") else ("_weight", "_bias"))
    ]


LAYOUTS = [
    Layout(
        name="clip",
        source="mlfoundations/open_clip, src/open_clip/model.py; openai/CLIP, clip/model.py",
        recipes=("clip",),
        renames=[
            Rename("visual.class_embedding", f"{_IMAGE}.backbone.cls_token", "reshaped"),
            Rename("visual.positional_embedding", f"{_IMAGE}.backbone.pos_embed", "reshaped"),
            Rename("visual.conv1.*", f"{_IMAGE}.backbone.patch_embed.proj.*"),
            Rename("visual.ln_pre.*", f"{_IMAGE}.backbone.norm_pre.*"),
            *_blocks(
                "visual.transformer.resblocks",
                f"{_IMAGE}.backbone.blocks",
                {
                    "ln_1": "norm1",
                    "attn.in_proj": "attn.qkv",
                    "attn.out_proj": "attn.proj",
                    "ln_2": "norm2",
                    "mlp.c_fc": "mlp.fc1",
                    "mlp.c_proj": "mlp.fc2",
                },
            ),
            Rename("visual.ln_post.*", f"{_IMAGE}.backbone.norm.*"),
            Rename("visual.proj", f"{_IMAGE}.projector.0.weight", "transposed"),
            Rename("token_embedding.weight", f"{_TEXT}.stem.tokens.weight"),
            Rename("positional_embedding", f"{_TEXT}.stem.positions"),
            *_blocks(
                "transformer.resblocks",
                f"{_TEXT}.transformer.blocks",
                {
                    "ln_1": "norm_1",
                    "attn.in_proj": "qkv",
                    "attn.out_proj": "out",
                    "ln_2": "norm_2",
                    "mlp.c_fc": "widen",
                    "mlp.c_proj": "narrow",
                },
            ),
            Rename("ln_final.*", f"{_TEXT}.norm.*"),
            Rename("text_projection", f"{_TEXT}.projection.weight", "transposed"),
            Rename("logit_scale", "loss.log_scale", "reshaped"),
        ],
        left_out=dict.fromkeys(
            ("input_resolution", "context_length", "vocab_size", "attn_mask"), "it is a size or a mask, and no weight"
        ),
    ),
]
