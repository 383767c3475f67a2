"""Whose names the published checkpoints of MoCo have."""

from __future__ import annotations

from contralex.plugin import Adaptation, Layout, PublishedEncoder, Rename


def _published(letter: str, heads: int, width: int) -> PublishedEncoder:
    """Of 300 epochs (moco-v3, README and CONFIG.md)."""
    file = f"vit-{letter}-300ep.pth.tar"
    return PublishedEncoder(
        name=f"moco-v3-vit{letter}16",
        file=file,
        url=f"https://dl.fbaipublicfiles.com/moco-v3/vit-{letter}-300ep/{file}",
        recipes=("moco-v3-vit",),
        backbone={"width": width, "heads": heads},
    )


# Its heads are published, too; the rate is a third of that of training.
_ADAPTATION = Adaptation(
    recipe="moco-v3-vit",
    settings={
        "train.optimizer.lr": {"kind": "cosine", "start": 5e-5, "end": 0.0, "warmup_epochs": 1},
        "train.optimizer.scaling": {"rule": "none"},
        "train.optimizer.layer_decay": 0.75,
        "train.batch_norm": "local",
    },
)
LAYOUTS = [
    Layout(
        name="moco",
        source="facebookresearch/moco, moco/builder.py",
        recipes=("moco-v1",),
        renames=[
            *(
                rename
                for theirs, ours in (("encoder_q", "encoder"), ("encoder_k", "key_encoder.encoder"))
                for rename in (
                    Rename(f"{theirs}.fc.{{n}}.*", f"{ours}.projector.{{n}}.*"),  # v2
                    Rename(f"{theirs}.fc.*", f"{ours}.projector.0.*"),  # v1
                    Rename(f"{theirs}.*", f"{ours}.backbone.*"),
                )
            ),
            Rename("queue", "negatives.vectors", "transposed"),
            Rename("queue_ptr", "negatives.pointer", "reshaped"),
        ],
        note="A queue of another size begins with random keys where it is not read: --skip 'queue*'.",
    ),
    Layout(
        name="moco-v3",
        source="facebookresearch/moco-v3, moco/builder.py",
        recipes=("moco-v3",),
        renames=[
            *(
                rename
                for theirs, ours in (("base_encoder", "encoder"), ("momentum_encoder", "key_encoder.encoder"))
                for rename in (
                    Rename(f"{theirs}.fc.{{n}}.*", f"{ours}.projector.{{n}}.*"),  # ResNets
                    Rename(f"{theirs}.head.{{n}}.*", f"{ours}.projector.{{n}}.*"),  # ViTs
                    Rename(f"{theirs}.*", f"{ours}.backbone.*"),
                )
            ),
            Rename("predictor.*", "encoder.predictor.*"),
        ],
        published=[_published("s", 12, 384), _published("b", 12, 768)],
        adaptations=[_ADAPTATION],
    ),
]
