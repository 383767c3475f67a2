"""Views as torchvision's v2 transforms make them: the engine ``torchvision``, and what evaluation sees.

A transform draws from torch's global generator. Images stay PIL images until the end, which for one image at a time is
several times faster than torchvision's transforms of tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from contralex.data.preprocessing import Preprocessing
from contralex.kinds.views.augment import (
    Augment,
    Blur,
    Crop,
    Flip,
    Gray,
    Jitter,
    Normalize,
    RandAugment,
    Solarize,
)
from contralex.kinds.views.crops import HeightCrop
from contralex.kinds.views.rand_augment import TensorFlowRandAugment
from contralex.plugins.spec import Spec

_LONG = 16  # few photographs are longer than so many times their width


def augmentation(augment: Augment) -> Callable[[Any], Tensor]:
    """An RGB image of PIL to a random view of it."""
    names = [name for name in augment.order if getattr(augment, name) is not None]
    before = names[: names.index("jigsaw")] if augment.jigsaw else []
    after = [name for name in names if name not in (*before, "jigsaw")]
    steps = to_tensor_steps(augment.normalize)
    pipeline: Callable[[Any], Tensor] = v2.Compose([*(_operation(getattr(augment, name)) for name in after), *steps])
    if augment.jigsaw is None:
        return pipeline
    whole = v2.Compose([_operation(getattr(augment, name)) for name in before])
    return Pieces(augment.jigsaw.grid, augment.jigsaw.cell, whole, pipeline)


def evaluation(augment: Augment) -> v2.Compose:
    """Resize and central crop of 7/8 where crops are smaller than a photograph; the whole image at 32 or 64 pixels."""
    size, how = augment.crop.size, InterpolationMode(augment.crop.interpolation)
    steps: list[Callable[[Any], Any]] = (
        [trim_long_image, v2.Resize(round(size * 8 / 7), how), v2.CenterCrop(size)]
        if size >= 96
        else [v2.Resize((size, size), how)]
    )
    return v2.Compose([*steps, *to_tensor_steps(augment.normalize)])


def evaluation_of_masks(seen: Preprocessing) -> v2.Compose:
    """What evaluation does to the positions of pixels, for an image whose values are classes."""
    how = InterpolationMode.NEAREST
    if seen.squash:
        return v2.Compose([v2.Resize((seen.resize, seen.resize), how), v2.CenterCrop(seen.crop)])
    return v2.Compose([trim_long_image, v2.Resize(seen.resize, how), v2.CenterCrop(seen.crop)])


def describe_steps(pipeline: v2.Compose) -> list[str]:
    """A line for each step of a pipeline: a transform as torchvision prints it, a function by its docstring."""
    return [repr(step) if isinstance(step, nn.Module) else _first_line(step) for step in pipeline.transforms]


def read_preprocessing(pipeline: v2.Compose) -> Preprocessing | None:
    """What a pipeline of :func:`evaluation` does, in numbers; None where it has steps that are not known here."""
    resize: v2.Resize | None = None
    crop: v2.CenterCrop | None = None
    scale: v2.Normalize | None = None
    for step in pipeline.transforms:
        match step:
            case v2.Resize():
                resize = step
            case v2.CenterCrop():
                crop = step
            case v2.Normalize():
                scale = step
            case v2.PILToTensor() | v2.ToDtype():
                pass
            case _ if step is not trim_long_image:
                return None
    if resize is None:
        return None
    sides = list(resize.size) if isinstance(resize.size, list | tuple) else [resize.size]
    if sides[0] != sides[-1]:
        return None
    how = resize.interpolation.value
    numbers = {} if scale is None else {"mean": tuple(scale.mean), "std": tuple(scale.std)}
    return Preprocessing(sides[0], len(sides) == 2, crop.size[0] if crop is not None else sides[0], how, **numbers)


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or function.__name__).splitlines()[0]


def trim_long_image(image: Image.Image) -> Image.Image:
    """The middle of an image that is longer than 16 times its width, or higher; any other as it is.

    For steps that bring the short side to a size and then take a square of the middle: a line of 1 x 10,000 pixels
    would first become 256 x 2,560,000. The square is the same to rounding, for it is far from what is cut off.
    """
    width, height = image.size
    left, top = (max(length - _LONG * min(image.size) + 1, 0) // 2 for length in image.size)  # the same at both ends
    return image.crop((left, top, width - left, height - top)) if left or top else image


def to_tensor_steps(normalize: Normalize | None = None) -> list[v2.Transform]:
    """The last steps of any view: PIL's image to (3, H, W) float32 in [0, 1], then normalised if asked."""
    steps: list[v2.Transform] = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    if normalize:
        steps.append(v2.Normalize(list(normalize.mean), list(normalize.std)))
    return steps


@singledispatch
def _operation(values: Spec) -> Any:
    """The transform of PIL's image that one operation of an augmentation is, by the class of its values."""
    raise TypeError(f"{type(values).__name__} is no operation of an augmentation")


@_operation.register
def _(crop: Crop) -> Any:
    made = v2.RandomResizedCrop if crop.drawn == "area" else HeightCrop
    return made(crop.size, crop.scale, crop.ratio, InterpolationMode(crop.interpolation))


@_operation.register
def _(jitter: Jitter) -> Any:
    made = v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    return made if jitter.p == 1 else v2.RandomApply([made], jitter.p)


@_operation.register
def _(gray: Gray) -> Any:
    return v2.RandomGrayscale(gray.p)


@_operation.register
def _(flip: Flip) -> Any:
    return v2.RandomHorizontalFlip(flip.p)


@_operation.register
def _(blur: Blur) -> Any:
    made = PILBlur(blur.sigma) if blur.kernel is None else v2.GaussianBlur(blur.kernel, list(blur.sigma))
    return v2.RandomApply([made], blur.p)


@_operation.register
def _(solarize: Solarize) -> Any:
    # PIL inverts the values of 0..255 that reach the threshold: at 0.5 those from 128 on, as in BYOL's and DINO's code
    return v2.RandomSolarize(solarize.threshold * 255 + 0.5, solarize.p)


@_operation.register
def _(values: RandAugment) -> Any:
    if values.law == "tensorflow":
        return TensorFlowRandAugment(
            values.ops, values.magnitude, values.p, values.translate, values.cutout, values.spread
        )
    if values.p < 1:
        return v2.Compose([v2.RandomApply([v2.RandAugment(1, values.magnitude)], values.p) for _ in range(values.ops)])
    return v2.RandAugment(values.ops, values.magnitude)


class PILBlur(nn.Module):
    """PIL's Gaussian blur with a radius drawn from ``sigma``, as in the code of MoCo v2, SimSiam and SwAV."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(*self.sigma))))


class Pieces:
    """The pieces of an image in random order, (grid², C, cell, cell): ``whole`` makes the image ready; each of grid x
    grid cells of it gives a random crop of ``cell`` pixels, which goes through the pipeline ``each`` by itself."""

    def __init__(self, grid: int, cell: int, whole: Callable[[Any], Any], each: Callable[[Any], Tensor]) -> None:
        self.grid, self.cell, self.whole, self.each = grid, cell, whole, each

    def __call__(self, item: Any) -> Tensor:
        image = self.whole(item)
        width, height = image.size
        pieces = []
        for row in range(self.grid):
            for column in range(self.grid):
                left, top = column * width // self.grid, row * height // self.grid
                x = left + self._offset(width // self.grid)
                y = top + self._offset(height // self.grid)
                pieces.append(self.each(image.crop((x, y, x + self.cell, y + self.cell))))
        return torch.stack([pieces[index] for index in torch.randperm(len(pieces)).tolist()])

    def _offset(self, side: int) -> int:
        """Where in a cell of ``side`` pixels the piece begins."""
        return int(torch.randint(side - self.cell + 1, ()))
