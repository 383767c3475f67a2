"""What the backbones of this folder say of their places."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from contralex.errors import ContralexError


def give_places(model: nn.Module, families: Mapping[type[nn.Module], type[nn.Module]]) -> nn.Module:
    """The same ``model``, which gives its places, too, where its class is one of those that ``families`` extends.

    It keeps its tensors, their names and its hooks.
    """
    extended = families.get(type(model))
    if extended is not None:
        model.__class__ = extended
    return model


def list_places(map_: Tensor) -> Tensor:
    """(B, F, rows, columns) to (B, P, F)."""
    return map_.flatten(2).transpose(1, 2)


def count_places(images: Tensor, stride: int) -> tuple[int, int]:
    """The rows and columns of a map that a network pads to, one for each ``stride`` pixels that have begun."""
    return -(-images.shape[-2] // stride), -(-images.shape[-1] // stride)


def refuse_mask(model: object, mask: Tensor | None) -> None:
    if mask is not None:
        raise ContralexError(
            f"A view hides places, and the backbone {type(model).__name__} has nothing to put there; use "
            "method.encoder.backbone of kind vit with mask_token: true, or views that hide nothing."
        )
