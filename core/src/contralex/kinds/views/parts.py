"""Views of a sample, made of torchvision's v2 transforms.

A transform draws from torch's global generator; the data set seeds it before each view from (seed, epoch,
sample, view), so a view does not depend on the worker or process that makes it. Images stay PIL images until
the end, which for one image at a time is several times faster than tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from contralex.data.views import Views
from contralex.kinds.views.crops import HeightCrop
from contralex.kinds.views.rand_augment import TensorFlowRandAugment

if TYPE_CHECKING:
    from collections.abc import Callable

    from contralex.kinds.views import specs


_LONG = 16  # few photographs are longer than so many times their width


class CropViews(Views):
    def __init__(self, spec: specs.Crops) -> None:
        augment = spec.augments()
        self.count = len(augment)
        self._make = [_pipeline(one) for one in augment]
        self._plain = _evaluation(augment[0])

    def make(self, item: Any, view: int) -> Tensor:
        return self._make[view](item)

    def plain(self, item: Any) -> Tensor:
        return self._plain(item)


def _pipeline(spec: specs.Augment) -> Callable[[Any], Tensor]:
    makers: dict[str, Callable[[], nn.Module]] = {
        "crop": lambda: (v2.RandomResizedCrop if spec.crop.drawn == "area" else HeightCrop)(
            spec.crop.size, spec.crop.scale, spec.crop.ratio, InterpolationMode(spec.crop.interpolation)
        ),
        "jitter": lambda: _jitter(spec.jitter),
        "gray": lambda: v2.RandomGrayscale(spec.gray.p if spec.gray else 0.0),
        "flip": lambda: v2.RandomHorizontalFlip(spec.flip.p if spec.flip else 0.0),
        "blur": lambda: _blur(spec.blur),
        "rand_augment": lambda: _rand_augment(spec.rand_augment),
        # PIL inverts the values of 0..255 that reach the threshold: at 0.5 those from 128 on, as in BYOL's and DINO's
        # code
        "solarize": lambda: (
            v2.RandomSolarize(spec.solarize.threshold * 255 + 0.5, spec.solarize.p) if spec.solarize else v2.Identity()
        ),
    }
    names = [name for name in spec.order if getattr(spec, name) is not None]
    before = names[: names.index("jigsaw")] if spec.jigsaw else []
    after = [name for name in names if name not in (*before, "jigsaw")]
    pipeline: Callable[[Any], Tensor] = v2.Compose([*(makers[name]() for name in after), *to_numbers(spec)])
    if spec.jigsaw is None:
        return pipeline
    return Pieces(v2.Compose([makers[name]() for name in before]), spec.jigsaw, pipeline)


def _evaluation(spec: specs.Augment) -> Callable[[Any], Tensor]:
    """Resize and central crop of 7/8 where crops are smaller than a photograph; the whole image at 32 or 64 pixels."""
    size, how = spec.crop.size, InterpolationMode(spec.crop.interpolation)
    steps: list[Callable[[Any], Any]] = (
        [middle, v2.Resize(round(size * 8 / 7), how), v2.CenterCrop(size)]
        if size >= 96
        else [v2.Resize((size, size), how)]
    )
    pipeline: Callable[[Any], Tensor] = v2.Compose([*steps, *to_numbers(spec)])
    return pipeline


def middle(image: Image.Image) -> Image.Image:
    """The middle of an image that is longer than 16 times its width, or higher; any other as it is.

    For steps that bring the short side to a size and then take a square of the middle: a line of 1 x 10,000 pixels
    would first become 256 x 2,560,000. The square is the same to rounding, for it is far from what is cut off.
    """
    width, height = image.size
    left, top = (max(length - _LONG * min(image.size) + 1, 0) // 2 for length in image.size)  # the same at both ends
    return image.crop((left, top, width - left, height - top)) if left or top else image


def to_numbers(spec: specs.Augment) -> list[v2.Transform]:
    """The last steps of any view: PIL's image to numbers in [0, 1], normalised where the spec says so."""
    steps: list[v2.Transform] = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    if spec.normalize:
        steps.append(v2.Normalize(list(spec.normalize.mean), list(spec.normalize.std)))
    return steps


def _jitter(spec: specs.Jitter | None) -> v2.Transform:
    assert spec is not None
    jitter = v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    return jitter if spec.p == 1 else v2.RandomApply([jitter], spec.p)


def _blur(spec: specs.Blur | None) -> v2.Transform:
    assert spec is not None
    blur = PILBlur(spec.sigma) if spec.kernel is None else v2.GaussianBlur(spec.kernel, list(spec.sigma))
    return v2.RandomApply([blur], spec.p)


def _rand_augment(spec: specs.RandAugment | None) -> nn.Module:
    assert spec is not None
    if spec.law == "tensorflow":
        return TensorFlowRandAugment(spec)
    made: nn.Module = v2.RandAugment(spec.ops, spec.magnitude)
    if spec.p < 1:
        made = v2.Compose([v2.RandomApply([v2.RandAugment(1, spec.magnitude)], spec.p) for _ in range(spec.ops)])
    return made


class PILBlur(nn.Module):
    """PIL's Gaussian blur with a radius drawn from ``sigma``, as in the code of MoCo v2, SimSiam and SwAV."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(*self.sigma))))


class Pieces:
    """The pieces of an image, each through a pipeline of its own, in random order: (grid², C, cell, cell)."""

    def __init__(self, whole: Callable[[Any], Any], spec: specs.Jigsaw, each: Callable[[Any], Tensor]) -> None:
        self.whole, self.each = whole, each
        self.grid, self.cell = spec.grid, spec.cell

    def __call__(self, item: Any) -> Tensor:
        image = self.whole(item)
        width, height = image.size
        pieces = []
        for row in range(self.grid):
            for column in range(self.grid):
                left, top = column * width // self.grid, row * height // self.grid
                x = left + self._chance(width // self.grid)
                y = top + self._chance(height // self.grid)
                pieces.append(self.each(image.crop((x, y, x + self.cell, y + self.cell))))
        return torch.stack([pieces[place] for place in torch.randperm(len(pieces)).tolist()])

    def _chance(self, side: int) -> int:
        return int(torch.randint(side - self.cell + 1, ()))
