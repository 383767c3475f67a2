"""Image files of every kind become RGB: upright, on white, with their levels."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from contralex.data import images
from contralex.data.base import Split
from contralex.data.loading import ViewDataset
from contralex.kinds.datasets.hugging_face import HuggingFaceSource, HuggingFaceSplit
from contralex.kinds.datasets.limits import MAX_PIXELS
from contralex.kinds.views.augment import Augment, Crop, Group
from contralex.kinds.views.parts import CropViews
from contralex.kinds.views.transforms import trim_long_image
from contralex.plugin import ContralexError, Unreadable

RAMP = np.tile(np.linspace(0, 1, 256), (4, 1))  # (4, 256), of which each level of 8 bits is one column
LEVELS = np.arange(256)


def levels(file: Path | io.BytesIO) -> list[int]:
    """The grey levels of the first row, which must be grey."""
    pixels = np.asarray(images.decode(file, MAX_PIXELS))
    assert pixels.shape == (4, 256, 3) and (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()  # type: ignore[no-any-return]


def tiff(pixels: bytes, bits: int, white_is_zero: bool = False, sample_format: int = 1) -> io.BytesIO:
    """A TIFF of 256 x 4 grey pixels, by hand: PIL writes neither 12 bits nor inverted ones."""
    tags = [(256, 256), (257, 4), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 8), (277, 1), (278, 4)]
    tags += [(279, len(pixels)), (339, sample_format)]
    table = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    return io.BytesIO(head + pixels + struct.pack("<H", len(tags)) + table + bytes(4))


def pgm(maximum: int, plain: bool = False) -> io.BytesIO:
    values = np.round(RAMP * maximum).astype(">u2")
    if plain:
        return io.BytesIO(f"P2 256 4 {maximum} {' '.join(map(str, values.ravel()))}".encode())
    return io.BytesIO(b"P5 256 4 %d\n" % maximum + values.tobytes())


def twelve_bits() -> bytes:
    values = np.round(RAMP * 4095).astype(int).reshape(-1, 2)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.tolist())


def saved(values: NDArray[Any], name: str) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(values).save(file, name)
    return file


DEEP = {
    "PGM of 10 bits": pgm(1023),
    "PGM of 12 bits": pgm(4095),
    "PGM of 12 bits as text": pgm(4095, plain=True),
    "PGM of 16 bits": pgm(65535),
    "PNG of 16 bits": saved(np.round(RAMP * 65535).astype(np.uint16), "png"),
    "TIFF of 12 bits": tiff(twelve_bits(), 12),
    "TIFF of 16 bits": saved(np.round(RAMP * 65535).astype(np.uint16), "tiff"),
    "TIFF of 16 bits with a sign": tiff(np.round(RAMP * 32767).astype("<i2").tobytes(), 16, sample_format=2),
    "TIFF of 32 bits that holds 16": saved(np.round(RAMP * 65535).astype(np.int32), "tiff"),
    "TIFF of floats": saved(RAMP.astype(np.float32), "tiff"),
    "PFM": io.BytesIO(b"Pf\n256 4\n-1.0\n" + RAMP.astype("<f4").tobytes()),
    "JPEG 2000 of 16 bits": saved(np.round(RAMP * 65535).astype(np.uint16), "jpeg2000"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_grey_keeps_its_levels(kind: str) -> None:
    found = levels(DEEP[kind])
    assert len(set(found)) >= 255 and np.abs(np.array(found) - LEVELS).max() <= 1


@pytest.mark.parametrize("bits", [16, 32])
def test_where_zero_is_white_it_is_white(bits: int) -> None:
    values = np.round(RAMP * 65535).astype("<u2") if bits == 16 else RAMP.astype("<f4")
    found = levels(tiff(values.tobytes(), bits, white_is_zero=True, sample_format=1 if bits == 16 else 3))
    assert np.abs(np.array(found) - LEVELS[::-1]).max() <= 1


REFUSED = {
    "run from 0 to 1e+06": saved((RAMP * 1e6).astype(np.float32), "tiff"),
    "run from -1 to 1": saved((RAMP * 2 - 1).astype(np.float32), "tiff"),
    "run from nan to nan": saved(np.where(RAMP < 0.5, np.nan, RAMP).astype(np.float32), "tiff"),
    "run from 0 to 65536": saved(np.round(RAMP * 65536).astype(np.int32), "tiff"),
    "run from 0 to 255": saved(np.round(RAMP * 255).astype(np.int32), "tiff"),
    "run from -32768 to 32767": tiff((np.round(RAMP * 65535) - 32768).astype("<i2").tobytes(), 16, sample_format=2),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_grey_of_unknown_range_is_refused(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(REFUSED[reason].getvalue())
    with pytest.raises(Unreadable) as refused:
        images.read(path, MAX_PIXELS)
    assert reason in refused.value.reason and refused.value.reason.endswith("save it with 8 or 16 bits")


MODES = [
    "1",
    "L",
    "P",
    "PA",
    "RGB",
    "RGBX",
    "RGBA",
    "RGBa",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "LA",
    "La",
    "I;16",
    "I;16L",
    "I;16B",
    "I",
    "F",
]
CONVERTED = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_its_colour(mode: str) -> None:
    colour = Image.new("RGB", (6, 4), (200, 100, 50))
    if mode in ("I;16", "I;16L", "I;16B"):
        image = Image.frombytes(mode, (6, 4), struct.pack(">H" if mode == "I;16B" else "<H", 118 * 257) * 24)
    elif mode in ("I", "F"):
        scale = {"I": np.int32(118 * 257), "F": np.float32(118 / 255)}[mode]
        image = Image.fromarray(np.full((4, 6), scale))
    elif mode == "LAB":
        from PIL import ImageCms

        profiles = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
        image = ImageCms.applyTransform(colour, ImageCms.buildTransform(*profiles, "RGB", "LAB"))  # type: ignore[arg-type, assignment]
    else:
        image = colour.convert(CONVERTED[mode]) if mode in CONVERTED else colour
        image = image.convert(mode, palette=Image.Palette.ADAPTIVE)
    assert image.mode == mode
    rgb = images.to_rgb(image)
    expected = {"1": None, "L": (124,) * 3, "LA": (124,) * 3, "La": (124,) * 3}.get(
        mode, (118,) * 3 if mode[0] in "IF" else (200, 100, 50)
    )
    assert rgb.mode == "RGB" and rgb.size == (6, 4)
    if expected is None:  # black and white
        assert set(np.unique(np.asarray(rgb)).tolist()) == {0, 255}
    else:
        assert np.abs(np.asarray(rgb).astype(int) - expected).max() <= 3


def transparent() -> dict[str, Image.Image]:
    """Images of 2 x 1, the left pixel red or black under full transparency, the right one red or black without any."""
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((0, 0), (255, 0, 0, 0))
    found = {"RGBA": rgba, "RGBa": rgba.convert("RGBa"), "LA": rgba.convert("LA"), "PA": rgba.convert("PA")}
    two = Image.new("P", (2, 1))
    two.putpalette([255, 0, 0, 255, 0, 0])
    two.putpixel((1, 0), 1)
    for name, key in (("P with bytes", b"\0\xff"), ("P with a colour", 0)):
        found[name] = two.copy()
        found[name].info["transparency"] = key
    for mode, colours, key in (
        ("L", (9, 0), 9),
        ("RGB", ((9, 9, 9), (255, 0, 0)), (9, 9, 9)),
        ("1", (255, 0), 255),
        ("I;16", (700, 0), 700),
        ("RGB", ((9, 9, 9), (255, 0, 0)), (9 * 257, 9 * 257, 9 * 257)),
    ):
        name = f"{mode} with {key}"
        found[name] = Image.new(mode, (2, 1))
        for x, one in enumerate(colours):  # type: ignore[var-annotated, arg-type]
            found[name].putpixel((x, 0), one)
        found[name].info["transparency"] = key
    return found


@pytest.mark.parametrize("kind", transparent())
def test_what_is_transparent_is_white(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    rgb = images.to_rgb(transparent()[kind])
    assert rgb.getpixel((0, 0)) == (255, 255, 255)
    right = rgb.getpixel((1, 0))
    assert right in ((255, 0, 0), (0, 0, 0), (76, 76, 76))


def test_half_transparent_is_half_white() -> None:
    assert images.to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)
    assert images.to_rgb(Image.new("LA", (1, 1), (0, 128))).getpixel((0, 0)) == (127, 127, 127)


def test_pil_warns_of_nothing_on_the_screen(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 2))
    palette.putpalette([255, 0, 0] * 2)
    palette.save(tmp_path / "palette.png", transparency=b"\0\x80")
    Image.new("1", (9500, 9500)).save(tmp_path / "large.png")  # more than PIL lets pass without a word
    code = (
        "import sys, pathlib; from contralex.data import images\n"
        "for path in sys.argv[1:]: images.read(pathlib.Path(path), 10**9)"
    )
    files = [str(tmp_path / name) for name in ("palette.png", "large.png")]
    found = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert found.stderr == found.stdout == ""


@pytest.mark.parametrize("animated", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_read(animated: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, animated, save_all=True, append_images=frames[1:])
    red, _, blue = images.decode(file, MAX_PIXELS).getpixel((4, 4))  # type: ignore[misc]
    assert red > 200 and blue < 50


# --- orientation


def turned(orientation: int) -> tuple[Image.Image, Image.Image]:
    """What a camera would store, and what was before it: four coloured corners on 32 x 16 pixels."""
    scene = Image.new("RGB", (32, 16))
    for box, colour in (((0, 0), "red"), ((16, 0), "lime"), ((0, 8), "blue"), ((16, 8), "white")):
        scene.paste(colour, (*box, box[0] + 16, box[1] + 8))
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # the other turns are their own opposites
    turn = back.get(orientation, images._UPRIGHT.get(orientation))
    return (scene if turn is None else scene.transpose(turn)), scene


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("end", ["jpeg", "png", "webp", "tiff", "tiff-lzw", "avif", "mpo"])
def test_exif_orientation_is_applied_once(end: str, orientation: int, tmp_path: Path) -> None:
    stored, scene = turned(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    kind, _, compression = end.partition("-")
    options = {"compression": "tiff_lzw"} if compression else {"quality": 95} if kind in ("jpeg", "webp") else {}
    path = tmp_path / f"a.{kind}"
    stored.save(path, kind, exif=exif, **options)
    rgb = images.read(path, MAX_PIXELS)
    assert rgb.size == (32, 16)
    for x, y in ((5, 4), (26, 4), (5, 12), (26, 12)):
        assert np.abs(np.subtract(rgb.getpixel((x, y)), scene.getpixel((x, y)))).max() < 60  # type: ignore[arg-type]
    assert np.array_equal(images.to_rgb(rgb), rgb)


def test_an_orientation_behind_the_pixels_of_a_png_is_applied() -> None:
    """As libpng writes it where a program sets it after the pixels; nothing else is said in the file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(file, "png", exif=exif)
    data = file.getvalue()
    start = data.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
    end = data.index(b"IEND") - 4
    moved = data[:start] + data[stop:end] + data[start:stop] + data[end:]
    assert Image.open(io.BytesIO(moved)).info == {}
    assert images.decode(io.BytesIO(moved), MAX_PIXELS).size == (4, 8)
    assert images.to_rgb(Image.open(io.BytesIO(moved))).size == (4, 8)


def test_orientation_and_deep_grey_or_transparency_go_together(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((4, 8), 0x8000, dtype=np.uint16)).save(tmp_path / "deep.png", exif=exif)
    Image.new("LA", (8, 4), (0, 0)).save(tmp_path / "clear.png", exif=exif)
    for name, colour in (("deep", 128), ("clear", 255)):
        rgb = images.read(tmp_path / f"{name}.png", MAX_PIXELS)
        assert rgb.size == (4, 8) and rgb.getpixel((0, 0)) == (colour,) * 3


def test_damaged_metadata_cost_no_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffnonsense")
    assert images.read(tmp_path / "a.png", MAX_PIXELS).size == (4, 4)


# --- very large images


def test_a_very_large_image_names_the_field(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (60, 50)).save(path)
    assert images.read(path, 3000).size == (60, 50) and images.header_fault(path, 3000) is None
    sentence = "it has 3,000 pixels, and data.max_pixels allows 2,999\n  --set data.max_pixels=3000"
    assert images.header_fault(path, 2999) == sentence
    with pytest.raises(Unreadable) as refused:
        images.read(path, 2999)
    assert refused.value.reason == sentence

    class One(Split):
        __len__ = lambda self: 1  # noqa: E731
        __getitem__ = None  # type: ignore[assignment]

    with caplog.at_level(logging.WARNING, "contralex"):
        One().skip("a.png", sentence)
    assert caplog.messages == [f"a.png is skipped: {sentence}"]  # no full stop behind the command


def test_the_limit_may_be_raised_above_pils(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # PIL refuses what has more than twice as many
    path = tmp_path / "a.png"
    Image.new("RGB", (60, 50)).save(path)
    with pytest.raises(Unreadable, match=r"it has 3,000 pixels, and data\.max_pixels allows 2,000"):
        images.read(path, 2000)
    assert images.read(path, 3000).size == (60, 50)


class Column(list[Any]):
    """A Hugging Face data set of one column."""

    column_names = ("image",)

    def select_columns(self, names: Any) -> Column:
        return self


def test_hugging_face_images_have_the_same_law() -> None:
    def split(*found: Any, **options: Any) -> HuggingFaceSplit:
        return HuggingFaceSplit(Column({"image": one} for one in found), "x[train]", **options)

    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGBA", (8, 4), (0, 0, 0, 0)).save(file, "png", exif=exif)
    opened = Image.open(file)
    assert split(opened)[0].size == (4, 8) and split(opened)[0].getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(Unreadable, match=r"it has 32 pixels, and data\.max_pixels allows 31"):
        split(opened, max_pixels=31)[0]


# --- HEIF


def test_heif_is_registered_where_its_package_is_installed() -> None:
    code = (
        "import sys, types; module = types.ModuleType('pillow_heif')\n"
        "module.register_heif_opener = lambda: print('registered')\n"
        "sys.modules['pillow_heif'] = module; import contralex.data.images"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "registered\n"


# --- thin images


def views(size: int) -> CropViews:
    augment = Augment(crop=Crop(size=size, scale=(0.2, 1)), order=("crop",))
    return CropViews(groups={"all": Group(augment=augment, count=2)})


@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1), (3, 9999), (2, 100_001), (1, 1)])
def test_a_thin_image_is_cut_before_it_is_resized(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    resize = Image.Image.resize

    def counted(self: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return resize(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", counted)
    assert views(224).plain(Image.new("RGB", shape)).shape == (3, 224, 224)
    assert 256 * 256 <= largest <= 16 * 256 * 256


@pytest.mark.parametrize("size", [(500, 375), (100, 1600), (37, 500)])
def test_other_images_are_not_cut(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert trim_long_image(image) is image


@pytest.mark.parametrize("size", [(40, 700), (701, 40), (3, 97), (1, 60)])
@pytest.mark.parametrize("how", [v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC])
def test_the_middle_gives_the_same_square(size: tuple[int, int], how: v2.InterpolationMode) -> None:
    width, height = size
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([127 + 120 * np.sin(x / 9 + channel) * np.cos(y / 11) for channel in range(3)], -1)
    image = Image.fromarray(smooth.astype(np.uint8))
    after = v2.Compose([v2.Resize(128, how), v2.CenterCrop(112), v2.PILToTensor()])
    assert trim_long_image(image) is not image
    difference = (after(image).int() - after(trim_long_image(image)).int()).abs()
    # The long side is rounded down to whole pixels, in both ways alike to a thousandth.
    assert difference.float().mean() < 2 and difference.max() <= 16, difference.float().mean()


def test_an_item_that_none_can_stand_in_for_says_why(tmp_path: Path) -> None:
    class Broken(Split):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            raise Unreadable(f"{index}.png", "the reason")

    with pytest.raises(ContralexError, match="the reason"):
        ViewDataset(Broken(), views(32), 0, 1)[0, 0]
    assert torch.is_tensor(views(32).plain(Image.new("RGB", (8, 8))))


@pytest.mark.parametrize(("train", "test"), [("train", "train"), ("train", "train[:10%]"), ("train+test", "test")])
def test_a_hugging_face_split_is_not_trained_on_and_evaluated_on(
    train: str, test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contralex.kinds.datasets.hugging_face._open", lambda *_: Column())
    with pytest.raises(ContralexError, match="holds as well, so that it would be trained on"):
        HuggingFaceSource("x", train=train, test=test)
    assert HuggingFaceSource("x", train="train[10%:]", test="train[:10%]").test() is not None
