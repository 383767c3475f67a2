"""scikit-learn's handwritten digits, as they are or as scenes in which pixels say little."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contralex.data.base import Source, Split, index_bytes
from contralex.data.fingerprints import digest
from contralex.errors import ContralexError

SIZE = 32  # pixels of a picture's side
TEST = 360  # of 1797 digits, the same whatever the scene and its seed
SPLIT_SEED = 20240

# The hard scene. Luminance runs from 0 to 255.
DIGIT_SIZE = (18, 24)  # pixels of the digit's box
CONTRAST = (100.0, 130.0)  # between the digit's luminance and the background's mean
DIGIT_CHROMA = (0.0, 45.0)
GROUND_CHROMA = (40.0, 100.0)
GROUND_SWING = (5.0, 20.0)  # luminance from the middle to the extremes of a texture
GRAIN = 4.0  # standard deviation of the noise of single pixels

Array = NDArray[np.float64]


class DigitsSource(Source):
    """1437 pictures of 32x32 pixels to train on, and 360 to evaluate on (sklearn.datasets.load_digits).

    ``scene``: the ``plain`` digit, or one at a random place, in a random colour on a random texture (``hard``), so that
    raw pixels are a weak baseline. ``seed`` draws the scenes.
    """

    def __init__(self, scene: Literal["plain", "hard"] = "hard", seed: int = 0) -> None:
        images, labels = _load()
        pictures = _draw_pictures(images.tobytes(), scene, seed)
        train, test = _split(labels)
        self._train = DigitsSplit(pictures, labels, train)
        self._test = DigitsSplit(pictures, labels, test)

    def train(self) -> DigitsSplit:
        return self._train

    def test(self) -> DigitsSplit:
        return self._test


class DigitsSplit(Split):
    labels: Sequence[int]

    def __init__(self, pictures: Sequence[Image.Image], labels: NDArray[np.int64], which: NDArray[np.int64]) -> None:
        super().__init__()
        self._pictures: list[Image.Image] = [pictures[index] for index in which.tolist()]
        self.labels = labels[which].tolist()
        self.classes = [str(digit) for digit in range(10)]

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Image.Image:
        return self._pictures[index]

    def fingerprint(self) -> str:
        return digest([index_bytes(self.labels), *(picture.tobytes() for picture in self._pictures)])

    def cache_key(self) -> str:
        return self.fingerprint()


@lru_cache(maxsize=2)  # 5.5 MB each; a run and its evaluations ask for the same ones, and drawing takes a second
def _draw_pictures(strokes: bytes, scene: Literal["plain", "hard"], seed: int) -> tuple[Image.Image, ...]:
    """A picture for each stroke (8, 8) in float64."""
    return tuple(
        _draw_plain(image) if scene == "plain" else _draw_hard(image, np.random.default_rng([seed, index]))
        for index, image in enumerate(np.frombuffer(strokes).reshape(-1, 8, 8))
    )


def _load() -> tuple[Array, NDArray[np.int64]]:
    """Strokes (1797, 8, 8) in [0, 1], and labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ContralexError(
            "data.kind digits comes with scikit-learn, which is not installed; run: pip install 'contralex[digits]'"
        ) from error
    found: Any = load_digits()
    return found.images / 16, found.target.astype(np.int64)


def _split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and to evaluate on. Every fifth of the digits in the order of their class, so that each
    class has its part; random inside a class, because the file's neighbours are by the same writer."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.sort(order[np.arange(TEST) * len(labels) // TEST])
    return np.setdiff1d(np.arange(len(labels)), test), test


def _draw_plain(stroke: Array) -> Image.Image:
    return Image.fromarray((_resize(stroke, SIZE) * 255).astype(np.uint8)).convert("RGB")


def _draw_hard(stroke: Array, rng: np.random.Generator) -> Image.Image:
    """The digit on a texture. Only the strokes' shape tells the class: place, size, colour and polarity (bright
    on dark or dark on bright) are drawn. Textures are of a few mild kinds, so that they do not tell one picture
    from every other; they would be the easier thing to learn."""
    bright = rng.random() < 0.5  # the digit, on a darker ground
    contrast = rng.uniform(*CONTRAST)
    ground_light = rng.uniform(35, 215 - contrast)  # leaves room for the digit's light below 250
    if not bright:
        ground_light = 250 - ground_light
    digit_light = ground_light + (contrast if bright else -contrast)

    swing = rng.uniform(*GROUND_SWING) * _texture(rng)  # (SIZE, SIZE)
    ground = _colour(ground_light, rng.uniform(*GROUND_CHROMA), rng) + swing[..., None]
    digit = _colour(digit_light, rng.uniform(*DIGIT_CHROMA), rng)

    size = int(rng.integers(DIGIT_SIZE[0], DIGIT_SIZE[1] + 1))
    left, top = rng.integers(0, SIZE - size + 1, 2)
    ink = np.zeros((SIZE, SIZE, 1))
    ink[top : top + size, left : left + size, 0] = np.clip(_resize(stroke, size) * 1.5 - 0.25, 0, 1)

    picture = ground * (1 - ink) + digit * ink + rng.normal(0, GRAIN, (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _texture(rng: np.random.Generator) -> Array:
    """(SIZE, SIZE) in [-1, 1]: a slope, stripes, or clouds."""
    kind = rng.integers(3)
    if kind == 2:
        return _resize(rng.uniform(-1, 1, (4, 4)), SIZE)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, SIZE)
    along = np.cos(angle) * across[:, None] + np.sin(angle) * across[None, :]
    if kind == 1:
        along = np.sin(along * np.pi * rng.uniform(1.0, 2.5) + rng.uniform(0, 2 * np.pi))
    found: Array = np.clip(along, -1, 1)
    return found


def _colour(light: float, chroma: float, rng: np.random.Generator) -> Array:
    """(3,) a colour of random hue with exactly this luminance (ITU-R 601)."""
    hue = rng.uniform(0, 2 * np.pi)
    rgb = chroma * np.cos(hue + 2 * np.pi / 3 * np.arange(3))
    found: Array = rgb + light - rgb @ (0.299, 0.587, 0.114)
    return found


def _resize(values: Array, size: int) -> Array:
    """(h, w) to (size, size), bicubic; values stay in the range that they had."""
    image = Image.fromarray(values.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image, dtype=np.float64), values.min(), values.max())
