"""CMC's own parts: colours, views of one crop, AlexNet; and that a view is looked up in the other's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from contralex.data.base import Split
from contralex.data.loading import ViewDataset
from contralex.lookup.clock import Clock
from contralex.plugin import ContralexError, Match, MemoryBankSource, Rows, Step
from contralex.recipes.layers import resolve
from contralex_cmc.alexnet import alexnet_bn
from contralex_cmc.colours import SCALE, convert, rgb_to_lab
from contralex_cmc.spec import LabSpec

AUGMENT: dict[str, Any] = {
    "order": ["crop", "jitter", "flip"],
    "crop": {"size": 16, "scale": [0.2, 1]},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "flip": {},
}


def lab(**fields: Any) -> Any:
    return LabSpec.model_validate({"augment": AUGMENT, **fields}).build()


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8))


# Colours


def lab_of_a_pixel(red: float, green: float, blue: float) -> list[float]:
    """CIE L*a*b* of one sRGB colour under D65, number by number (IEC 61966-2-1; CIE 15:2004)."""
    r, g, b = (((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in (red, green, blue))
    x = (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047
    y = 0.212671 * r + 0.715160 * g + 0.072169 * b
    z = (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)]


def test_lab_is_the_written_formula() -> None:
    pixels = np.random.default_rng(0).uniform(size=(40, 3)) ** 3  # many dark ones, where both formulas bend
    pixels[:4] = np.array([[0, 0, 0], [1, 1, 1], [0.04, 0.041, 0.03], [0.001, 0.5, 0]])
    expected = torch.tensor([lab_of_a_pixel(*pixel) for pixel in pixels.tolist()], dtype=torch.float32)
    found = rgb_to_lab(torch.from_numpy(pixels).float().T.reshape(3, 5, 8))
    assert_close(found.reshape(3, -1).T, expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize(
    ("rgb", "expected"),  # what colour tables list
    [
        ((1, 1, 1), (100, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.74, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.20, -107.86)),
    ],
)
def test_lab_of_colours_that_tables_list(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = rgb_to_lab(torch.tensor(rgb).float().view(3, 1, 1)).flatten()
    assert_close(found, torch.tensor(expected).float(), rtol=0, atol=0.02)


def test_ydbdr_is_the_written_formula() -> None:
    r, g, b = rgb = torch.rand(3, 4, 4)
    expected = [
        0.299 * r + 0.587 * g + 0.114 * b,
        -0.45 * r - 0.883 * g + 1.333 * b,
        -1.333 * r + 1.116 * g + 0.217 * b,
    ]
    assert_close(convert(rgb, "ydbdr"), torch.stack(expected))


@pytest.mark.parametrize("space", ["lab", "ydbdr"])
def test_scaled_channels_fill_one_to_one(space: str) -> None:
    """The middle and half the width of what the colours of the cube reach: every channel goes from −1 to 1."""
    edge = torch.linspace(0, 1, 18)
    cube = torch.stack(torch.meshgrid(edge, edge, edge, indexing="ij")).flatten(2)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in SCALE[space])
    scaled = (convert(cube, space) - mean) / std
    assert_close(scaled.amin(dim=(1, 2)), -torch.ones(3), rtol=0, atol=2e-3)
    assert_close(scaled.amax(dim=(1, 2)), torch.ones(3), rtol=0, atol=2e-3)


# Views


class Pictures(Split):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Image.Image:
        return picture(index)


@pytest.mark.parametrize("split", [[1, 2], [2, 1], [1, 1, 1]])
def test_views_are_the_channels_of_one_crop(split: list[int]) -> None:
    views = lab(split=split)
    made = ViewDataset(Pictures(), views, seed=1, batch=3)[2, 4]["views"]
    assert [view.shape for view in made.values()] == [(channels, 16, 16) for channels in split]
    rgb = views._rgb
    rgb.draw = lambda view: 0
    crop = ViewDataset(Pictures(), rgb, seed=1, batch=3)[2, 4]["views"][0]
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in SCALE["lab"])
    assert_close(torch.cat(list(made.values())), (rgb_to_lab(crop) - mean) / std)


def test_evaluation_sees_all_channels_in_their_order() -> None:
    views = lab(mean=(1, 2, 3), std=(4, 5, 6))
    rgb = views._rgb.plain(picture())
    expected = (rgb_to_lab(rgb) - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([4.0, 5, 6]).view(3, 1, 1)
    assert_close(views.plain(picture()), expected)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"split": [1, 1]}, "split shares out 3 channels"),
        ({"split": [3, 0]}, "split shares out 3 channels"),
        ({"std": [1, 0, 1]}, "std divides, so each is above 0"),
        ({"mean": [1e9, 0, 0]}, "mean is of channels, which stay within 1000"),
        ({"augment": AUGMENT | {"normalize": {}}}, r"augment\.normalize is of red, green and blue"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        lab(**fields)


def test_one_encoder_for_all_views_is_refused() -> None:
    encoder = "method.encoder={kind: image, backbone: {kind: conv}}"
    with pytest.raises(ContralexError, match=r"method\.views \(lab\) needs an encoder a view from method\.encoder"):
        resolve("cmc", preset="digits", sets=[encoder])


# Memory


def test_a_view_is_looked_up_in_the_other_views_memory() -> None:
    """The documented trap: a feature that is scored against its own view's bank. The banks say where they are from."""
    bank = MemoryBankSource(dataset_size=20, dim=4, draws=5, key_views=(1, 0))
    for view in (0, 1):
        bank.bank(view).copy_(torch.arange(20.0).unsqueeze(1) + 100 * (view + 1))
    moment = Step(Clock(3, 10, 5), seed=0, batch=3)
    sample = torch.tensor([7, 0, 19])
    keys = Rows.cat([Rows.from_view(torch.zeros(3, 4), sample, view) for view in (1, 0)])
    drawn = {}
    for query, key in ((0, 1), (1, 0)):
        found = bank(Rows.from_view(torch.zeros(3, 4), sample, query), keys, Match(query, key), moment).own
        assert_close(found[:, 0], (sample + 100.0 * (key + 1)).unsqueeze(1).expand(3, 4))  # the positive
        assert bool(((found >= 100 * (key + 1)) & (found < 100 * (key + 1) + 20)).all())
        drawn[key] = found - 100 * (key + 1)
    assert torch.equal(drawn[0], drawn[1])  # both sides see the same samples


# AlexNet


def test_half_an_alexnet_has_the_layers_of_the_paper() -> None:
    torch.manual_seed(0)
    model, width = alexnet_bn(channels=2)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions] == [
        (2, 48, 11, 4, 2),
        (48, 128, 5, 1, 2),
        (128, 192, 3, 1, 1),
        (192, 192, 3, 1, 1),
        (192, 128, 3, 1, 1),
    ]
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (128 * 36, 2048),
        (2048, 2048),
    ]
    found: Tensor = model.eval()(torch.rand(1, 2, 224, 224))
    assert found.shape == (1, width) and width == 2048
