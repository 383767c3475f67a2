"""RandAugment of law tensorflow against formulas in float64: the operations and the scale of Noisy Student's code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from contralex.kinds.views.augment import RandAugment
from contralex.kinds.views.rand_augment import TensorFlowRandAugment, draw_operation, operations

SIDE, TRANSLATE, CUTOUT = 20, 10, 4
Pixels = np.ndarray


def pixels(low: int = 30, high: int = 220) -> Pixels:
    return np.random.default_rng(3).integers(low, high, (SIDE, SIDE, 3)).astype(np.uint8)


def apply(name: str, level: float, image: Pixels, seed: int = 0) -> Pixels:
    torch.manual_seed(seed)
    chosen = draw_operation(name, level, SIDE, SIDE)
    return np.asarray(operations(TRANSLATE, CUTOUT)[name](Image.fromarray(image), chosen))


def blend(grey: Pixels | float, image: Pixels, factor: float) -> Pixels:
    return np.clip(grey + factor * (image.astype(np.float64) - grey), 0, 255)


def luma(image: Pixels) -> Pixels:
    return (image @ np.array([0.299, 0.587, 0.114]))[:, :, None]


@pytest.mark.parametrize("level", [0.3, 1.0, 2.7])
def test_colours(level: float) -> None:
    image, factor = pixels(), 1.8 * level + 0.1
    black = np.zeros_like(image, dtype=np.float64)
    grey = min(SIDE * SIDE // 256, 255)
    wanted: dict[str, Pixels] = {
        "brightness": blend(black, image, factor),
        "contrast": blend(black + grey, image, factor),
        "color": blend(np.round(luma(image)), image, factor),
        "invert": 255.0 - image,
        "solarize": np.where(image < int(256 * level), image, 255.0 - image),
        "solarize_add": np.where(image < 128, np.minimum(image + float(int(110 * level)), 255), image),
        "posterize": image if int(4 * level) >= 8 else image // 2 ** (8 - int(4 * level)) * 2 ** (8 - int(4 * level)),
        "autocontrast": (image - image.min((0, 1)).astype(float)) * 255 / np.ptp(image, axis=(0, 1)),
    }
    for name, expected in wanted.items():
        apart = np.abs(apply(name, level, image) - expected)
        assert apart.max() <= math.ceil(max(factor, 1)), name  # rounding, and what it grows to
        assert np.abs(expected - image).max() > 20 or (name, level) in {
            ("solarize", 1.0),
            ("solarize", 2.7),
            ("posterize", 2.7),
        }


def sampled(image: Pixels, source: Callable[[float, float], tuple[float, float]]) -> Pixels:
    """Each pixel from the place where it comes from, by pixels' middles; grey from outside."""
    found = np.full_like(image, 128)
    for row in range(SIDE):
        for column in range(SIDE):
            x, y = source(column + 0.5, row + 0.5)
            if 0 <= x < SIDE and 0 <= y < SIDE:
                found[row, column] = image[int(y), int(x)]
    return found


@pytest.mark.parametrize("level", [0.5, 2.7])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_what_moves(level: float, seed: int) -> None:
    image, middle = pixels(), SIDE / 2
    for name, size in (("rotate", 30.0), ("shear_x", 0.3), ("shear_y", 0.3), ("translate_x", 10), ("translate_y", 10)):

        def source(x: float, y: float, by: float, name: str = name) -> tuple[float, float]:
            if name == "rotate":
                turn, dx, dy = math.radians(by), x - middle, y - middle
                return (
                    middle + dx * math.cos(turn) - dy * math.sin(turn),
                    middle + dx * math.sin(turn) + dy * math.cos(turn),
                )
            along = name.endswith("x")
            amount = by if name.startswith("translate") else by * (y if along else x)
            return (x + amount, y) if along else (x, y + amount)

        found = apply(name, level, image, seed)
        alike = [
            np.mean(found == sampled(image, lambda x, y, by=sign * size * level: source(x, y, by))) for sign in (1, -1)
        ]
        assert max(alike) > 0.97, name  # the nearest of two equally near ones may be either
        assert min(alike) < 0.9 or np.all(found == 128), name  # moved by more than its side


def test_cutout_reaches_as_far_as_its_level() -> None:
    found = apply("cutout", 1.0, np.zeros((SIDE, SIDE, 3), np.uint8))
    rows, columns = np.nonzero(found[:, :, 0])
    assert set(found[rows, columns].flatten().tolist()) == {128}
    assert np.ptp(rows) + 1 <= 2 * CUTOUT and np.ptp(columns) + 1 <= 2 * CUTOUT
    assert max(np.ptp(rows), np.ptp(columns)) + 1 >= CUTOUT
    assert np.all(apply("cutout", 5.0, found) == 128)  # 20 pixels to each side


def test_operations_are_equally_likely_and_magnitudes_are_as_said() -> None:
    part = TensorFlowRandAugment(ops=1, magnitude=27, cutout=CUTOUT)
    assert len(part.operations) == 16 and part._level() == 2.7
    torch.manual_seed(0)
    seen = Counter(chosen.name for _ in range(3200) for chosen in part.draw(4, 4))
    assert len(seen) == 16 and all(count == pytest.approx(200, rel=0.3) for count in seen.values())
    timm = TensorFlowRandAugment(ops=2, magnitude=10, p=0.5, spread=0.5)
    levels = torch.tensor([timm._level() for _ in range(2000)])
    assert len(timm.operations) == 15
    assert (levels == 1).float().mean() == pytest.approx(0.5, abs=0.04)  # what is above 10 is 10
    below = levels[levels < 1]
    assert below.sub(1).pow(2).mean().sqrt() == pytest.approx(0.05, rel=0.1)


def test_fields_of_one_law_are_refused_in_the_other() -> None:
    with pytest.raises(ValidationError, match="cutout and spread are for law: tensorflow"):
        RandAugment(spread=0.5)
