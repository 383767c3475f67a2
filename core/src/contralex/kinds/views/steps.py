"""Drawn parameters as tables of steps, which compiled code reads.

A row of a table is ``(code, a, b, c)``:

* ``BRIGHTNESS``, ``CONTRAST``, ``SATURATION``: ``a`` is the factor
* ``HUE``: ``a`` is how far it turns: in steps of a byte, or, for fused views, in turns
* ``SOLARIZE``: ``a`` is the threshold, of 255
* ``BOXES``: ``a``, ``b`` and ``c`` are the radius and the weights of Pillow's box, see :func:`blurs.box_weights`
* ``KERNEL``: ``a`` is the index of a half kernel, and ``b`` how many weights it has
* ``GRAY``, ``FLIP``, and ``NOTHING``
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contralex.kinds.views.augment import Augment
from contralex.kinds.views.blurs import box_weights, smooth_half_kernel, whole_half_kernel
from contralex.kinds.views.colours import hue_steps
from contralex.kinds.views.parameters import ColourFactors, ViewParameters

BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAY, FLIP, SOLARIZE, BOXES, KERNEL = range(9)  # the changes as the jitter's
NOTHING = -1

Step = tuple[float, float, float, float]
_NOTHING: Step = (NOTHING, 0.0, 0.0, 0.0)
_GRAY: Step = (GRAY, 0.0, 0.0, 0.0)
_FLIP: Step = (FLIP, 0.0, 0.0, 0.0)


def tabulate(
    augment: Augment, names: Sequence[str], parameters: Sequence[ViewParameters], fused: bool, side: int
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """(N, K, 4) the steps of each image, and (M, R) the halves of kernels that they name, from their middles on.

    ``side``: the shorter one of the images.
    """
    halves: list[NDArray[Any]] = []
    rows = [
        [step for name in names for step in _steps(augment, name, each, fused, side, halves)] for each in parameters
    ]
    longest = max((len(half) for half in halves), default=1)
    kernels = np.zeros((len(halves), longest), np.float32 if fused else np.int32)
    for kernel, half in zip(kernels, halves, strict=True):
        kernel[: len(half)] = half
    return np.array(rows, np.float64).reshape(len(rows), -1, 4), kernels


def _steps(
    augment: Augment, name: str, drawn: ViewParameters, fused: bool, side: int, halves: list[NDArray[Any]]
) -> Iterator[Step]:
    """As many for every image."""
    if name == "jitter":
        yield from _changes(drawn.jitter, fused) if drawn.jitter else (_NOTHING,) * 4
    elif name == "gray":
        yield _GRAY if drawn.gray else _NOTHING
    elif name == "flip":
        yield _FLIP if drawn.flip else _NOTHING
    elif name == "solarize" and augment.solarize is not None:
        yield (SOLARIZE, solarize_from(augment.solarize.threshold), 0.0, 0.0) if drawn.solarize else _NOTHING
    elif name == "blur" and augment.blur is not None:
        if drawn.blur is None:
            yield _NOTHING
        elif fused:
            halves.append(smooth_half_kernel(drawn.blur, augment.blur.kernel, side))
            yield KERNEL, len(halves) - 1, len(halves[-1]), 0.0
        elif augment.blur.kernel is None:
            yield BOXES, *box_weights(drawn.blur)
        else:
            halves.append(whole_half_kernel(drawn.blur, augment.blur.kernel))
            yield KERNEL, len(halves) - 1, len(halves[-1]), 0.0


def _changes(jitter: ColourFactors, fused: bool) -> Iterator[Step]:
    factors = jitter.factors
    for number in jitter.order:
        factor = factors[number]
        if factor is None:
            yield _NOTHING
        else:
            yield number, hue_steps(factor) if number == HUE and not fused else factor, 0.0, 0.0


def solarize_from(threshold: float) -> float:
    """The level from which pixels are inverted: as torchvision's, whose threshold stands between two bytes."""
    return threshold * 255 + 0.5
