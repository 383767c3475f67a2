"""Colour spaces: from red, green and blue in [0, 1] (..., 3, H, W) to the channels of each, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

# From linear sRGB to CIE XYZ, and the white of D65 seen at 2 degrees, as scikit-image rounds them.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
# Y is luma (ITU-R 601); Db and Dr are blue and red less luma, scaled to ±1.333 (ITU-R 624, SECAM).
_YDBDR = ((0.299, 0.587, 0.114), (-0.45, -0.883, 1.333), (-1.333, 1.116, 0.217))

# The middle and half the width of what each channel can reach: a from −86.183 to 98.233, b from −107.857 to 94.478.
SCALE = {
    "lab": ((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
    "ydbdr": ((0.5, 0.0, 0.0), (0.5, 1.333, 1.333)),
}


def convert(rgb: Tensor, space: str) -> Tensor:
    """The channels of a colour space by its name, ``lab`` or ``ydbdr``."""
    return rgb_to_lab(rgb) if space == "lab" else _multiply(rgb, _YDBDR)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIE L*a*b* of sRGB: L in [0, 100], a and b about ±100."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    relative = _multiply(linear, _XYZ) / rgb.new_tensor(_WHITE).view(3, 1, 1)
    f = torch.where(relative > 0.008856, relative.clamp_min(0) ** (1 / 3), 7.787 * relative + 16 / 116)
    x, y, z = f.unbind(dim=-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def _multiply(channels: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("ij,...jhw->...ihw", channels.new_tensor(matrix), channels)
