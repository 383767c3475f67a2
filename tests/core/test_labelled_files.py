"""torchvision's data sets of photographs, read from tiny copies in their official layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from contralex.data.base import Unreadable
from contralex.errors import ContralexError
from contralex.kinds.datasets import labelled_files
from contralex.kinds.datasets.labelled_files import LabelledFilesSource

Files = list[tuple[str, int]]  # the name of an image's file, and its class


def write_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (value, 0, 0)).save(path)


def flowers(root: Path) -> tuple[Files, Files]:
    scipy = pytest.importorskip("scipy.io")
    folder = root / "flowers-102"
    for number in range(1, 8):
        write_image(folder / "jpg" / f"image_{number:05d}.jpg", number)
    scipy.savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 1, 2, 1]])})
    scipy.savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6, 7]]})
    named = [(f"image_{number:05d}.jpg", (number - 1) % 2) for number in range(1, 8)]
    return named[:4], named[4:]


def pets(root: Path) -> tuple[Files, Files]:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    names = ["Abyssinian_1", "beagle_1", "Abyssinian_2", "beagle_2"]
    for number, name in enumerate(names):
        write_image(folder / "images" / f"{name}.jpg", number)
    lines = [f"{name} {1 + number % 2} {1 + number % 2} 1" for number, name in enumerate(names)]
    (folder / "annotations" / "trainval.txt").write_text("\n".join(lines[:2]))
    (folder / "annotations" / "test.txt").write_text("\n".join(lines[2:]))
    named = [(f"{name}.jpg", number % 2) for number, name in enumerate(names)]
    return named[:2], named[2:]


def food(root: Path) -> tuple[Files, Files]:
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    splits = {
        "train": {"sushi": ["sushi/1"], "apple_pie": ["apple_pie/2"]},
        "test": {"sushi": ["sushi/3"], "apple_pie": []},
    }
    for split, names in splits.items():
        (folder / "meta" / f"{split}.json").write_text(json.dumps(names))
        for each in names.values():
            for name in each:
                write_image(folder / "images" / f"{name}.jpg", 1)
    return [("1.jpg", 1), ("2.jpg", 0)], [("3.jpg", 1)]


def textures(root: Path) -> tuple[Files, Files]:
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        lines = [f"{name}/{name}_{number}.jpg" for name in ("banded", "woven")]
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            write_image(folder / "images" / line, number)
    of = {number: [(f"banded_{number}.jpg", 0), (f"woven_{number}.jpg", 1)] for number in (1, 2, 3)}
    return [*of[1], *of[2]], of[3]


def aircraft(root: Path) -> tuple[Files, Files]:
    folder = root / "fgvc-aircraft-2013b" / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("707-320\nA380\n")
    (folder / "images_variant_trainval.txt").write_text("0001 A380\n0002 707-320\n")
    (folder / "images_variant_test.txt").write_text("0003 A380\n")
    for number in range(1, 4):
        write_image(folder / "images" / f"{number:04d}.jpg", number)
    return [("0001.jpg", 1), ("0002.jpg", 0)], [("0003.jpg", 1)]


COPIES: dict[str, Callable[[Path], tuple[Files, Files]]] = {
    "flowers102": flowers,
    "oxford_pets": pets,
    "food101": food,
    "dtd": textures,
    "aircraft": aircraft,
}


@pytest.fixture(autouse=True)
def _any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of Flowers102 are compared with the MD5 of the official ones."""
    found = {name: (file, None) for name, (file, _) in datasets.Flowers102._file_dict.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", found)


def test_each_set_has_a_copy_here() -> None:
    assert set(COPIES) == set(labelled_files.SETS)


@pytest.mark.parametrize("kind", COPIES)
def test_the_official_layout_is_read(kind: str, tmp_path: Path) -> None:
    expected = COPIES[kind](tmp_path)
    source = LabelledFilesSource(kind, tmp_path)
    for split, files in zip((source.train(), source.test()), expected, strict=True):
        assert split.labels is not None and split.classes is not None
        found = [(Path(split.item_name(index)).name, split.labels[index]) for index in range(len(split))]
        assert found == files
        assert all(split[index].size == (12, 9) and split[index].mode == "RGB" for index in range(len(split)))
        assert max(split.labels) < len(split.classes)
    assert source.train().fingerprint() != source.test().fingerprint()
    again = LabelledFilesSource(kind, tmp_path)
    assert (again.train().cache_key(), again.train().fingerprint()) == (
        source.train().cache_key(),
        source.train().fingerprint(),
    )


def test_an_image_that_is_broken_is_unreadable(tmp_path: Path) -> None:
    aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / "images" / "0003.jpg").write_bytes(b"no image")
    with pytest.raises(Unreadable, match=r"0003\.jpg"):
        LabelledFilesSource("aircraft", tmp_path).test()[0]


@pytest.mark.parametrize("kind", COPIES)
def test_a_set_that_is_not_there_says_what_to_set(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=rf"^{kind} is not in data\.root .*set data\.download=true"):
        LabelledFilesSource(kind, tmp_path)
