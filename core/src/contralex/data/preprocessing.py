"""How evaluation turns an image into an encoder's input, in numbers that other libraries understand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocessing:
    """From an RGB image to (3, crop, crop) float32.

    ``resize``: pixels of the short side where the ratio is kept, or of both sides (``squash``). ``crop``: pixels of the
    central square that is then taken. ``interpolation``: ``bilinear`` or ``bicubic``, antialiased, as PIL resizes.
    Pixels are divided by 255; then ``mean`` is subtracted, and the result divided by ``std``, for each channel.
    """

    resize: int
    squash: bool
    crop: int
    interpolation: str
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def crop_fraction(self) -> float:
        """timm's ``crop_pct``: the shortest number p for which ``int(crop / p)`` is ``resize``."""
        for digits in range(3, 12):
            for rounded in (round(self.crop / self.resize, digits), round(self.crop / (self.resize + 0.5), digits)):
                if int(self.crop / rounded) == self.resize:
                    return rounded
        return self.crop / (self.resize + 0.5)

    def words(self) -> str:
        """One sentence."""
        sides = f"{self.resize} x {self.resize} pixels" if self.squash else f"a short side of {self.resize} pixels"
        square = "" if self.squash and self.crop == self.resize else f", take the central {self.crop} x {self.crop}"
        scaled = (
            ""
            if self.mean == (0.0, 0.0, 0.0) and self.std == (1.0, 1.0, 1.0)
            else (f", subtract the mean {list(self.mean)}, divide by {list(self.std)}")
        )
        return f"Resize to {sides} ({self.interpolation}, antialiased){square}, divide pixels by 255{scaled}."

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "words": self.words()}
