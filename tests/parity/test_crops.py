"""SimCLR's crops are drawn as TensorFlow draws them: the height is uniform, and the ratio, and not the area."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from contralex.kinds.views.chance import Chance
from contralex.kinds.views.crops import HeightCrop, draw_height_crop
from contralex.recipes.layers import resolve

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def boxes(width: int, height: int, count: int = 6000) -> np.ndarray:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with Chance() as chance:
            return np.array([draw_height_crop(chance, SCALE, RATIO, width, height) for _ in range(count)])


def naive(width: int, height: int, count: int = 200_000) -> np.ndarray:
    """(height, width) of crops by the law in real numbers: no rounding, and so no second attempt."""
    chance = np.random.default_rng(1)
    ratio = chance.uniform(*RATIO, count)
    low, high = (np.sqrt(share * width * height / ratio) for share in SCALE)
    high = np.minimum(np.minimum(high, height), width / ratio)
    rows = low + chance.uniform(size=count) * (high - low)
    return np.stack([rows, rows * ratio], axis=1)


@pytest.mark.parametrize(("width", "height"), [(400, 400), (600, 300), (300, 500)])
def test_heights_widths_and_areas_have_tensorflows_law(width: int, height: int) -> None:
    found, expected = boxes(width, height), naive(width, height)
    parts = np.linspace(0.1, 0.9, 9)
    for ours, theirs in (
        (found[:, 2], expected[:, 0]),
        (found[:, 3], expected[:, 1]),
        (found[:, 2] * found[:, 3], expected.prod(axis=1)),
    ):
        span = theirs.max() - theirs.min()
        assert np.abs(np.quantile(ours, parts) - np.quantile(theirs, parts)).max() < 0.025 * span
    areas = found[:, 2] * found[:, 3] / (width * height)
    assert areas.min() >= 0.08 and areas.max() <= 1
    assert (found[:, 0] + found[:, 2] <= height).all() and (found[:, 1] + found[:, 3] <= width).all()


def test_torchvisions_crops_are_larger() -> None:
    """Which is what the law changes, for a square image: the mean share of its area."""
    image = torch.zeros(3, 400, 400)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(3000)]
    found = boxes(400, 400)
    ours = float((found[:, 2] * found[:, 3]).mean()) / 400**2
    assert ours < float(np.mean([height * width for _, _, height, width in drawn])) / 400**2 - 0.06


def test_what_cannot_fit_is_the_whole_image() -> None:
    crop = HeightCrop(8, (1.0, 1.0), (1.0, 1.0), InterpolationMode.BILINEAR)
    with Chance() as chance:
        assert draw_height_crop(chance, (1.0, 1.0), (1.0, 1.0), 100, 40) == (0, 0, 40, 100)
    assert crop(Image.new("RGB", (100, 40))).size == (8, 8)


def test_the_recipe_says_so_and_an_image_becomes_such_a_crop() -> None:
    """A picture whose brightness is its row: the crop's range of brightness is its height."""
    spec = resolve("simclr-v1").run.method.views
    assert spec.augments()[0].crop.drawn == "height"
    plain = {"order": ["crop"], "crop": {"size": 64, "scale": SCALE, "drawn": "height"}}
    views = type(spec).model_validate({"groups": {"one": {"augment": plain}}}).build()
    rows = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 256, axis=1)
    image = Image.fromarray(rows).convert("RGB")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heights = [float(np.ptp(views.make(image, 0).numpy())) for _ in range(400)]
    low, high = math.sqrt(0.08), 1.0
    assert min(heights) == pytest.approx(low, abs=0.07)
    assert float(np.median(heights)) == pytest.approx((low + high) / 2, abs=0.07)
