"""Ordinary JPEG files are read by a shorter way, with the pixels and the refusals of Pillow's longer one."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from contralex.data import images, jpeg
from contralex.data.photographs import Photograph, open_image
from contralex.kinds.datasets.folder import FolderSource
from contralex.kinds.datasets.limits import MAX_PIXELS
from contralex.plugin import Unreadable

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")

SIZE = (61, 43)
ORIENTATION = 0x0112


def scene(size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    """Coarse colours with fine noise."""
    rng = np.random.default_rng(7)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size)
    noise = rng.integers(-20, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse, int) + noise, 0, 255).astype(np.uint8)).convert(mode)


def saved(image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or scene()).save(file, **{"format": "JPEG", **options})
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def with_segment(marker: int, content: bytes, data: bytes | None = None) -> bytes:
    data = data or saved()
    return data[:2] + segment(marker, content) + data[2:]


def exif(turn: int) -> Image.Exif:
    found = Image.Exif()
    found[ORIENTATION] = turn
    return found


def turned(turn: int) -> bytes:
    return saved(exif=exif(turn))


def ycck() -> bytes:
    """Pillow writes CMYK without a change of colours; the byte that says so is changed."""
    data = bytearray(saved(scene(mode="CMYK")))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def several() -> bytes:
    return saved(format="MPO", save_all=True, append_images=[scene((9, 9))])


XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'

ORDINARY: dict[str, Callable[[], bytes]] = {
    "plain": saved,
    "444": lambda: saved(subsampling=0, quality=95),
    "422": lambda: saved(subsampling=1),
    "420": lambda: saved(subsampling=2, quality=20),
    "progressive": lambda: saved(progressive=True),
    "optimized": lambda: saved(optimize=True),
    "restarts": lambda: saved(restart_marker_blocks=2),
    "grey": lambda: saved(scene(mode="L")),
    "grey, progressive": lambda: saved(scene(mode="L"), progressive=True),
    "stored as RGB": lambda: saved(keep_rgb=True),
    "a pixel": lambda: saved(scene((1, 1))),
    "a row": lambda: saved(scene((997, 1))),
    "a column": lambda: saved(scene((1, 997))),
    "several blocks of Pillow's": lambda: saved(scene((701, 499)), quality=98),
    "several blocks, progressive": lambda: saved(scene((701, 499)), quality=98, progressive=True),
    "colour profile": lambda: saved(icc_profile=bytes(70_000)),
    "resolution": lambda: saved(dpi=(300, 300)),
    "comment": lambda: saved(comment=b"of a camera"),
    "of an application": lambda: with_segment(0xEC, b"Ducky"),
    "Adobe's": lambda: with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01"),
    "more behind the end": lambda: saved() + bytes(1000),
    "no JFIF": lambda: saved()[:2] + saved()[20:],
}
OTHERS: dict[str, Callable[[], bytes]] = {
    **{f"turned {turn}": partial(turned, turn) for turn in range(1, 9)},
    "turned by XMP": lambda: with_segment(0xE1, XMP),
    "turned, grey": lambda: saved(scene(mode="L"), exif=exif(6)),
    "damaged EXIF": lambda: with_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "CMYK": lambda: saved(scene(mode="CMYK")),
    "YCCK": ycck,
    "several pictures": several,
    "Photoshop's": lambda: with_segment(0xED, b"Photoshop 3.0\0" + bytes(20)),
    "filled up": lambda: saved()[:2] + b"\xff\xff" + saved()[2:],
    "no JPEG": lambda: saved(format="PNG"),
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "empty": bytes,
    "three bytes": lambda: saved()[:3],
    "truncated in the header": lambda: saved()[:100],
    "truncated in a segment": lambda: saved()[:25],
    "truncated in the pixels": lambda: saved()[:-200],
    "truncated, progressive": lambda: saved(progressive=True)[:-200],
    "without an end": lambda: saved()[:-2],
    "12 bits": lambda: saved().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    "no height": lambda: saved().replace(b"\0\x11\x08\0\x2b", b"\0\x11\x08\0\0"),
    "short JFIF": lambda: with_segment(0xE0, b"JFIF\0"),
    "short Adobe": lambda: with_segment(0xEE, b"Adobe"),
    "short colour profile": lambda: with_segment(0xE2, b"ICC_PROFILE\0"),
    "damaged Photoshop": lambda: with_segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    "a table of half its length": lambda: with_segment(0xDB, bytes(30)),
    "a table of 16 bits, of half its length": lambda: with_segment(0xDB, b"\x10" + bytes(64)),
    "two frames": lambda: saved().replace(b"\xff\xc4", segment(0xC0, b"\x08\0\x08\0\x08\x01\1\x11\0") + b"\xff\xc4", 1),
    "no frame": lambda: saved().replace(b"\xff\xc0", b"\xff\xef"),
    "words": lambda: b"\xff\xd8\xff" + b"not an image" * 50,
}


def by_pillow(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def outcome(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[Any, ...]:
    """What reading a file gives: pixels, or the words of its refusal."""
    try:
        image = images.read(path, max_pixels)
    except Unreadable as fault:
        return fault.path, fault.reason
    assert image.mode == "RGB" and not image.info
    return image.size, image.tobytes()


def longer_outcome(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[Any, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "read", lambda *_: None)
        return outcome(path, max_pixels)


@pytest.mark.parametrize("kind", ORDINARY)
def test_an_ordinary_file_has_pillows_pixels_by_the_shorter_way(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(data := ORDINARY[kind]())
    for file in (path, str(path), io.BytesIO(data)):
        image = jpeg.read(file, MAX_PIXELS)
        assert image is not None
        assert image.mode == "RGB" and not image.info
        assert image.tobytes() == by_pillow(data).tobytes()
    assert outcome(path) == longer_outcome(path)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_go_the_longer_way(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(data := OTHERS[kind]())
    assert jpeg.read(path, MAX_PIXELS) is None
    assert outcome(path)[1] == by_pillow(data).tobytes()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_is_that_of_the_longer_way(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(REFUSED[kind]())
    named, reason = outcome(path)
    assert named == str(path) and isinstance(reason, str)
    assert (named, reason) == longer_outcome(path)


@pytest.mark.parametrize("kind", ["plain", "progressive", "several blocks of Pillow's", "restarts", "colour profile"])
def test_damaged_files_are_read_or_refused_as_by_the_longer_way(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    whole = ORDINARY[kind]()
    path = tmp_path / "image.jpg"
    seen = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            at = chance.randrange(min(len(data), chance.choice([700, 10**9])))  # more often in the header
            data[at] = chance.choice([0, 255, chance.randrange(256)])
        path.write_bytes(data[: chance.choice([len(data)] * 4 + [chance.randrange(len(data))])])
        found = outcome(path, 10**6)
        assert found == longer_outcome(path, 10**6)
        seen.add(type(found[0]))
    assert seen == {str, tuple}  # refused ones were among them, and admitted ones


def test_a_user_who_admits_truncated_files_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(saved()[:-300])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert outcome(path)[0] == SIZE and outcome(path) == longer_outcome(path)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(saved())
    count = SIZE[0] * SIZE[1]
    assert jpeg.read(path, count) is not None and jpeg.read(path, count - 1) is None
    with pytest.raises(Unreadable, match=rf"2,623 pixels(.|\n)*data\.max_pixels={count}"):
        images.read(path, count - 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    for path in (tmp_path / "missing.jpg", folder):
        with pytest.raises(Unreadable, match=path.name):
            images.read(path, MAX_PIXELS)


def test_only_files_that_are_named_as_jpeg_are_read_for_it(tmp_path: Path) -> None:
    for name in ("image.JPEG", "image.jpe", "image.jfif"):
        (tmp_path / name).write_bytes(saved())
        assert jpeg.read(tmp_path / name, MAX_PIXELS) is not None
    (tmp_path / "image").write_bytes(saved())
    assert jpeg.read(tmp_path / "image", MAX_PIXELS) is None
    assert outcome(tmp_path / "image")[1] == by_pillow(saved()).tobytes()


def test_a_folder_reads_the_same_by_either_way_and_when_it_may_be_scaled(tmp_path: Path) -> None:
    for number, make in enumerate({**ORDINARY, **OTHERS}.values()):
        (tmp_path / f"{number}.jpg").write_bytes(make())
    split = FolderSource(tmp_path, labels="none").train()
    for index in range(len(split)):
        path = Path(split.item_name(index))
        opened = open_image(path, MAX_PIXELS)
        decoded = opened.decode() if isinstance(opened, Photograph) else opened
        assert split[index] == decoded and outcome(path) == longer_outcome(path)
