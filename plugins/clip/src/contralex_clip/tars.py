"""Tar files of images and captions, read at any offset: the headers say where each sample lies.

The order of a run is a permutation of all samples, so shards are not streamed, as the package webdataset does; nor is
that package needed.
"""

from __future__ import annotations

import glob
import io
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contralex.plugin import MAX_PIXELS, ContralexError, Source, Split, Unreadable, images, layout, printable
from contralex_clip.captions import set_caption

_THREADS = 8  # shards whose headers are read at a time
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_Bytes = tuple[int, int]  # of a file in a shard: its first byte, and how many


class TarSource(Source):
    """The samples of the tar files that the patterns ``shards`` and ``test`` name.

    ``image``: endings of images; ``caption`` and ``label``: those of the files beside them.
    """

    items = "images with captions"

    def __init__(
        self,
        shards: str,
        test: str | None = None,
        image: Sequence[str] = ("jpg", "jpeg", "png", "webp"),
        caption: str = "txt",
        label: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        endings = Endings(image, caption, label)
        train_shards = find_shards(shards, "shards")
        _check_splits(train_shards, shards)
        self._train = TarSplit(train_shards, endings, max_pixels)
        self._test: TarSplit | None = None
        if test is not None:
            test_shards = find_shards(test, "test")
            if both := sorted({path.resolve() for path in train_shards} & {path.resolve() for path in test_shards}):
                raise ContralexError(
                    f"data.test {test} has {printable(both[0])}, which data.shards {shards} has as well, so "
                    "that it would be trained on; give other shards to evaluate on."
                )
            self._test = TarSplit(test_shards, endings, max_pixels)
            self._test.origin = test

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


def _check_splits(shards: Sequence[Path], pattern: str) -> None:
    """Refuse a pattern that names shards of several splits, such as train-0000.tar and val-0000.tar."""
    names: dict[str, Path] = {}
    for path in shards:
        if (found := layout.role_of(path.stem)) or (found := layout.role_of(path.parent.name)):
            names.setdefault(found[0], path)
    if "train" in names and len(names) > 1:
        other = next(path for role, path in names.items() if role != "train")
        raise ContralexError(
            f"data.shards {pattern} stands for {printable(names['train'])} and for {printable(other)}, so that the "
            "samples to evaluate on would be trained on; give the shards of one split, and the others as data.test."
        )


class Endings(NamedTuple):
    """The endings of the files of a sample, in lower case; ``label`` is None where there are no labels."""

    image: Sequence[str]
    caption: str
    label: str | None


class TarSplit(Split):
    """``offsets`` (N, 5): a sample's shard, and where its image and its caption begin and how many bytes they have."""

    def __init__(self, shards: Sequence[Path], endings: Endings, max_pixels: int) -> None:
        super().__init__()
        self.shards = shards
        self._max_pixels = max_pixels
        rows, labels = array("q"), array("q")
        with ThreadPoolExecutor(_THREADS) as pool:
            for number, samples in enumerate(pool.map(lambda shard: _samples(shard, endings), shards)):
                for name, (image, caption, label) in samples.items():
                    if image is None or caption is None:
                        self.skip(f"{shards[number]}: {name}", f"it has no {'image' if image is None else 'caption'}")
                    else:
                        rows.extend((number, *image, *caption))
                        labels.append(-1 if label is None else label)
        if not labels:
            raise ContralexError(
                f"data.shards: {shards[0]} and the others ({len(shards)} in all) hold no file that ends in "
                f".{' or .'.join(endings.image)} with a .{endings.caption} of the same name."
            )
        self.offsets: NDArray[np.int64] = np.frombuffer(rows, dtype=np.int64).reshape(-1, 5)
        if endings.label is not None:
            self.labels = labels

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> Image.Image:
        shard, image, image_bytes, caption, caption_bytes = self.offsets[index].tolist()
        path = self.shards[shard]
        try:
            with path.open("rb") as file:
                pixels = io.BytesIO(_read(file, image, image_bytes))
                text = _read(file, caption, caption_bytes).decode("utf-8").strip()
            return set_caption(images.decode(pixels, self._max_pixels), text)
        except Exception as error:  # PIL's decoders raise many kinds, and the disk and the caption others
            raise Unreadable(f"{path}, byte {image}", images.reason_of(error, self._max_pixels)) from error


def _read(file: io.BufferedReader, start: int, count: int) -> bytes:
    file.seek(start)
    found = file.read(count)
    if len(found) < count:
        raise OSError("the shard is shorter than when the run began")
    return found


def _samples(shard: Path, endings: Endings) -> dict[str, tuple[_Bytes | None, _Bytes | None, int | None]]:
    """By the name that a sample's files share up to the first dot: its image, its caption, its label."""
    found: dict[str, tuple[_Bytes | None, _Bytes | None, int | None]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:  # not compressed, so that it can be read at any offset
            for member in tar:
                head, _, base = member.name.rpartition("/")
                stem, _, end = base.partition(".")
                if not member.isreg() or not stem:  # a hidden file: macOS puts ._a.jpg beside a.jpg
                    continue
                name = f"{head}/{stem}" if head else stem
                image, caption, label = found.get(name, (None, None, None))
                span = (member.offset_data, member.size)
                if end.lower() in endings.image:
                    image = span
                elif end.lower() == endings.caption:
                    caption = span
                elif end.lower() == endings.label:
                    label = _label(tar, member, shard)
                else:
                    continue
                found[name] = (image, caption, label)
            if 0 < shard.stat().st_size - tar.offset < tarfile.BLOCKSIZE:  # tarfile lets a header that is cut pass
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, OSError) as error:
        raise ContralexError(
            f"data.shards: {shard} cannot be read as a tar file ({error}); a shard is complete, and not compressed."
        ) from error
    return found


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> int:
    file = tar.extractfile(member)
    text = file.read(64).decode("utf-8", errors="replace").strip() if file is not None else ""
    if not re.fullmatch(r"-1|\d{1,9}", text):
        raise ContralexError(f"data.label: {member.name} of {shard} holds {text!r:.40}, and not the number of a class.")
    return int(text)


def find_shards(pattern: str, field: str) -> list[Path]:
    """The tar files that a pattern stands for, each once, in the order of their names in each of its ranges."""
    found = [path for one in _expand_ranges(pattern) for path in _existing_files(str(Path(one).expanduser()), field)]
    if not found:
        raise ContralexError(
            f"data.{field} {pattern} stands for no file; give tar files, such as data/*.tar or data/{{000..099}}.tar."
        )
    return list(dict.fromkeys(found))


def _expand_ranges(pattern: str) -> Iterator[str]:
    """``a-{08..10}.tar`` to a-08.tar, a-09.tar and a-10.tar."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = int(match[1]), int(match[2])
    if last < first or last - first >= 10**6:
        raise ContralexError(f"data.shards: {match[0]} counts up, and to no more than a million shards.")
    for number in range(first, last + 1):
        text = str(number).zfill(len(match[1]))
        yield from _expand_ranges(f"{pattern[: match.start()]}{text}{pattern[match.end() :]}")


def _existing_files(path: str, field: str) -> list[Path]:
    if glob.has_magic(path) and not Path(path).exists():
        return [Path(each) for each in sorted(glob.glob(path))]
    if not Path(path).is_file():
        raise ContralexError(f"data.{field}: there is no file {path}; see whether all shards are there.")
    return [Path(path)]


def write_tiny(folder: str, samples: int = 30, shards: int = 2, size: int = 40) -> None:
    """Small pictures of noise with captions and labels, in tar files."""
    rng = np.random.default_rng(0)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(Path(folder) / f"{shard:04}.tar", "w") as tar:
            for index in range(shard, samples, shards):
                picture = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(picture, "png")
                texts = {"txt": f"noise number {index}", "cls": str(index % 3)}
                for end, held in {
                    "png": picture.getvalue(),
                    **{key: text.encode() for key, text in texts.items()},
                }.items():
                    member = tarfile.TarInfo(f"{index:06}.{end}")
                    member.size = len(held)
                    tar.addfile(member, io.BytesIO(held))
