"""Images of noise that are the same in every run of the tests."""

from __future__ import annotations

import numpy as np
from PIL import Image


def noise(size: tuple[int, int], deviation: float, number: int = 0) -> Image.Image:
    """Grey noise around 128, as ``PIL.Image.effect_noise`` makes it, from a seed: another image for each ``number``."""
    values = np.random.default_rng(number).normal(128, deviation, (size[1], size[0]))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
