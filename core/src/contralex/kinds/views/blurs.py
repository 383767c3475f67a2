"""Gaussian blurs of images (N, 3, H, W) of whole numbers from 0 to 255, fast on one core.

:func:`blur_as_pillow` is Pillow's: three box filters in each direction, whose results are bytes.
:func:`blur_as_torchvision` is torchvision's: an explicit kernel. That runs as two products with small band matrices:
a full kernel of 23 x 23 pixels takes thirty times as long, and fills with denormal numbers where σ is small.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional

_PASSES = 3
_WIDEST = 4  # a box of a larger radius is left to Pillow, whose time does not depend on it
_ONE = 1 << 24  # Pillow's weights are whole numbers of which this is 1
_BLOCK = 32  # pixels of a line that one product makes
KERNEL_ONE = 1 << 22  # an explicit kernel's weights are whole numbers of which this is 1
# A float32 sum of bytes, weighed down and across, is off by at most this for each weight of a line.
_ROUNDING = 2 * 255 * 2**-24
_TOGETHER = 1 << 20  # products of sums that are taken anew
_LEFT_OUT = 1e-8  # of a kernel's weight may be left out: a byte is rounded at 2e-3 of it


def blur_as_pillow(pixels: Tensor, sigma: float) -> Tensor:
    """Pillow's GaussianBlur of this radius, bit by bit."""
    radius, centre, edge = box_weights(sigma)
    if radius > _WIDEST:
        return torch.stack([_through_pillow(image, sigma) for image in pixels])
    # Pillow counts in 32 bits without a sign. Bytes less 128 let the same numbers fit into 32 bits with one.
    levels = pixels.int().sub_(128)
    for dim in (-1, -2):
        padded = _pad(levels, dim, radius + 1)
        inner = padded.narrow(dim, radius + 1, levels.shape[dim])
        for at in range(_PASSES):
            _box(padded, dim, radius, centre, edge, levels)
            if at < _PASSES - 1:
                torch.bitwise_right_shift(levels, 24, out=inner)
                _fill_ends(padded, dim, radius + 1)
        levels.bitwise_right_shift_(24)
    return levels.add_(128).to(pixels.dtype)


def box_weights(sigma: float) -> tuple[int, int, int]:
    """The whole radius of Pillow's box, the weight of its pixels, and that of the two beyond them, of 2²⁴.

    Source: Gwosdek et al., 2011, "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", equations
    7, 11 and 14; in float32 as in Pillow.
    """
    float32 = np.float32
    variance = float32(sigma) * float32(sigma) / float32(_PASSES)
    length = float32(math.sqrt(12.0 * float(variance) + 1.0))
    whole = float32(math.floor((float(length) - 1.0) / 2.0))
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    rest /= 6 * (variance - (whole + 1) * (whole + 1))
    radius = float32(whole + rest)
    centre = int(float32(_ONE) / (radius * 2 + 1))
    return int(radius), centre, (_ONE - (int(radius) * 2 + 1) * centre) // 2


def _pad(levels: Tensor, dim: int, reach: int) -> Tensor:
    shape = list(levels.shape)
    shape[dim] += 2 * reach
    padded = levels.new_empty(shape)
    padded.narrow(dim, reach, levels.shape[dim]).copy_(levels)
    return _fill_ends(padded, dim, reach)


def _fill_ends(padded: Tensor, dim: int, reach: int) -> Tensor:
    """Repeat the first and the last pixel of each line beyond its ends."""
    last = padded.shape[dim] - reach
    for at in range(reach):
        padded.select(dim, at).copy_(padded.select(dim, reach))
        padded.select(dim, last + at).copy_(padded.select(dim, last - 1))
    return padded


def _box(padded: Tensor, dim: int, radius: int, centre: int, edge: int, out: Tensor) -> None:
    """2²⁴ times the filtered image, plus a half for rounding."""
    size = out.shape[dim]
    # The weights may sum to a little less than 2²⁴, of which the 128 that were taken off have their share.
    half = _ONE // 2 - 128 * (_ONE - (2 * radius + 1) * centre - 2 * edge)
    torch.add(padded.narrow(dim, 0, size), padded.narrow(dim, 2 * radius + 2, size), out=out)
    torch.add(padded.new_tensor(half), out, alpha=edge, out=out)  # alpha, because a product of integers is slow
    for offset in range(1, 2 * radius + 2):
        out.add_(padded.narrow(dim, offset, size), alpha=centre)


def _through_pillow(image: Tensor, sigma: float) -> Tensor:
    blurred = to_pillow(image).filter(ImageFilter.GaussianBlur(sigma))
    return from_pillow(blurred).to(image)


def to_pillow(image: Tensor) -> Image.Image:
    """(3, H, W) whole numbers from 0 to 255 as an RGB image."""
    return Image.fromarray(to_bytes(image.permute(1, 2, 0)).numpy())


def to_bytes(levels: Tensor) -> Tensor:
    """uint8, without fractions. On the CPU NumPy converts them several times as fast as torch."""
    if levels.dtype == torch.uint8:
        return levels
    if levels.device.type != "cpu":
        return levels.to(torch.uint8)
    return torch.from_numpy(levels.numpy().astype(np.uint8))


def from_pillow(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of an RGB image; in memory its channels stand last."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def blur_as_torchvision(pixels: Tensor, sigma: float, kernel: int) -> Tensor:
    """torchvision's gaussian_blur; a pixel may differ by 1 where the sum lies within float32's rounding of a half.

    There the sum is taken in whole numbers instead, so that the result is that of :mod:`kernels` and of any machine.
    """
    half = whole_half_kernel(sigma, kernel)
    line = torch.from_numpy(_both_halves(half)).to(pixels.device)
    raised = _convolve(pixels, (line / KERNEL_ONE).float()).add_(0.5)
    made = raised.floor()
    unsure = raised.sub_(made).sub_(0.5).abs_() > 0.5 - (len(line) + 1) * _ROUNDING
    for some in unsure.nonzero().split(max(_TOGETHER // len(line) ** 2, 1)):
        made[tuple(some.T)] = _exact_sums(pixels, some, line)
    return made


def _exact_sums(pixels: Tensor, at: Tensor, line: Tensor) -> Tensor:
    """The levels of pixels by their indices (M, 4) of image, channel, row and column."""
    reach = len(line) // 2
    apart = torch.arange(-reach, reach + 1, device=at.device)
    rows, columns = (_mirrored(at[:, dim, None] + apart, pixels.shape[dim]) for dim in (2, 3))
    near = pixels[at[:, 0, None, None], at[:, 1, None, None], rows[:, :, None], columns[:, None, :]].double()
    # Below 2^52, so that a float64 holds each product and each sum.
    sums = (near * line.double() * line.double()[:, None]).sum((1, 2))
    return sums.div_(KERNEL_ONE**2).add_(0.5).floor_().float()


def _mirrored(indices: Tensor, length: int) -> Tensor:
    inside = indices.abs()
    return (length - 1) - ((length - 1) - inside).abs()


def whole_half_kernel(sigma: float, size: int) -> NDArray[np.int32]:
    """A kernel's weights from its middle on, as whole numbers of which KERNEL_ONE is 1."""
    half = np.rint(gaussian_kernel(sigma, size).numpy()[size // 2 :] * KERNEL_ONE).astype(np.int32)
    half[0] = KERNEL_ONE - 2 * half[1:].sum()
    return np.trim_zeros(half, "b")


def smooth_half_kernel(sigma: float, size: int | None, side: int) -> NDArray[np.float32]:
    """The weights of :func:`blur_smoothly` from the middle on, for images whose shorter side this is."""
    line = _smooth_kernel(sigma, size, side)
    return line[len(line) // 2 :]


def _both_halves(half: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.concatenate([half[:0:-1], half])


def blur_smoothly(pixels: Tensor, sigma: float, kernel: int | None) -> Tensor:
    """The same blurs without rounding: by this kernel, or by the one that Pillow's boxes make together."""
    line = _smooth_kernel(sigma, kernel, min(pixels.shape[-2:]))
    return _convolve(pixels, torch.from_numpy(line).to(pixels.device))


def _smooth_kernel(sigma: float, size: int | None, side: int) -> NDArray[np.float32]:
    if size is not None:
        return _shortened(gaussian_kernel(sigma, size).numpy())
    line = _shortened(_pillow_kernel(sigma))
    beyond = len(line) // 2 - (side - 1)  # of what can be mirrored
    if beyond > 0:
        line = line[beyond : len(line) - beyond]
        line = line / line.sum()
    return line


def _pillow_kernel(sigma: float) -> NDArray[np.float64]:
    radius, centre, edge = box_weights(sigma)
    box = np.array([edge, *[centre] * (2 * radius + 1), edge], np.float64) / _ONE
    line = box
    for _ in range(_PASSES - 1):
        line = np.convolve(line, box)
    return line


def gaussian_kernel(sigma: float, size: int) -> Tensor:
    """(size,) weights of a line, in float64."""
    positions = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.softmax(-(positions**2) / (2 * sigma**2), 0)


def _shortened(kernel: NDArray[np.float64]) -> NDArray[np.float32]:
    """Without ends that are too small to be seen in a byte."""
    ends = min(int(np.searchsorted(kernel.cumsum(), _LEFT_OUT / 2)), len(kernel) // 2)
    return kernel[ends : len(kernel) - ends].astype(np.float32)


def _convolve(pixels: Tensor, kernel: Tensor) -> Tensor:
    """Each image with the kernel down and across, mirrored at its borders."""
    *outer, height, width = pixels.shape
    reach = len(kernel) // 2
    down, across = -(-height // _BLOCK), -(-width // _BLOCK)
    padded = functional.pad(pixels.reshape(-1, 1, height, width), (reach,) * 4, mode="reflect")
    missing = (0, across * _BLOCK - width, 0, down * _BLOCK - height)
    padded = (functional.pad(padded, missing) if any(missing) else padded).squeeze(1).contiguous()
    band = pixels.new_zeros(_BLOCK, _BLOCK + 2 * reach)
    band.as_strided((_BLOCK, len(kernel)), (band.shape[1] + 1, 1)).copy_(kernel)
    images, rows, columns = padded.shape
    windows = padded.as_strided((images, down, band.shape[1], columns), (rows * columns, _BLOCK * columns, columns, 1))
    lines = torch.matmul(band, windows).view(-1, columns)
    windows = lines.as_strided((across, len(lines), band.shape[1]), (_BLOCK, columns, 1))
    blocks = torch.matmul(windows, band.T)
    made = blocks.permute(1, 0, 2).reshape(images, down * _BLOCK, across * _BLOCK)
    return made[:, :height, :width].reshape(*outer, height, width)
