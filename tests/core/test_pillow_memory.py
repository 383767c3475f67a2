"""Pixels read from Pillow's memory are those that its ``tobytes`` gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from contralex.kinds.views import pillow_memory
from contralex.kinds.views.parameters import Box

BOXES = [Box(0, 0, 9, 12), Box(2, 3, 5, 7), Box(0, 3, 9, 1), Box(8, 0, 1, 12)]


def draw_image(height: int = 9, width: int = 12) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def by_pillow(image: Image.Image, box: Box) -> Tensor:
    cut = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1)


@pytest.mark.parametrize("box", BOXES)
def test_a_part_is_pillows(box: Box) -> None:
    image = draw_image()
    pixels = pillow_memory.copy_pixels(image, box)
    assert pixels.shape == (1, 4, box.height, box.width)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels[0, :3], by_pillow(image, box))


def test_it_is_a_copy() -> None:
    image = draw_image()
    before = by_pillow(image, BOXES[0])
    pixels = pillow_memory.copy_pixels(image, BOXES[0])
    pixels.zero_()
    assert torch.equal(by_pillow(image, BOXES[0]), before)
    image.putpixel((0, 0), (1, 2, 3))  # as before, it may be written
    assert image.getpixel((0, 0)) == (1, 2, 3)
    assert not pixels.any()


def test_the_pixels_of_a_crop_are_not_its_images() -> None:
    image = draw_image().crop((1, 1, 8, 6))
    box = Box(1, 2, 3, 4)
    assert torch.equal(pillow_memory.copy_pixels(image, box)[0, :3], by_pillow(image, box))


def test_an_image_in_several_blocks() -> None:
    large = draw_image(2100, 2100)  # 17 MB
    assert pillow_memory._copy_lent(large, BOXES[1]) is None
    pixels = pillow_memory.copy_pixels(large, BOXES[1])
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels[0, :3], by_pillow(large, BOXES[1]))


def test_a_file_that_is_not_read_yet(tmp_path: Path) -> None:
    draw_image(40, 60).save(tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert torch.equal(pillow_memory.copy_pixels(image, BOXES[1])[0, :3], by_pillow(image, BOXES[1]))
