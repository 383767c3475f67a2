"""Changes of images, compiled: the same bits as :mod:`colours` and :mod:`blurs` make, several times as fast.

numba compiles each function when it is first called, and keeps what it made on the disk. Each runs on one thread.
Nothing here is ``fastmath``, and integers have the sizes that are written: so a result is that of the tensor
operations bit by bit, but for :func:`fuse`, where a level lies on a half. Images are (3, H, W) bytes, channel after
channel.

A step is a row ``(code, a, b, c)`` of a table, which :mod:`steps` makes of drawn parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numba
import numpy as np

from contralex.kinds.views import steps
from contralex.kinds.views.blurs import KERNEL_ONE
from contralex.kinds.views.colours import LUMA
from contralex.kinds.views.fusing import FROM_YIQ, TO_YIQ

_F = TypeVar("_F", bound=Callable[..., Any])
_Array = np.ndarray[Any, Any]


def _compiled(function: _F) -> _F:
    compile_lazily: Callable[..., Any] = partial(numba.njit, nogil=True, error_model="numpy")
    try:
        made: _F = compile_lazily(cache=True)(function)
    except RuntimeError:  # where nothing can be written, each process compiles
        made = compile_lazily()(function)
    return made


_f4, _f8, _u1, _u4, _u8, _i4, _i8 = np.float32, np.float64, np.uint8, np.uint32, np.uint64, np.int32, np.int64

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = steps.BRIGHTNESS, steps.CONTRAST, steps.SATURATION, steps.HUE
_GRAY, _FLIP, _SOLARIZE, _BOXES, _KERNEL = steps.GRAY, steps.FLIP, steps.SOLARIZE, steps.BOXES, steps.KERNEL
_RED, _GREEN, _BLUE = (int(weight * 65536) for weight in LUMA)
_ONE_KERNEL = KERNEL_ONE.bit_length() - 1  # bits of a kernel's weights
_RESIZE_BITS = 22  # of Pillow's weights
_WIDE = 3  # boxes from this radius on are summed by what enters and what leaves


@_compiled
def change(images: _Array, table: _Array, kernels: _Array) -> None:
    """Each image of (N, 3, H, W) bytes through the steps (N, K, 4) of its row of the table, in place.

    ``kernels``: (M, R + 1) int32, the halves of the kernels that steps name, from their middles on.
    """
    for at in range(images.shape[0]):
        planes = images[at]
        for step in range(table.shape[1]):
            code, a, b, c = table[at, step]
            if code == _BRIGHTNESS:
                _blend(planes.reshape(-1), _f4(0), _f4(a))
            elif code == _CONTRAST:
                _blend(planes.reshape(-1), _f4(_mean_grey(planes.reshape(3, -1))), _f4(a))
            elif code == _SATURATION:
                _saturate(planes.reshape(3, -1), _f4(a))
            elif code == _HUE:
                _turn_hue(planes.reshape(3, -1), _i4(a))
            elif code == _GRAY:
                _make_gray(planes.reshape(3, -1))
            elif code == _FLIP:
                _flip(planes)
            elif code == _SOLARIZE:
                _solarize(planes.reshape(-1), _f4(a))
            elif code == _BOXES:
                _blur_by_boxes(planes, int(a), _u4(b), _u4(c))
            elif code == _KERNEL:
                _blur_by_kernel(planes, kernels[int(a), : int(b)])


@_compiled
def _blend(levels: _Array, other: Any, factor: Any) -> None:
    for at in range(levels.size):
        made = (_f4(levels[at]) - other) * factor + other
        levels[at] = _u1(_i4(min(max(made, _f4(0)), _f4(255))))


@_compiled
def _luma(red: Any, green: Any, blue: Any) -> Any:
    return _i4((_i4(red) * _i4(_RED) + _i4(green) * _i4(_GREEN) + _i4(blue) * _i4(_BLUE) + _i4(32768)) >> 16)


@_compiled
def _mean_grey(planes: _Array) -> Any:
    red, green, blue = planes[0], planes[1], planes[2]
    total = 0
    for at in range(red.size):
        total += _luma(red[at], green[at], blue[at])
    return np.floor(total / red.size + 0.5)


@_compiled
def _saturate(planes: _Array, factor: Any) -> None:
    red, green, blue = planes[0], planes[1], planes[2]
    for at in range(red.size):
        grey = _f4(_luma(red[at], green[at], blue[at]))
        red[at] = _u1(_i4(min(max((_f4(red[at]) - grey) * factor + grey, _f4(0)), _f4(255))))
        green[at] = _u1(_i4(min(max((_f4(green[at]) - grey) * factor + grey, _f4(0)), _f4(255))))
        blue[at] = _u1(_i4(min(max((_f4(blue[at]) - grey) * factor + grey, _f4(0)), _f4(255))))


@_compiled
def _turn_hue(planes: _Array, steps: Any) -> None:
    """As :func:`colours.adjust_hue`, where the formula is explained, in one pass."""
    red, green, blue = planes[0], planes[1], planes[2]
    for at in range(red.size):
        r, g, b = _f4(red[at]), _f4(green[at]), _f4(blue[at])
        value = max(max(r, g), b)
        chroma = value - min(min(r, g), b)
        saturation = _f4(np.floor(_f8(chroma / max(value, _f4(1))) * 255.0))
        is_red, is_green = r == value, g == value
        apart = (g - b) if is_red else ((b - r) if is_green else (r - g))
        sector = _f4(0) if is_red else (_f4(2) if is_green else _f4(4))
        direction = _f4(1) if apart > _f4(0) else (_f4(-1) if apart < _f4(0) else _f4(0))
        quotient = (chroma - abs(apart)) / max(chroma, _f4(1)) * direction
        sixths = sector + direction - quotient
        turns = _f8(sixths) / 6.0 + 1.0
        hue = _i4(_f8(_f4(turns - np.floor(turns))) * 255.0)
        turned = _f4(((hue + steps) & 255) * 6)
        weight = saturation * value
        full = value * _f4(65025) + _f4(32512)
        from_red = min(max(abs(turned - _f4(765)) - _f4(255), _f4(0)), _f4(255))
        from_green = min(max(abs(turned - _f4(510)) - _f4(255), _f4(0)), _f4(255))
        from_blue = min(max(abs(turned - _f4(1020)) - _f4(255), _f4(0)), _f4(255))
        red[at] = _u1(_i4((full - weight * _f4(255) + weight * from_red) / _f4(65025)))
        green[at] = _u1(_i4((full - weight * from_green) / _f4(65025)))
        blue[at] = _u1(_i4((full - weight * from_blue) / _f4(65025)))


@_compiled
def _make_gray(planes: _Array) -> None:
    red, green, blue = planes[0], planes[1], planes[2]
    for at in range(red.size):
        grey = _u1(_luma(red[at], green[at], blue[at]))
        red[at] = grey
        green[at] = grey
        blue[at] = grey


@_compiled
def _flip(planes: _Array) -> None:
    line = np.empty(planes.shape[2], planes.dtype)
    for channel in range(planes.shape[0]):
        for y in range(planes.shape[1]):
            row = planes[channel, y]
            _copy(row, line)
            _mirror_line(line, row)


@_compiled
def _copy(source: _Array, target: _Array) -> None:
    """Line by line in a loop: numba's own assignment of a part of an array takes ten times as long."""
    for at in range(source.size):
        target[at] = source[at]


@_compiled
def _mirror_line(source: _Array, target: _Array) -> None:
    """Indices without a sign, which cannot count from the end: only then several pixels are read at once."""
    last = _u8(source.size - 1)
    for at in range(_u8(source.size)):
        target[at] = source[last - at]


@_compiled
def _solarize(levels: _Array, threshold: Any) -> None:
    for at in range(levels.size):
        levels[at] = 255 - levels[at] if _f4(levels[at]) >= threshold else levels[at]


@_compiled
def _blur_by_boxes(planes: _Array, radius: int, centre: Any, edge: Any) -> None:
    """As :func:`blurs.blur_as_pillow`."""
    channels, height, width = planes.shape
    reach = radius + 1
    columns = width + 2 * reach
    here = np.zeros((height + 2 * reach, columns), np.uint8)
    there = np.zeros((height + 2 * reach, columns), np.uint8)
    for channel in range(channels):
        for y in range(height):
            _copy(planes[channel, y], here[reach + y, reach : reach + width])
        for _ in range(3):
            for y in range(reach, reach + height):
                for beyond in range(reach):
                    here[y, beyond] = here[y, reach]
                    here[y, reach + width + beyond] = here[y, reach + width - 1]
            _box(here.reshape(-1), there.reshape(-1), 1, radius, centre, edge)
            here, there = there, here
        for _ in range(3):
            for beyond in range(reach):
                _copy(here[reach], here[beyond])
                _copy(here[reach + height - 1], here[reach + height + beyond])
            _box(here.reshape(-1), there.reshape(-1), columns, radius, centre, edge)
            here, there = there, here
        for y in range(height):
            _copy(here[reach + y, reach : reach + width], planes[channel, y])


@_compiled
def _box(source: _Array, target: _Array, step: int, radius: int, centre: Any, edge: Any) -> None:
    """One box filter along ``step`` over a padded plane, as one long line: what it makes of the padding is not used."""
    reach = radius + 1
    count = target.size - 2 * reach * step
    out = target[reach * step : reach * step + count]
    first, last = source[:count], source[2 * reach * step : 2 * reach * step + count]
    middle = source[step : step + count]
    half = _u4(1 << 23)
    if radius == 0:
        for at in range(count):
            ends = _u4(first[at]) + _u4(last[at])
            out[at] = _u1(_u4(_u4(middle[at]) * centre + ends * edge + half) >> _u4(24))
        return
    if radius == 1:  # in one pass, as above; larger ones are rare
        left, right = source[step : step + count], source[3 * step : 3 * step + count]
        middle = source[2 * step : 2 * step + count]
        for at in range(count):
            total = _u4(_u4(left[at]) + _u4(middle[at]) + _u4(right[at]))
            ends = _u4(first[at]) + _u4(last[at])
            out[at] = _u1(_u4(total * centre + ends * edge + half) >> _u4(24))
        return
    sums = np.empty(count, np.uint32)
    if radius >= _WIDE:
        entering = source[(2 * radius + 1) * step : (2 * radius + 1) * step + count]
        for at in range(min(step, count)):
            total = _u4(0)
            for number in range(1, 2 * radius + 2):
                total += _u4(source[at + number * step])
            sums[at] = total
        for at in range(step, count):
            sums[at] = _u4(sums[at - step] + _u4(entering[at]) - _u4(first[at]))
    else:
        for at in range(count):
            sums[at] = middle[at]
        for number in range(2, 2 * radius + 2):
            more = source[number * step : number * step + count]
            for at in range(count):
                sums[at] = _u4(sums[at] + _u4(more[at]))
    for at in range(count):
        ends = _u4(first[at]) + _u4(last[at])
        out[at] = _u1(_u4(sums[at] * centre + ends * edge + half) >> _u4(24))


@_compiled
def _blur_by_kernel(planes: _Array, kernel: _Array) -> None:
    """As :func:`blurs.blur_as_torchvision`: in whole numbers, so that no order of the sums matters."""
    channels, height, width = planes.shape
    reach = kernel.size - 1
    line = np.empty(width + 2 * reach, np.int32)
    rows = np.empty((height + 2 * reach, width), np.int32)
    sums = np.empty(width, np.int64)
    for channel in range(channels):
        for y in range(height):
            _copy(planes[channel, y], line[reach : reach + width])
            _mirror(line, reach)
            _weigh_line(line, kernel, rows[reach + y])
        _mirror_rows(rows, reach)
        for y in range(height):
            middle, weight = rows[reach + y], _i8(kernel[0])
            for x in range(width):
                sums[x] = _i8(middle[x]) * weight + (1 << (2 * _ONE_KERNEL - 1))
            for apart in range(1, reach + 1):
                above, below = rows[reach + y - apart], rows[reach + y + apart]
                weight = _i8(kernel[apart])
                for x in range(width):
                    sums[x] += _i8(_i4(above[x] + below[x])) * weight
            out = planes[channel, y]
            for x in range(width):
                out[x] = _u1(sums[x] >> (2 * _ONE_KERNEL))


@_compiled
def _weigh_line(line: _Array, kernel: _Array, out: _Array) -> None:
    reach, width = kernel.size - 1, out.size
    middle, weight = line[reach : reach + width], kernel[0]
    for x in range(width):
        out[x] = _i4(middle[x] * weight)
    for apart in range(1, reach + 1):
        before, after = line[reach - apart : reach - apart + width], line[reach + apart : reach + apart + width]
        weight = kernel[apart]
        for x in range(width):
            out[x] = _i4(out[x] + _i4(_i4(before[x] + after[x]) * weight))


@_compiled
def _mirror(line: _Array, reach: int) -> None:
    last = line.size - reach - 1
    for apart in range(1, reach + 1):
        line[reach - apart] = line[reach + apart]
        line[last + apart] = line[last - apart]


@_compiled
def _mirror_rows(rows: _Array, reach: int) -> None:
    last = rows.shape[0] - reach - 1
    for apart in range(1, reach + 1):
        _copy(rows[reach + apart], rows[reach - apart])
        _copy(rows[last - apart], rows[last + apart])


@_compiled
def normalize(levels: _Array, mean: _Array, std: _Array, out: _Array) -> None:
    """Bytes or floats (N, 3, P) to [0, 1], then less the mean and divided by the deviation, as float32 into ``out``."""
    for at in range(levels.shape[0]):
        for channel in range(3):
            source, target, less, by = levels[at, channel], out[at, channel], mean[channel], std[channel]
            for pixel in range(source.size):
                target[pixel] = (_f4(source[pixel]) * _f4(1 / 255) - less) / by


@_compiled
def scale(levels: _Array, out: _Array) -> None:
    """Bytes or floats to [0, 1], as float32 into ``out``."""
    for at in range(levels.size):
        out[at] = _f4(levels[at]) * _f4(1 / 255)


@_compiled
def enlarge(levels: _Array, places: _Array, is_bicubic: bool, out: _Array) -> None:
    """Crops of small images to (N, 3, S, S) bytes, as Pillow resizes those that are no larger, across and then down.

    ``levels``: all images, one after the other, as Pillow holds them; ``places`` (N, 6): where in it an image begins,
    its width, and its crop's top, left, height and width. Source: ImagingResample of Pillow's Resample.c.
    """
    size = out.shape[-1]
    half = _i4(1 << (_RESIZE_BITS - 1))
    for at in range(len(places)):
        start, across, top, left, height, width = places[at]
        begins, weights = _enlarging_weights(width, size, is_bicubic)
        taps = weights.shape[1]
        # Rows of channels, each of which has `size` pixels: in the second pass a row is weighed as a whole.
        narrow = np.empty((height, 3 * size), np.uint8)
        for y in range(height):
            row = levels[start + 3 * ((top + y) * across + left) : start + 3 * ((top + y) * across + left + width)]
            into = narrow[y]
            for x in range(size):
                begin = 3 * begins[x]
                red = green = blue = half
                for tap in range(min(taps, width - begins[x])):
                    weight = weights[x, tap]
                    red = _i4(red + _i4(row[begin + 3 * tap]) * weight)
                    green = _i4(green + _i4(row[begin + 3 * tap + 1]) * weight)
                    blue = _i4(blue + _i4(row[begin + 3 * tap + 2]) * weight)
                into[x] = _clip(red)
                into[size + x] = _clip(green)
                into[2 * size + x] = _clip(blue)
        begins, weights = _enlarging_weights(height, size, is_bicubic)
        sums = np.empty(3 * size, np.int32)
        for y in range(size):
            sums[:] = half
            for tap in range(min(weights.shape[1], height - begins[y])):
                row, weight = narrow[begins[y] + tap], weights[y, tap]
                for x in range(3 * size):
                    sums[x] = _i4(sums[x] + _i4(row[x]) * weight)
            for channel in range(3):
                part, into = sums[channel * size : (channel + 1) * size], out[at, channel, y]
                for x in range(size):
                    into[x] = _clip(part[x])


@_compiled
def _clip(total: Any) -> Any:
    return _u1(min(max(_i4(total >> _RESIZE_BITS), _i4(0)), _i4(255)))


@_compiled
def _enlarging_weights(length: int, size: int, is_bicubic: bool) -> Any:
    """Where each of ``size`` pixels begins among ``length`` ones, and its weights (size, taps), as whole numbers."""
    step, reach = length / size, 2 if is_bicubic else 1
    begins, weights, line = np.empty(size, np.int64), np.zeros((size, 2 * reach + 1), np.int32), np.empty(2 * reach + 1)
    for at in range(size):
        centre = (at + 0.5) * step
        begin, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), length)
        total = 0.0
        for tap in range(end - begin):
            apart = abs(tap + begin - centre + 0.5)
            if apart >= reach:
                line[tap] = 0.0
            elif not is_bicubic:
                line[tap] = 1.0 - apart
            elif apart < 1.0:
                line[tap] = (1.5 * apart - 2.5) * apart * apart + 1
            else:
                line[tap] = (((apart - 5) * apart + 8) * apart - 4) * -0.5
            total += line[tap]
        for tap in range(end - begin):
            weight = line[tap] / total
            weights[at, tap] = int((-0.5 if weight < 0 else 0.5) + weight * (1 << _RESIZE_BITS))
        begins[at] = begin
    return begins, weights


@_compiled
def split_channels(pixels: _Array, out: _Array) -> None:
    """(P,) uint32 pixels, whose first byte is red, to (3, P) bytes: whole pixels are read several at once."""
    red, green, blue = out[0], out[1], out[2]
    for at in range(pixels.size):
        pixel = pixels[at]
        red[at] = _u1(pixel)
        green[at] = _u1(pixel >> _u4(8))
        blue[at] = _u1(pixel >> _u4(16))


@_compiled
def fuse(images: _Array, table: _Array, kernels: _Array) -> None:
    """As :func:`change`, but all steps up to one that is not linear are one map, whose result alone is rounded.

    ``kernels`` are float32 here, and all blurs have one.
    """
    room = np.empty(images.shape[1:], np.float32)
    for at in range(images.shape[0]):
        planes = images[at]
        made = np.eye(4)
        changed = is_mirrored = False
        blur = -1
        for step in range(table.shape[1]):
            code, a = table[at, step, 0], table[at, step, 1]
            if code == _SOLARIZE:
                _finish(planes, room, made, changed, is_mirrored, blur, kernels)
                _solarize(planes.reshape(-1), _f4(a))
                made, changed, is_mirrored, blur = np.eye(4), False, False, -1
            elif code == _FLIP:
                is_mirrored = not is_mirrored
            elif code == _KERNEL:
                blur = int(a)
            elif code >= 0:
                changed = True
                mean = _means(planes.reshape(3, -1)) if code == _CONTRAST else np.ones(4)
                made = _multiply(_colour_map(int(code), a, made, mean), made)
        _finish(planes, room, made, changed, is_mirrored, blur, kernels)


@_compiled
def _means(planes: _Array) -> _Array:
    """(4,) of the three channels, and 1."""
    means = np.ones(4)
    for channel in range(3):
        total = _i8(0)
        for level in planes[channel]:
            total += _i8(level)
        means[channel] = total / planes.shape[1]
    return means


@_compiled
def _multiply(one: _Array, other: _Array) -> _Array:
    made = np.zeros((4, 4))
    for row in range(4):
        for column in range(4):
            for at in range(4):
                made[row, column] += one[row, at] * other[at, column]
    return made


@_compiled
def _colour_map(code: int, factor: float, before: _Array, mean: _Array) -> _Array:
    """(4, 4) one change after the map ``before``: see :mod:`fusing`."""
    made = np.eye(4)
    if code == _HUE:
        cosine, sine = np.cos(2 * np.pi * factor), np.sin(2 * np.pi * factor)
        made[1, 1], made[1, 2], made[2, 1], made[2, 2] = cosine, sine, -sine, cosine
        return _multiply(FROM_YIQ, _multiply(made, TO_YIQ))
    kept = 0.0 if code == _GRAY else factor
    for channel in range(3):
        made[channel, channel] = kept
        if code in (_SATURATION, _GRAY):
            for of in range(3):
                made[channel, of] += (1 - kept) * LUMA[of]
        elif code == _CONTRAST:
            for of in range(3):
                for at in range(4):
                    made[channel, 3] += (1 - factor) * LUMA[of] * before[of, at] * mean[at]
    return made


@_compiled
def _finish(
    planes: _Array, room: _Array, made: _Array, changed: bool, is_mirrored: bool, blur: int, kernels: _Array
) -> None:
    """The bytes of an image through the map, mirrored and blurred."""
    if blur >= 0:
        _recolour(planes, made.astype(np.float32), is_mirrored, room, _f4(0))
        _blur_smoothly(room, kernels[blur], planes)
    elif changed:
        _recolour(planes, made.astype(np.float32), is_mirrored, planes, _f4(0.5))
    elif is_mirrored:
        _flip(planes)


@_compiled
def _recolour(planes: _Array, made: _Array, is_mirrored: bool, out: _Array, half: Any) -> None:
    """Into floats as they are, or into bytes, for which ``half`` is added, and which may be the image's own."""
    width = planes.shape[2]
    lines = np.empty((3, width), np.float32)
    mirrored = np.empty(width, np.float32)
    red, green, blue = lines[0], lines[1], lines[2]
    rr, rg, rb, r1 = made[0]
    gr, gg, gb, g1 = made[1]
    br, bg, bb, b1 = made[2]
    for y in range(planes.shape[1]):
        reds, greens, blues = planes[0, y], planes[1, y], planes[2, y]
        for x in range(width):
            r, g, b = _f4(reds[x]), _f4(greens[x]), _f4(blues[x])
            red[x] = rr * r + rg * g + rb * b + r1 + half
            green[x] = gr * r + gg * g + gb * b + g1 + half
            blue[x] = br * r + bg * g + bb * b + b1 + half
        for channel in range(3):
            line, into = lines[channel], out[channel, y]
            if is_mirrored:
                _mirror_line(line, mirrored)
                line = mirrored
            if half:
                for x in range(width):
                    into[x] = _u1(_i4(min(max(line[x], _f4(0)), _f4(255))))
            else:
                for x in range(width):
                    into[x] = line[x]


@_compiled
def _blur_smoothly(planes: _Array, kernel: _Array, out: _Array) -> None:
    """Floats into bytes."""
    channels, height, width = planes.shape
    reach = kernel.size - 1
    while reach > 0 and kernel[reach] == 0:
        reach -= 1
    line = np.empty(width + 2 * reach, np.float32)
    rows = np.empty((height + 2 * reach, width), np.float32)
    sums = np.empty(width, np.float32)
    for channel in range(channels):
        for y in range(height):
            _copy(planes[channel, y], line[reach : reach + width])
            _mirror(line, reach)
            middle, across, weight = line[reach : reach + width], rows[reach + y], kernel[0]
            for x in range(width):
                across[x] = middle[x] * weight
            for apart in range(1, reach + 1):
                before, after = line[reach - apart : reach - apart + width], line[reach + apart : reach + apart + width]
                weight = kernel[apart]
                for x in range(width):
                    across[x] += (before[x] + after[x]) * weight
        _mirror_rows(rows, reach)
        for y in range(height):
            middle, weight = rows[reach + y], kernel[0]
            for x in range(width):
                sums[x] = middle[x] * weight + _f4(0.5)
            for apart in range(1, reach + 1):
                above, below = rows[reach + y - apart], rows[reach + y + apart]
                weight = kernel[apart]
                for x in range(width):
                    sums[x] += (above[x] + below[x]) * weight
            into = out[channel, y]
            for x in range(width):
                into[x] = _u1(_i4(min(max(sums[x], _f4(0)), _f4(255))))


@_compiled
def read_words(seeds: _Array, count: int) -> _Array:
    """(N, count) uint32: what a Mersenne Twister gives first after each seed, of which it takes 32 bits.

    Source: Matsumoto & Nishimura, 1998; ATen/core/MT19937RNGEngine.h.
    """
    words = np.empty((len(seeds), count), np.uint32)
    length, apart = 624, 397
    state = np.empty(apart + count + 1, np.uint32)  # as much of it as the first words need
    for at in range(len(seeds)):
        state[0] = _u4(seeds[at] & np.uint64(0xFFFFFFFF))
        for number in range(1, min(length, apart + count + 1)):
            before = state[number - 1]
            state[number] = _u4(_u4(1812433253) * _u4(before ^ (before >> _u4(30))) + _u4(number))
        for number in range(count):
            joined = _u4((state[number] & _u4(0x80000000)) | (state[number + 1] & _u4(0x7FFFFFFF)))
            word = _u4(state[number + apart] ^ (joined >> _u4(1)))
            if joined & _u4(1):
                word = _u4(word ^ _u4(0x9908B0DF))
            word = _u4(word ^ (word >> _u4(11)))
            word = _u4(word ^ (_u4(word << _u4(7)) & _u4(0x9D2C5680)))
            word = _u4(word ^ (_u4(word << _u4(15)) & _u4(0xEFC60000)))
            words[at, number] = _u4(word ^ (word >> _u4(18)))
    return words


@_compiled
def draw(words: _Array, ratios: _Array, sizes: _Array, codes: _Array, numbers: _Array) -> _Array:
    """(N, 18) the parameters of views, from ``words`` (N, W) of a generator, as :mod:`parameters` draws them: whether a
    crop fitted, then top, left, height and width; whether colours change, their order, and four factors; grey,
    mirrored, σ, and solarised. NaN: none. ``sizes``: (N, 2) widths and heights of images; ``ratios``: (N, attempts)
    those of crops; ``codes`` (K,) and ``numbers`` (K, 9): the operations, see :mod:`drawing`."""
    made = np.zeros((len(words), 18))
    for at in range(len(words)):
        row, read = made[at], words[at]
        row[16] = np.nan
        used = _draw_crop(read, ratios[at], sizes[at], numbers[0], row)
        for step in range(1, len(codes) if row[0] else 0):
            code, number = codes[step], numbers[step]
            if code != _HUE or number[0] != 1:  # as torchvision, which asks no number for colours that always change
                used += 1
                if _fraction(read[used - 1]) >= number[0]:
                    continue
            if code == _HUE:
                used = _draw_colours(read, used, number, row)
            elif code == _GRAY:
                row[14] = 1
            elif code == _FLIP:
                row[15] = 1
            elif code == _KERNEL:
                row[16] = _uniform(read[used], number[1], number[2])
                used += 1
            elif code == _SOLARIZE:
                row[17] = 1
    return made


@_compiled
def _draw_crop(words: _Array, ratios: _Array, size: _Array, number: _Array, row: _Array) -> int:
    """How many words were used."""
    width, height = size
    area = height * width
    for attempt in range(len(ratios)):
        target = area * _uniform(words[2 * attempt], number[1], number[2])
        ratio = _f8(ratios[attempt])
        across, down = int(np.rint(np.sqrt(target * ratio))), int(np.rint(np.sqrt(target / ratio)))
        if 0 < across <= width and 0 < down <= height:
            used = 2 * attempt + 2
            row[0] = 1
            row[1] = _i8(words[used]) % (height - down + 1)
            row[2] = _i8(words[used + 1]) % (width - across + 1)
            row[3] = down
            row[4] = across
            return used + 2
    return 0


@_compiled
def _draw_colours(words: _Array, used: int, number: _Array, row: _Array) -> int:
    """How many words were used, those before included."""
    row[5] = 1
    order = row[6:10]
    for change in range(4):
        order[change] = change
    for change in range(3):
        other = change + _i8(words[used]) % (4 - change)
        used += 1
        order[change], order[other] = order[other], order[change]
    for change in range(4):
        row[10 + change] = np.nan
        if not np.isnan(number[1 + 2 * change]):
            row[10 + change] = _uniform(words[used], number[1 + 2 * change], number[2 + 2 * change])
            used += 1
    return used


@_compiled
def _fraction(word: Any) -> Any:
    return _i8(word & _u4(0xFFFFFF)) / 16777216.0


@_compiled
def _uniform(word: Any, start: Any, width: Any) -> Any:
    return _f8(_f4(_fraction(word) * width + start))
