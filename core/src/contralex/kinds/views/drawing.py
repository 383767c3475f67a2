"""Parameters of many views at once, each from a seed of its own: the numbers of :mod:`parameters`, compiled.

What torch's generator would give after a seed is computed here, without asking it; for operations that ask for more
than a few numbers, and where kernels are absent, it is seeded and asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from contralex.kinds.views import steps
from contralex.kinds.views.augment import Augment
from contralex.kinds.views.chance import interval
from contralex.kinds.views.parameters import (
    ATTEMPTS,
    Box,
    ColourFactors,
    ViewParameters,
    draw_parameters,
    factor_range,
    log_ratio,
)

_WORDS = 2 * ATTEMPTS + 20  # more than any view takes
_CODES = {"jitter": steps.HUE, "gray": steps.GRAY, "flip": steps.FLIP, "solarize": steps.SOLARIZE, "blur": steps.KERNEL}


class SeededDraws:
    """Draws parameters of the operations ``names``. ``is_compiled``: whether all of them can be drawn by a kernel."""

    def __init__(self, augment: Augment, names: Sequence[str]) -> None:
        self._augment, self._names = augment, names
        self.is_compiled = (
            names[0] == "crop" and augment.crop.drawn == "area" and all(name in _CODES for name in names[1:])
        )
        if self.is_compiled:
            self._codes, self._numbers = _operations(augment, names)

    def draw(
        self, kernels: ModuleType | None, images: Sequence[Image.Image], seeds: Sequence[int]
    ) -> list[ViewParameters]:
        """What :func:`draw_parameters` gives for each image after torch's global generator was seeded with its number.
        In what state that is left is not said."""
        drawn: Sequence[ViewParameters | None] = [None] * len(images)
        if kernels is not None and self.is_compiled and makes_torchs_words(kernels):
            drawn = self._draw_compiled(kernels, images, seeds)
        each = zip(drawn, images, seeds, strict=True)
        return [parameters or self._draw_alone(image, seed) for parameters, image, seed in each]

    def _draw_alone(self, image: Image.Image, seed: int) -> ViewParameters:
        torch.default_generator.manual_seed(seed)
        return draw_parameters(self._augment, self._names, *image.size)

    def _draw_compiled(
        self, kernels: ModuleType, images: Sequence[Image.Image], seeds: Sequence[int]
    ) -> list[ViewParameters | None]:
        """None where no crop fitted."""
        words = kernels.read_words(np.array(seeds, np.uint64), _WORDS)
        low, width = interval(*log_ratio(self._augment.crop.ratio))
        fractions = (words[:, 1 : 2 * ATTEMPTS : 2] & 0xFFFFFF) / (1 << 24)
        ratios = torch.from_numpy((fractions * width + low).astype(np.float32)).exp_().numpy()
        sizes = np.array([image.size for image in images])
        rows: list[list[float]] = kernels.draw(words, ratios, sizes, self._codes, self._numbers).tolist()
        return [_read(row) if row[0] else None for row in rows]


@cache
def makes_torchs_words(kernels: ModuleType) -> bool:
    """Whether the installed torch draws and computes as is assumed here: what is installed may not change a view."""
    seed = 0x9E3779B97F4A7C15
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.empty(_WORDS // 2, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    halves = torch.stack([wanted >> 32, wanted], 1).flatten() & 0xFFFFFFFF
    many = torch.linspace(-2, 2, 320)
    alone = torch.cat([number.exp() for number in many.split(1)])
    words = kernels.read_words(np.array([seed], np.uint64), _WORDS)[0]
    return words.tolist() == halves.tolist() and torch.equal(many.exp(), alone)


def _read(row: list[float]) -> ViewParameters:
    """Of what :func:`kernels.draw` gives."""
    _, top, left, height, width, jittered, *rest = row
    jitter = None
    if jittered:
        order, factors = rest[:4], [None if factor != factor else factor for factor in rest[4:8]]  # NaN: none
        jitter = ColourFactors(tuple(map(int, order)), *factors)
    gray, flip, blur, solarize = rest[8:]
    box = Box(int(top), int(left), int(height), int(width))
    return ViewParameters(box, jitter, bool(gray), bool(flip), None if blur != blur else blur, bool(solarize))


def _operations(augment: Augment, names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(K,) the codes of the crop and what follows, and (K, 9) for each its probability and the intervals of its
    numbers, as pairs of start and width: NaN where none is drawn."""
    codes = [steps.NOTHING] + [_CODES[name] for name in names[1:]]
    numbers = np.full((len(names), 9), np.nan)
    numbers[0, 1:3] = interval(*augment.crop.scale)
    for row, name in zip(numbers[1:], names[1:], strict=True):
        row[0] = getattr(augment, name).p
        if name == "jitter" and augment.jitter is not None:
            jitter = augment.jitter
            ranges = [factor_range(strength) for strength in (jitter.brightness, jitter.contrast, jitter.saturation)]
            ranges.append((-jitter.hue, jitter.hue) if jitter.hue else None)
            for at, between in enumerate(ranges):
                if between is not None:
                    row[1 + 2 * at : 3 + 2 * at] = interval(*between)
        elif name == "blur" and augment.blur is not None:
            row[1:3] = interval(*augment.blur.sigma)
    return np.array(codes), numbers
