"""Views that are made on the device that trains, of the same parameters as everywhere.

A worker draws the parameters, cuts the crop out of the image, and sends its bytes with a row of numbers. All images of
a batch then go through each operation together: what does not happen to one of them has a neutral number. Nothing here
waits for the device.

The results are those of the engine ``exact`` bit by bit but for resizing, which is Pillow's here, along the rows first.
There larger crops are resized by torch's interpolation, whose weights have 16 bits; and Pillow 13 begins with the
columns where that is less work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from contralex.data.packed import PackedViews
from contralex.kinds.views.augment import Augment
from contralex.kinds.views.blurs import KERNEL_ONE, box_weights, whole_half_kernel
from contralex.kinds.views.colours import LUMA, hue_steps, turn_hue
from contralex.kinds.views.engine import EVERY_ORDER, Engine, TensorEngine, normalize
from contralex.kinds.views.parameters import Box, ColourFactors, ViewParameters
from contralex.kinds.views.pillow_memory import cut_out
from contralex.kinds.views.steps import solarize_from

_PIXELS = 1 << 24  # of the crops that are worked on together, each counted as large as the largest of them
_WEIGHT_ONE = 1 << 22  # Pillow's weights of a resize are whole numbers of which this is 1
_HALF = 1 << 11  # of their 22 bits
_BOX_ONE = 1 << 24  # those of its box filter
_BOXES = 3
_HUE = 3
_FIRST, _HEIGHT, _WIDTH, _GRAY, _FLIP, _SOLARIZE, _JITTER = range(7)
_BLUR = _JITTER + len(EVERY_ORDER)
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # pixels of the result to either side that a filter sees


class DeviceEngine(Engine):
    """Makes views on the device to which their :class:`PackedViews` went."""

    def __init__(self, augment: Augment) -> None:
        self.augment = augment
        self._exact = TensorEngine(augment)
        self._half = augment.blur.kernel // 2 + 1 if augment.blur and augment.blur.kernel else 0

    def draw(self, image: Image.Image) -> ViewParameters:
        return self._exact.draw(image)

    def make(self, images: Sequence[Image.Image], parameters: Sequence[ViewParameters]) -> Sequence[Tensor]:
        return self._exact.make(images, parameters)

    def pack(self, images: Sequence[Image.Image], parameters: Sequence[ViewParameters]) -> Sequence[PackedViews]:
        return [self._pack(image, drawn) for image, drawn in zip(images, parameters, strict=True)]

    def unpack(self, packed: PackedViews) -> Tensor:
        views = packed.levels.new_empty((len(packed.sizes), 3, *[self.augment.crop.size] * 2), dtype=torch.float32)
        for rows, height, width in _together(packed.sizes):
            table = packed.table[rows]
            levels = self._resize(_read(packed.levels, table, height, width), table)
            for name in self._exact.names[1:]:
                levels = _OPERATIONS[name](self, levels, table)
            views[rows] = normalize(levels, self.augment.normalize)
        return views

    def _pack(self, image: Image.Image, drawn: ViewParameters) -> PackedViews:
        box = drawn.crop or Box(0, 0, image.height, image.width)
        levels = cut_out(image, box).tobytes()
        row = [0.0, box.height, box.width, drawn.gray, drawn.flip, drawn.solarize]
        row += [*_changes(drawn.jitter), *self._blur_weights(drawn.blur)]
        table = torch.from_numpy(np.array([row], np.float64))
        return PackedViews(torch.frombuffer(bytearray(levels), dtype=torch.uint8), table, ((box.height, box.width),))

    def _blur_weights(self, sigma: float | None) -> Sequence[float]:
        """Radius and weights of Pillow's box; with a kernel, the weights of one half of it. Neutral without a blur."""
        if self.augment.blur is None:
            return ()
        if self.augment.blur.kernel is None:
            return box_weights(sigma) if sigma is not None else (0, _BOX_ONE, 0)
        half = [KERNEL_ONE] if sigma is None else whole_half_kernel(sigma, self.augment.blur.kernel).tolist()
        return [*half, *[0.0] * (self._half - len(half))]

    def _resize(self, pixels: Tensor, table: Tensor) -> Tensor:
        """(n, 3, size, size) float32 whole numbers, of crops (n, 3, H, W) that fill the upper left corners."""
        weights = partial(_resize_weights, size=self.augment.crop.size, kind=self.augment.crop.interpolation)
        across = weights(table[:, _WIDTH], length=pixels.shape[-1]).transpose(-1, -2)
        down = weights(table[:, _HEIGHT], length=pixels.shape[-2])
        lines = _weigh(torch.matmul(pixels.float(), across))
        return _weigh(torch.matmul(down, lines))

    def _jitter(self, levels: Tensor, table: Tensor) -> Tensor:
        strengths = self.augment.jitter
        if strengths is None:
            return levels
        used = [strengths.brightness, strengths.contrast, strengths.saturation, strengths.hue]
        for at, number in enumerate(EVERY_ORDER):
            if not used[number]:
                continue
            numbers = table[:, _JITTER + at].to(levels.dtype).view(-1, 1, 1, 1)
            if number == _HUE:
                turned = turn_hue(levels.clone(), numbers.view(-1, 1, 1).clamp(min=0))
                levels = torch.where(numbers < 0, levels, turned)
            else:
                levels = _CHANGES[number](levels, numbers)
        return levels

    def _gray(self, levels: Tensor, table: Tensor) -> Tensor:
        return torch.where(_is(table[:, _GRAY]), _luma(levels), levels)

    def _flip(self, levels: Tensor, table: Tensor) -> Tensor:
        return torch.where(_is(table[:, _FLIP]), levels.flip(-1), levels)

    def _solarize(self, levels: Tensor, table: Tensor) -> Tensor:
        threshold = solarize_from(self.augment.solarize.threshold) if self.augment.solarize else 0.0
        return torch.where(_is(table[:, _SOLARIZE]) & (levels >= threshold), 255 - levels, levels)

    def _blur(self, levels: Tensor, table: Tensor) -> Tensor:
        if self.augment.blur is None:
            return levels
        if self._half:
            return _blur_by_kernel(levels, table[:, _BLUR : _BLUR + self._half])
        widest = box_weights(self.augment.blur.sigma[1])[0]
        return _blur_by_boxes(levels, table[:, _BLUR : _BLUR + 3].long(), widest)


_OPERATIONS: dict[str, Callable[[DeviceEngine, Tensor, Tensor], Tensor]] = {
    "jitter": DeviceEngine._jitter,
    "gray": DeviceEngine._gray,
    "flip": DeviceEngine._flip,
    "blur": DeviceEngine._blur,
    "solarize": DeviceEngine._solarize,
}


def _together(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[slice, int, int]]:
    """Rows that are worked on at a time, with the largest height and width of their crops."""
    start, height, width = 0, 0, 0
    for at, (rows, columns) in enumerate(sizes):
        higher, wider = max(height, rows), max(width, columns)
        if at > start and (at + 1 - start) * higher * wider > _PIXELS:
            yield slice(start, at), height, width
            start, higher, wider = at, rows, columns
        height, width = higher, wider
    yield slice(start, len(sizes)), height, width


def _changes(jitter: ColourFactors | None) -> Iterator[float]:
    """The number of each change in :data:`EVERY_ORDER`: a factor, or the steps of a hue; 1, or -1, where it is none."""
    left = list(jitter.order) if jitter else []
    for number in EVERY_ORDER:
        factor = None
        if jitter and left and left[0] == number:
            del left[0]
            factor = jitter.factors[number]
        if number == _HUE:
            yield -1 if factor is None else hue_steps(factor)
        else:
            yield 1 if factor is None else factor


def _read(levels: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    """(n, 3, height, width) uint8: each crop in the upper left corner, its last row and column repeated."""
    first, rows, columns = table[:, : _WIDTH + 1].long().view(-1, 3, 1, 1, 1).unbind(1)
    device = levels.device
    down = torch.minimum(torch.arange(height, device=device).view(-1, 1), rows - 1)
    across = torch.minimum(torch.arange(width, device=device), columns - 1)
    channels = torch.arange(3, device=device).view(-1, 1, 1)
    return torch.take(levels, first + (down * columns + across) * 3 + channels)


def _resize_weights(lengths: Tensor, size: int, kind: str, length: int) -> Tensor:
    """(2, n, 1, size, length) float32: how much of each pixel of a line each pixel of the result has, as the upper and
    the lower half of a whole number.

    Source: ``precompute_coeffs`` and ``normalize_coeffs_8bpc`` of Pillow's Resample.c.
    """
    lengths = lengths.view(-1, 1, 1)
    scale = lengths / size
    stretched = scale.clamp(min=1)
    reach = _REACH[kind] * stretched
    centre = (torch.arange(size, device=lengths.device, dtype=lengths.dtype).view(-1, 1) + 0.5) * scale
    low = (centre - reach + 0.5).floor().clamp(min=0)
    high = torch.minimum((centre + reach + 0.5).floor(), lengths)
    at = torch.arange(length, device=lengths.device, dtype=lengths.dtype)
    apart = ((at - centre + 0.5) / stretched).abs()
    weights = (_triangle if kind == "bilinear" else _cubic)(apart) * ((at >= low) & (at < high))
    weights = weights.div_(weights.sum(-1, keepdim=True)).mul_(_WEIGHT_ONE)
    whole = (weights + 0.5 * weights.sign()).trunc()
    upper = (whole / _HALF).floor()
    return torch.stack([upper, whole - upper * _HALF]).float().unsqueeze(2)


def _weigh(sums: Tensor) -> Tensor:
    """Levels, of two sums with the halves of weights. Each is of whole numbers so small that float32 holds it."""
    upper, lower = sums.int().unbind(0)
    return (upper.mul_(_HALF).add_(lower).add_(_WEIGHT_ONE // 2) >> 22).clamp_(0, 255).float()


def _triangle(apart: Tensor) -> Tensor:
    return (1 - apart).clamp(min=0)


def _cubic(apart: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5."""
    near = (1.5 * apart - 2.5) * apart**2 + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    return torch.where(apart < 1, near, torch.where(apart < 2, far, 0.0))


def _is(flags: Tensor) -> Tensor:
    return (flags > 0).view(-1, 1, 1, 1)


def _luma(levels: Tensor) -> Tensor:
    """(n, 1, H, W) grey levels; sums of these products with bytes are exact in float32, in any order."""
    red, green, blue = levels.split(1, 1)
    return torch.add(red * LUMA[0], green * LUMA[1]).add_(blue * LUMA[2]).add_(0.5).floor_()


def _blend(other: Tensor, levels: Tensor, factors: Tensor) -> Tensor:
    return (levels - other).mul_(factors).add_(other).clamp_(0, 255).floor_()


def _adjust_brightness(levels: Tensor, factors: Tensor) -> Tensor:
    return (levels * factors).clamp_(0, 255).floor_()


def _adjust_contrast(levels: Tensor, factors: Tensor) -> Tensor:
    grey = _luma(levels)
    # Rows first: the sum of a row is exact in float32, that of a large image is not.
    mean = grey.sum(-1, keepdim=True).double().sum(-2, keepdim=True) / (grey.shape[-1] * grey.shape[-2])
    return _blend(mean.add_(0.5).floor_().to(levels.dtype), levels, factors)


def _adjust_saturation(levels: Tensor, factors: Tensor) -> Tensor:
    return _blend(_luma(levels), levels, factors)


_CHANGES = (_adjust_brightness, _adjust_contrast, _adjust_saturation)


def _blur_by_boxes(levels: Tensor, boxes: Tensor, widest: int) -> Tensor:
    """Pillow's GaussianBlur: three box filters in each direction, in whole numbers. ``boxes``: (n, 3) radius, weight of
    the pixels within it, and of the two beyond; ``widest``: the largest radius."""
    radius, centre, edge = boxes.int().view(-1, 3, 1, 1, 1).unbind(1)
    apart = range(-widest - 1, widest + 2)
    weights = [torch.where(radius >= abs(at), centre, edge * (radius + 1 == abs(at))) for at in apart]
    # Pillow counts in 32 bits without a sign. Bytes less 128 let the same numbers fit into 32 bits with one. The
    # weights may sum to a little less than 2²⁴, of which the 128 that were taken off have their share.
    half = _BOX_ONE // 2 - 128 * (_BOX_ONE - torch.stack(weights).sum(0, dtype=torch.int32))
    whole = levels.int().sub_(128)
    for dim in (-1, -2):
        for _ in range(_BOXES):
            padded = _repeat_ends(whole, dim, widest + 1)
            whole = half.expand_as(whole).clone()
            for at, weight in zip(apart, weights, strict=True):
                whole.addcmul_(padded.narrow(dim, widest + 1 + at, whole.shape[dim]), weight)
            whole.bitwise_right_shift_(24)
    return whole.add_(128).to(levels.dtype)


def _repeat_ends(levels: Tensor, dim: int, reach: int) -> Tensor:
    length = levels.shape[dim]
    ends = [levels.narrow(dim, at, 1).expand(*_with_length(levels, dim, reach)) for at in (0, length - 1)]
    return torch.cat([ends[0], levels, ends[1]], dim)


def _with_length(levels: Tensor, dim: int, length: int) -> Sequence[int]:
    shape = list(levels.shape)
    shape[dim] = length
    return shape


def _blur_by_kernel(levels: Tensor, halves: Tensor) -> Tensor:
    """torchvision's gaussian_blur, in whole numbers below 2^52, which float64 holds. ``halves``: (n, R) weights from
    the middle of a kernel on."""
    reach = halves.shape[1] - 1
    sums = levels.double()
    for dim, beyond in ((-1, (reach, reach, 0, 0)), (-2, (0, 0, reach, reach))):
        padded = functional.pad(sums, beyond, mode="reflect")
        length = sums.shape[dim]
        sums = padded.narrow(dim, reach, length) * halves[:, 0].view(-1, 1, 1, 1)
        for apart in range(1, reach + 1):
            both = padded.narrow(dim, reach - apart, length) + padded.narrow(dim, reach + apart, length)
            sums += both.mul_(halves[:, apart].view(-1, 1, 1, 1))
    return sums.div_(KERNEL_ONE**2).add_(0.5).floor_().to(levels.dtype)
