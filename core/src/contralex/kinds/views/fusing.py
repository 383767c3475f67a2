"""All changes of colour of a view as one affine map of its pixels, without rounding or clamping between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contralex.kinds.views.colours import LUMA
from contralex.kinds.views.parameters import ColourFactors, ViewParameters

Matrix = NDArray[np.float64]

_SAME = np.eye(4)
_GREY = np.eye(4)
_GREY[:3, :3] = LUMA  # the grey level in each channel
TO_YIQ = np.eye(4)
TO_YIQ[:3, :3] = [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
FROM_YIQ = np.linalg.inv(TO_YIQ)


def change_colours(pixels: Tensor, names: Sequence[str], parameters: Sequence[ViewParameters]) -> Tensor:
    """The operations ``jitter`` and ``gray`` among ``names``, in their order, of images (N, 3, H, W)."""
    if not any(values.jitter or values.gray for values in parameters):
        return pixels
    flat = pixels.flatten(2)
    means = flat.mean(2).double().cpu().numpy()
    maps = [colour_map(names, values, mean) for values, mean in zip(parameters, means, strict=True)]
    together = torch.from_numpy(np.stack(maps)).to(pixels)
    return torch.baddbmm(together[:, :3, 3:], together[:, :3, :3], flat).view_as(pixels)


def colour_map(names: Sequence[str], parameters: ViewParameters, mean: NDArray[np.float64]) -> Matrix:
    """(4, 4), for (red, green, blue, 1). ``mean``: (3,) of the image's channels, about which contrast changes."""
    made = _SAME
    for name in names:
        if name == "jitter" and parameters.jitter:
            for number in parameters.jitter.order:
                made = _change(parameters.jitter, number, made, mean) @ made
        elif name == "gray" and parameters.gray:
            made = _GREY @ made
    return made


def _change(factors: ColourFactors, number: int, before: Matrix, mean: NDArray[np.float64]) -> Matrix:
    """One of the four changes, after the map ``before``."""
    factor = factors.factors[number]
    if factor is None:
        return _SAME
    if number == 3:
        return _turn(factor)
    if number == 2:
        return factor * _SAME + (1 - factor) * _GREY
    made = np.diag([factor, factor, factor, 1.0])
    if number == 1:
        made[:3, 3] = (1 - factor) * (_GREY @ before @ [*mean, 1.0])[:3]
    return made


def _turn(turns: float) -> Matrix:
    """A rotation of the two colour axes of YIQ, which keeps the luma."""
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[cosine, sine], [-sine, cosine]]
    made: Matrix = FROM_YIQ @ rotation @ TO_YIQ
    return made
