"""Photographs to make views of: pieces of scikit-learn's two sample photographs, in memory or as JPEG files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

WIDE = (500, 375)
"""Width and height of a photograph of ImageNet's usual size."""
SMALL = (32, 32)


@lru_cache(maxsize=4)
def pictures(count: int, size: tuple[int, int]) -> list[Image.Image]:
    """``count`` photographs of ``size``, the same at every call."""
    from sklearn.datasets import load_sample_images

    whole = [Image.fromarray(image) for image in load_sample_images().images]
    chance = np.random.default_rng(0)
    found = []
    for number in range(count):
        image = whole[number % len(whole)]
        width = int(chance.integers(image.width // 2, image.width))
        height = min(width * size[1] // size[0], image.height)
        left, top = int(chance.integers(image.width - width + 1)), int(chance.integers(image.height - height + 1))
        found.append(image.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC))
    return found


def write_folder(root: Path, count: int, size: tuple[int, int], classes: int = 2) -> Path:
    """``count`` JPEG files in class folders below ``root``."""
    for number, image in enumerate(pictures(count, size)):
        folder = root / f"class{number % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:06}.jpg", quality=90)
    return root
