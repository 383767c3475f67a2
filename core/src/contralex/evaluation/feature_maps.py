"""The feature map of a backbone: one vector for each position of an image, before they are pooled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.evaluation.encoding import evaluating


def feature_map(backbone: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, C, h, w): the last map of more than one position that a layer gives, or the tokens of a ViT's
    patches behind its last layer, in their grid. The backbone is in eval mode."""
    with evaluating(backbone), _watch(backbone) as seen:
        backbone(images)
    map_, tokens = seen.get("map"), seen.get("tokens")
    if tokens is not None:
        grid = _grid(tokens, seen.get("patches"))
        if grid is not None:
            height, width = grid
            patches = tokens[:, -height * width :].transpose(1, 2)
            return patches.reshape(len(patches), -1, height, width)
    elif map_ is not None:
        return map_
    raise ContralexError(
        f"the backbone {type(backbone).__name__} gives no feature map of more than one position of images of "
        f"{images.shape[2]}×{images.shape[3]} pixels; a larger crop.size of the run's views would give one."
    )


@contextmanager
def _watch(backbone: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The last ``map`` (B, C, h, w) of several positions, the last ``tokens`` (B, T, C) since, and the last map that a
    convolution gave, which are the ``patches`` of a ViT."""
    seen: dict[str, Tensor] = {}

    def look(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
            seen.pop("tokens", None)
            seen["map"] = output
            if isinstance(module, nn.Conv2d):
                seen["patches"] = output
        elif isinstance(output, Tensor) and output.dim() == 3:
            seen["tokens"] = output

    hooks = [module.register_forward_hook(look) for module in backbone.modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _grid(tokens: Tensor, patches: Tensor | None) -> tuple[int, int] | None:
    """How many positions the tokens have along each side: as the map of patches that they were made of, or a square,
    after a class token or none."""
    count = tokens.shape[1]
    if patches is not None and patches.shape[2] * patches.shape[3] <= count:
        return patches.shape[2], patches.shape[3]
    side = next((math.isqrt(each) for each in (count, count - 1) if each > 1 and math.isqrt(each) ** 2 == each), None)
    return None if side is None else (side, side)
