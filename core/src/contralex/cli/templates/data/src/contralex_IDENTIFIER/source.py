"""Images that a table lists."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from contralex.plugin import ContralexError, Source, Split, images

_COLUMNS = ("image", "class", "split")


class TableSplit(Split):
    """The rows of one split, in the order of the file: an index is the sample, so the order never changes."""

    def __init__(self, folder: Path, rows: Sequence[dict[str, str]], classes: Sequence[str], max_pixels: int) -> None:
        super().__init__()
        self._paths = [str(folder / row["image"]) for row in rows]
        self._max_pixels = max_pixels
        self.classes = list(classes)
        self.labels = [self.classes.index(row["class"]) if row["class"] else -1 for row in rows]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Image.Image:
        return images.to_rgb(images.read(self._paths[index], self._max_pixels))  # Unreadable, where PIL cannot


class TableSource(Source):
    def __init__(self, path: str = "samples.csv", max_pixels: int = 100_000_000) -> None:
        rows = _read_table(path)
        classes = sorted({row["class"] for row in rows if row["class"]})
        self._splits = {
            name: TableSplit(Path(path).parent, [row for row in rows if row["split"] == name], classes, max_pixels)
            for name in ("train", "test")
        }
        if not len(self._splits["train"]):
            raise ContralexError(f"data.path: {path} has no row whose split is train.")

    def train(self) -> Split:
        return self._splits["train"]

    def test(self) -> Split | None:
        return self._splits["test"] if len(self._splits["test"]) else None


def _read_table(path: str) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            rows = [] if missing else [{name: row[name].strip() for name in _COLUMNS} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContralexError(f"data.path: {path} cannot be read: {error}") from None
    if missing:
        raise ContralexError(f"data.path: {path} has no column {missing[0]}; it must have {', '.join(_COLUMNS)}.")
    return rows


def write_tiny_table(folder: str) -> str:
    """A table of twelve small images of three classes, for the conformance kit; the path of the file."""
    path = Path(folder) / "samples.csv"
    lines = [",".join(_COLUMNS)]
    for index in range(12):
        Image.new("RGB", (16, 16), (index * 20, 100, 255 - index * 20)).save(path.with_name(f"{index}.png"))
        lines.append(f"{index}.png,{'abc'[index % 3]},{'test' if index >= 9 else 'train'}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)
