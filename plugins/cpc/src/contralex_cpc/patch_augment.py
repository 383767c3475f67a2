"""Augmentation of each patch by itself: what its neighbours show must not tell what it shows (CPC v2, section 3).

All patches of an image go through an operation together, each with random numbers of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from contralex_cpc.spec import Affine, Colours, EachPatch

_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R 601)
_NOISE = 0.01  # of the kept channel's standard deviation (Doersch et al., 2015, section 3.1)


def augment_patches(patches: Tensor, each: EachPatch) -> Tensor:
    """(P, 3, size, size) in [0, 1] to the same shape. Draws from torch's global generator, as views do."""
    if each.affine:
        patches = _apply_to_some(patches, _move(patches, each.affine), each.affine.p)
    patches = _apply_to_some(patches, patches.flip(3), each.flip)
    if each.colours:
        patches = _apply_to_some(patches, _recolour(patches, each.colours), each.colours.p)
    patches = _apply_to_some(patches, _gray(patches).expand_as(patches), each.gray)
    return _apply_to_some(patches, _keep_one_channel(patches), each.drop_channels)


def _apply_to_some(before: Tensor, after: Tensor, p: float) -> Tensor:
    """Each patch as it is ``after``, with probability ``p``."""
    return torch.where(torch.rand(len(before), 1, 1, 1) < p, after, before)


def _move(patches: Tensor, affine: Affine) -> Tensor:
    count = len(patches)
    angle = _symmetric(count, math.radians(affine.degrees))
    shear = torch.tan(_symmetric(count, math.radians(affine.shear)))
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros(count)
    # Rotation after shear, as the map from a pixel's new position to its old one.
    rows = [torch.stack([cos, cos * shear - sin, none], 1), torch.stack([sin, sin * shear + cos, none], 1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(patches.shape), align_corners=False)
    return F.grid_sample(patches, grid, padding_mode="reflection", align_corners=False)


def _recolour(patches: Tensor, colours: Colours) -> Tensor:
    count = len(patches)
    brightness, contrast, saturation = (
        (1 + _symmetric(count, reach)).view(-1, 1, 1, 1)
        for reach in (colours.brightness, colours.contrast, colours.saturation)
    )
    patches = (patches * brightness).clamp(0, 1)
    mean = _gray(patches).mean(dim=(2, 3), keepdim=True)
    patches = (mean + contrast * (patches - mean)).clamp(0, 1)
    gray = _gray(patches)
    return (gray + saturation * (patches - gray)).clamp(0, 1)


def _keep_one_channel(patches: Tensor) -> Tensor:
    """Two of the three channels become noise about mid-grey, so faint that it says nothing."""
    kept = F.one_hot(torch.randint(3, (len(patches),)), 3).bool()[:, :, None, None]  # (P, 3, 1, 1)
    spread = (patches * kept).sum(dim=1).flatten(1).std(dim=1).view(-1, 1, 1, 1)  # of the kept channel
    return torch.where(kept, patches, 0.5 + _NOISE * spread * torch.randn_like(patches))


def _gray(patches: Tensor) -> Tensor:
    weight = torch.tensor(_LUMINANCE).view(1, 3, 1, 1)
    return (patches * weight).sum(dim=1, keepdim=True)


def _symmetric(count: int, reach: float) -> Tensor:
    return (torch.rand(count) * 2 - 1) * reach
