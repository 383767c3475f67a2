"""Which learning rate each layer of a backbone has, where earlier layers learn more slowly."""

from __future__ import annotations

import re

from torch import nn

from contralex.errors import ContralexError, remedy

_BACKBONE = "encoder.backbone."
# Of timm's Vision Transformers, and of torchvision's.
_BLOCK = re.compile(r"encoder\.backbone\.(?:blocks\.|encoder\.layers\.encoder_layer_)(\d+)\.")


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """By the name of each parameter of the backbone, what multiplies its rate: decay^(depth + 1 - layer). Block n, from
    1 to depth, is layer n; what comes before the blocks is layer 0, and what comes after them has the whole rate.

    Source: BEiT, arXiv:2106.08254 (code: optim_factory.py); DINOv2 (code: utils/param_groups.py).
    """
    if decay == 1:
        return {}
    names = [name for name, _ in model.named_parameters() if name.startswith(_BACKBONE)]
    blocks = {name: int(found[1]) + 1 for name in names if (found := _BLOCK.match(name)) is not None}
    if not blocks:
        raise ContralexError(
            "train.optimizer.layer_decay is for backbones of numbered blocks, such as Vision Transformers, and this "
            "one has none; let all layers have one rate:" + remedy("--set", "train.optimizer.layer_decay=1")
        )
    depth, first = max(blocks.values()), names.index(next(iter(blocks)))
    layers = {name: blocks.get(name, 0 if place < first else depth + 1) for place, name in enumerate(names)}
    return {name: decay ** (depth + 1 - layer) for name, layer in layers.items()}
