"""What a view went through, in phrases for people."""

from __future__ import annotations

from collections.abc import Iterator

from contralex.kinds.views.augment import Augment
from contralex.kinds.views.parameters import ColourFactors, ViewParameters

_CHANGES = ("brightness", "contrast", "saturation", "hue")


def describe(augment: Augment, drawn: ViewParameters) -> Iterator[str]:
    """A phrase for each operation that happens to the view, in the order of the augmentation."""
    for name in augment.order:
        if name == "crop" and drawn.crop is not None:
            box = drawn.crop
            yield f"crop of {box.width}×{box.height} pixels at ({box.left}, {box.top}), to {augment.crop.size}"
        elif name == "jitter" and drawn.jitter is not None:
            yield ", ".join(_colours(drawn.jitter))
        elif name == "gray" and drawn.gray:
            yield "grey"
        elif name == "flip" and drawn.flip:
            yield "mirrored"
        elif name == "blur" and drawn.blur is not None:
            yield f"blur, σ {drawn.blur:.1f} pixels"
        elif name == "solarize" and drawn.solarize:
            yield "solarised"
        elif name == "rand_augment" and drawn.rand_augment:
            yield ", ".join(f"{chosen.name} {chosen.level:.2g}" for chosen in drawn.rand_augment)
        elif name == "jigsaw" and drawn.pieces:
            yield f"{len(drawn.pieces)} pieces in random order"


def _colours(jitter: ColourFactors) -> Iterator[str]:
    for number in jitter.order:
        factor = jitter.factors[number]
        if factor is not None:
            yield f"hue {factor * 360:+.0f}°" if number == len(_CHANGES) - 1 else f"{_CHANGES[number]} ×{factor:.2f}"
