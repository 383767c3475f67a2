"""The view engine: draws a view's parameters, and makes views of them.

Three engines make views of the same parameters:

* ``exact``: Pillow's results, which are torchvision's for images of Pillow, by float32 tensor operations on whole
  numbers. All is equal bit by bit but for two operations, whose pixels may differ by 1 of 255: resizing by torch
  (:func:`may_resize_by_torch`; its interpolation of bytes has weights of 16 bits; about one pixel in 300), and blurs
  with an explicit kernel (one in 10,000).
* ``fused``: one matrix for all changes of colour, and with a blur one rounding in the end; the hue turns in YIQ.
* ``torchvision``: torchvision's own transforms.
"""

from __future__ import annotations

import itertools
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import groupby
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from contralex.data.packed import PackedViews
from contralex.kinds.views import colours
from contralex.kinds.views.augment import Augment, Crop, EngineName, Normalize
from contralex.kinds.views.blurs import (
    blur_as_pillow,
    blur_as_torchvision,
    blur_smoothly,
    from_pillow,
    to_bytes,
    to_pillow,
)
from contralex.kinds.views.drawing import SeededDraws
from contralex.kinds.views.fusing import change_colours
from contralex.kinds.views.parameters import Box, ViewParameters, draw_parameters, rand_augment
from contralex.kinds.views.pillow_memory import copy_pixels, cut_out
from contralex.kinds.views.steps import solarize_from, tabulate
from contralex.kinds.views.transforms import augmentation
from contralex.lookup.host_copies import to_device

Interpolation = Literal["bilinear", "bicubic"]

_BY_PILLOW = 64  # up to so many pixels of a side, Pillow resizes as fast as torch
_SMALL = 1 << 14  # up to so many pixels of an image, a kernel resizes faster than Pillow
# Numbers of the images that are worked on together: large ones stay in the cache, small ones share the cost of a call.
_OF_LARGE, _OF_SMALL = 200_000, 800_000


class Engine(ABC):
    """Makes the views of one augmentation."""

    @abstractmethod
    def draw(self, image: Image.Image) -> Any:
        """The parameters of a view of this image, drawn from torch's global generator."""

    def draw_seeded(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> Sequence[Any]:
        """What :meth:`draw` gives for each image after torch's global generator was seeded with its number."""
        drawn = []
        for image, seed in zip(images, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            drawn.append(self.draw(image))
        return drawn

    @abstractmethod
    def make(self, images: Sequence[Image.Image], parameters: Sequence[Any]) -> Sequence[Tensor]:
        """A view of each image: (3, size, size) float32, or (grid², 3, cell, cell) with a jigsaw."""

    def pack(self, images: Sequence[Image.Image], parameters: Sequence[Any]) -> Sequence[Tensor | PackedViews]:
        """As :meth:`make`, but in bytes where that loses nothing; :meth:`unpack` makes views of them."""
        return self.make(images, parameters)

    def unpack(self, packed: Any) -> Tensor:
        """(B, ...) float32: the views of :meth:`make`, on the device of what :meth:`pack` gave. They are equal bit by
        bit, but for views that are made there (:mod:`on_device`)."""
        views: Tensor = packed
        return views


class TorchvisionEngine(Engine):
    """torchvision's transforms themselves, which draw while they work: what is drawn is the view."""

    def __init__(self, augment: Augment) -> None:
        self._pipeline = augmentation(augment)

    def draw(self, image: Image.Image) -> Tensor:
        return self._pipeline(image)

    def make(self, images: Sequence[Image.Image], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        return parameters


class TensorEngine(Engine):
    """What torchvision's transforms make of an image of Pillow, several times faster; or, ``fused``, about that."""

    def __init__(self, augment: Augment, fused: bool = False) -> None:
        self.augment = augment
        self.fused = fused
        self.names = [name for name in augment.order if getattr(augment, name) is not None]
        self._seeded = SeededDraws(augment, self.names)

    def draw(self, image: Image.Image) -> ViewParameters:
        return draw_parameters(self.augment, self.names, *image.size)

    def draw_seeded(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> Sequence[ViewParameters]:
        return self._seeded.draw(load_kernels(), images, seeds)

    def make(self, images: Sequence[Image.Image], parameters: Sequence[ViewParameters]) -> Sequence[Tensor]:
        made: list[Tensor] = []
        for levels in self._make_levels(images, parameters):
            made += self._normalize(levels).unbind(0)
        return made

    def pack(self, images: Sequence[Image.Image], parameters: Sequence[ViewParameters]) -> Sequence[Tensor]:
        made: list[Tensor] = []
        for levels in self._make_levels(images, parameters):
            made += to_bytes(levels).unbind(0)
        return made

    def unpack(self, packed: Tensor) -> Tensor:
        if _kernels_for(packed):
            return self._normalize(packed.contiguous())
        views = torch.empty_like(packed, dtype=torch.float32, memory_format=torch.contiguous_format)
        together = max(_OF_LARGE // packed[0].numel(), 1) if packed.device.type == "cpu" else len(packed)
        for some, levels in zip(views.split(together), packed.split(together), strict=True):
            normalize(some.copy_(levels), self.augment.normalize)
        return views

    def _normalize(self, levels: Tensor) -> Tensor:
        """float32, of levels from 0 to 255, which may be changed."""
        kernels = _kernels_for(levels)
        values = self.augment.normalize
        if kernels is None:
            return normalize(levels, values)
        views = torch.empty_like(levels, dtype=torch.float32)
        if values is None:
            kernels.scale(levels.view(-1).numpy(), views.view(-1).numpy())
        else:
            mean, std = (np.array(numbers, np.float32) for numbers in (values.mean, values.std))
            size = levels.shape[-2] * levels.shape[-1]
            kernels.normalize(levels.view(-1, 3, size).numpy(), mean, std, views.view(-1, 3, size).numpy())
        return views

    def _make_levels(self, images: Sequence[Image.Image], parameters: Sequence[ViewParameters]) -> Iterator[Tensor]:
        """Views (N, ...) of some images after the other, as levels from 0 to 255: bytes where kernels made them, else
        float32. They are contiguous."""
        size = self.augment.crop.size
        together = max((_OF_SMALL if size <= _BY_PILLOW else _OF_LARGE) // (3 * size**2), 1)
        for start in range(0, len(images), together):
            stop = start + together
            yield self._make(images[start:stop], parameters[start:stop])

    def _make(self, images: Sequence[Image.Image], parameters: Sequence[ViewParameters]) -> Tensor:
        before = self.names.index("crop")
        if before:
            images = [
                to_pillow(self._apply(self.names[:before], from_pillow(image).unsqueeze(0), [values])[0])
                for image, values in zip(images, parameters, strict=True)
            ]
        boxes = [
            values.crop or Box(0, 0, image.height, image.width)
            for image, values in zip(images, parameters, strict=True)
        ]
        pixels = self._crop(images, boxes)
        names = self.names[before + 1 :]
        if self.augment.jigsaw is None:
            return self._apply(names, pixels, parameters)
        cut = names.index("jigsaw")
        pixels = self._apply(names[:cut], pixels, parameters)
        pieces = [
            self._cut(names[cut + 1 :], image, values, self.augment.jigsaw.cell)
            for image, values in zip(pixels, parameters, strict=True)
        ]
        return torch.stack(pieces)

    def _crop(self, images: Sequence[Image.Image], boxes: Sequence[Box]) -> Tensor:
        """(N, 3, size, size) uint8."""
        crop = self.augment.crop
        by_torch = [
            may_resize_by_torch(image, box, crop) or (self.fused and crop.size > _BY_PILLOW)
            for image, box in zip(images, boxes, strict=True)
        ]
        each = zip(images, boxes, by_torch, strict=True)
        if any(by_torch):
            resized = [resize_crop(image, box, crop.size, crop.interpolation, fast) for image, box, fast in each]
            return torch.stack(resized) if len(resized) > 1 else resized[0].unsqueeze(0)  # a large one is alone
        if (kernels := load_kernels()) and enlarges_as_pillow(kernels):
            return resize_together(kernels, images, boxes, crop.size, crop.interpolation)
        levels = b"".join(
            resize_by_pillow(image, box, crop.size, crop.interpolation).tobytes() for image, box, _ in each
        )
        return (
            torch.frombuffer(bytearray(levels), dtype=torch.uint8).view(-1, crop.size, crop.size, 3).permute(0, 3, 1, 2)
        )

    def _cut(self, names: Sequence[str], image: Tensor, parameters: ViewParameters, cell: int) -> Tensor:
        """The pieces of a jigsaw, each with what happens to it."""
        pieces = torch.stack(
            [image[:, piece.top : piece.top + cell, piece.left : piece.left + cell] for piece in parameters.pieces]
        )
        return self._apply(names, pieces, [piece.then for piece in parameters.pieces])

    def _apply(self, names: Sequence[str], pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        kernels = _kernels_for(pixels)
        if kernels is None:
            pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        pixels = pixels.contiguous()
        if kernels is not None:
            return self._apply_compiled(kernels, names, pixels, parameters)
        if self.fused:
            return self._fuse(names, pixels, parameters)
        for name in names:
            pixels = _OPERATIONS[name](self, pixels, parameters)
        return pixels

    def _apply_compiled(
        self, kernels: ModuleType, names: Sequence[str], pixels: Tensor, parameters: Sequence[ViewParameters]
    ) -> Tensor:
        """All operations of all images in one call, but RandAugment, which is Pillow's."""
        for is_compiled, run in groupby(names, lambda name: name != "rand_augment"):
            if not is_compiled:
                pixels = self._rand_augment(pixels, parameters)
                continue
            side = min(pixels.shape[-2:])
            table, halves = tabulate(self.augment, list(run), parameters, self.fused, side)
            if halves.shape[1] > side:
                raise RuntimeError(f"a kernel that reaches {halves.shape[1] - 1} pixels cannot blur {side} pixels")
            (kernels.fuse if self.fused else kernels.change)(pixels.numpy(), table, halves)
        return pixels

    def _fuse(self, names: Sequence[str], pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        """Operations in a row that are linear are one map, a mirror image and a blur, whatever their order, and are
        rounded once."""
        for linear, run in groupby(names, _LINEAR.__contains__):
            if not linear:
                for name in run:
                    pixels = _OPERATIONS[name](self, pixels, parameters)
                continue
            together = list(run)
            pixels = change_colours(pixels, together, parameters)
            if "flip" in together:
                pixels = self._flip(pixels, parameters)
            if "blur" in together:
                pixels = self._blur(pixels, parameters)
            pixels = pixels.clamp_(0, 255).add_(0.5).floor_()
        return pixels

    def _jitter(self, pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        left = {at: (list(values.jitter.order), values.jitter) for at, values in enumerate(parameters) if values.jitter}
        alone = [jitter.order for _, jitter in left.values()] if len(left) == 1 else [EVERY_ORDER]
        for number in alone[0]:
            factors: dict[int, float] = {}
            for at, (order, jitter) in left.items():
                if order and order[0] == number:
                    del order[0]
                    factor = jitter.factors[number]
                    if factor is not None:
                        factors[at] = factor
            pixels = _where(factors, pixels, _CHANGES[number])
        return pixels

    def _gray(self, pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        return _where(_numbers(values.gray for values in parameters), pixels, lambda some, _: colours.to_gray(some))

    def _flip(self, pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        return _where(_numbers(values.flip for values in parameters), pixels, lambda some, _: some.flip(-1))

    def _blur(self, pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        kernel = self.augment.blur.kernel if self.augment.blur else None
        for at, values in enumerate(parameters):
            if values.blur is not None:
                image = pixels[at : at + 1]
                if self.fused:
                    image.copy_(blur_smoothly(image, values.blur, kernel))
                elif kernel is None:
                    image.copy_(blur_as_pillow(image, values.blur))
                else:
                    image.copy_(blur_as_torchvision(image, values.blur, kernel))
        return pixels

    def _solarize(self, pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        threshold = solarize_from(self.augment.solarize.threshold) if self.augment.solarize else 0.0
        chosen = _numbers(values.solarize for values in parameters)
        return _where(chosen, pixels, lambda some, _: colours.solarize(some, threshold))

    def _rand_augment(self, pixels: Tensor, parameters: Sequence[ViewParameters]) -> Tensor:
        if self.augment.rand_augment is not None:
            part = rand_augment(self.augment.rand_augment)
            for at, values in enumerate(parameters):
                if values.rand_augment:
                    pixels[at] = from_pillow(part.apply_to(to_pillow(pixels[at]), values.rand_augment))
        return pixels


_LINEAR = ("jitter", "gray", "flip", "blur")
_OPERATIONS: dict[str, Callable[[TensorEngine, Tensor, Sequence[ViewParameters]], Tensor]] = {
    "jitter": TensorEngine._jitter,
    "gray": TensorEngine._gray,
    "flip": TensorEngine._flip,
    "blur": TensorEngine._blur,
    "solarize": TensorEngine._solarize,
    "rand_augment": TensorEngine._rand_augment,
}
_Change = Callable[[Tensor, Sequence[float]], Tensor]
_CHANGES: tuple[_Change, ...] = (
    colours.adjust_brightness,
    colours.adjust_contrast,
    colours.adjust_saturation,
    colours.adjust_hue,
)

# Every order of the four changes is a part of this one, in its order: images whose orders differ are changed together
# in twelve calls, of which two are of the hue, which takes longest.
EVERY_ORDER = (0, 1, 2, 3, 0, 1, 2, 0, 3, 1, 0, 2)


def _where(values: Mapping[int, float], pixels: Tensor, change: _Change) -> Tensor:
    """The images changed which have a value, by their numbers."""
    if not values:
        return pixels
    given = list(values.values())
    if len(values) == len(pixels):
        return change(pixels, given)
    chosen = torch.tensor(list(values), device=pixels.device)
    return pixels.index_copy_(0, chosen, change(pixels.index_select(0, chosen), given))


def _numbers(flags: Iterable[bool]) -> Mapping[int, float]:
    """Those that are true."""
    return {at: 1.0 for at, flag in enumerate(flags) if flag}


def make_engine(name: EngineName, augment: Augment) -> Engine:
    """The engine of this name for one augmentation."""
    engines: dict[EngineName, Callable[[Augment], Engine]] = {
        "exact": TensorEngine,
        "fused": partial(TensorEngine, fused=True),
        "torchvision": TorchvisionEngine,
    }
    return engines[name](augment)


@cache
def load_kernels() -> ModuleType | None:
    """The compiled kernels; None where numba is not installed, or cannot work with the installed NumPy."""
    try:
        from contralex.kinds.views import kernels
    except ImportError:
        return None
    return kernels


def _kernels_for(pixels: Tensor) -> ModuleType | None:
    return load_kernels() if pixels.device.type == "cpu" else None


def load_pixels(image: Image.Image) -> Tensor:
    """(1, 3, H, W) float32 whole numbers from 0 to 255."""
    return from_pillow(image).unsqueeze(0).to(torch.float32, memory_format=torch.contiguous_format)


def may_resize_by_torch(image: Image.Image, box: Box, crop: Crop) -> bool:
    """Whether torch's interpolation of bytes is within a level of Pillow's, and faster.

    Its bicubic is up to two levels off where it enlarges. A whole image is resized as evaluation does it.
    """
    enlarged = crop.interpolation == "bicubic" and min(box.width, box.height) < crop.size
    return crop.size > _BY_PILLOW and not enlarged and (box.width, box.height) != image.size


def resize_crop(image: Image.Image, box: Box, size: int, interpolation: Interpolation, by_torch: bool) -> Tensor:
    """(3, size, size) uint8."""
    if not by_torch:
        return from_pillow(resize_by_pillow(image, box, size, interpolation))
    resized = functional.interpolate(copy_pixels(image, box), (size, size), mode=interpolation, antialias=True)
    return _without_padding(resized)


def resize_together(
    kernels: ModuleType, images: Sequence[Image.Image], boxes: Sequence[Box], size: int, interpolation: Interpolation
) -> Tensor:
    """(N, 3, size, size) uint8, as :func:`resize_by_pillow`: compiled where crops of small images are enlarged, which
    take Pillow longer to be called for than to make. Others are left to Pillow, whose order of passes is its own."""
    images, boxes = list(images), list(boxes)
    for at, (image, box) in enumerate(zip(images, boxes, strict=True)):
        if max(box.width, box.height) > size or image.width * image.height > _SMALL:
            images[at] = resize_by_pillow(image, box, size, interpolation)
            boxes[at] = Box(0, 0, size, size)
    levels, starts = _joined(images)
    places = [
        (start, image.width, box.top, box.left, box.height, box.width)
        for start, image, box in zip(starts, images, boxes, strict=True)
    ]
    resized = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    kernels.enlarge(levels, np.array(places), interpolation == "bicubic", resized.numpy())
    return resized


@cache
def enlarges_as_pillow(kernels: ModuleType) -> bool:
    """Whether the installed Pillow enlarges as the kernels do: what is installed may not change a view."""
    levels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image, size = Image.fromarray(levels), 16
    boxes = [Box(0, 0, 9, 12), Box(1, 2, 8, 3), Box(3, 1, 2, 11)]
    for interpolation in get_args(Interpolation):
        resized = resize_together(kernels, [image] * len(boxes), boxes, size, interpolation)
        for box, made in zip(boxes, resized, strict=True):
            if not torch.equal(made, from_pillow(resize_by_pillow(image, box, size, interpolation))):
                return False
    return True


def resize_by_pillow(image: Image.Image, box: Box, size: int, interpolation: Interpolation) -> Image.Image:
    """The crop, resized to ``size`` x ``size`` pixels."""
    return cut_out(image, box).resize((size, size), Image.Resampling[interpolation.upper()])


class _Joined:
    """The bytes of images, one image after the other. Those of the last call are kept, because the views of a batch
    are made of the same images, one view after the other."""

    def __init__(self) -> None:
        self._last: tuple[Sequence[Image.Image], NDArray[np.uint8], list[int]] = [], np.empty(0, np.uint8), []

    def __call__(self, images: Sequence[Image.Image]) -> tuple[NDArray[np.uint8], list[int]]:
        """All of them, and where each begins."""
        before, levels, starts = self._last
        if len(before) != len(images) or not all(map(operator.is_, before, images)):
            levels = np.frombuffer(b"".join(image.tobytes() for image in images), np.uint8)
            starts = [0, *itertools.accumulate(3 * image.width * image.height for image in images)][:-1]
            self._last = list(images), levels, starts
        return levels, starts


_joined = _Joined()


def _without_padding(levels: Tensor) -> Tensor:
    """(3, H, W), channel after channel, of (1, 4, H, W), as torch resizes what :func:`copy_pixels` gave. Four channels
    take it less time than three."""
    if sys.byteorder != "little" or not levels.is_contiguous(memory_format=torch.channels_last):
        return levels[0, :3].contiguous()
    # A pixel as one integer, of which a byte is taken off: faster than copying every fourth byte.
    pixels = levels.permute(0, 2, 3, 1).view(torch.int32)[0, :, :, 0]
    made = levels.new_empty(3, *pixels.shape)
    if kernels := _kernels_for(levels):
        kernels.split_channels(pixels.numpy().view(np.uint32).reshape(-1), made.numpy().reshape(3, -1))
        return made
    for channel, out in enumerate(made):
        out.copy_(pixels >> 8 * channel if channel else pixels)
    return made


def normalize(pixels: Tensor, values: Normalize | None) -> Tensor:
    """In place: bytes to [0, 1], then, if asked, less the mean and divided by the deviation."""
    pixels.mul_(1.0 / 255)
    if values is not None:
        columns = (torch.tensor(numbers, dtype=pixels.dtype).view(3, 1, 1) for numbers in (values.mean, values.std))
        mean, std = (to_device(numbers, pixels.device) for numbers in columns)
        pixels.sub_(mean).div_(std)
    return pixels
