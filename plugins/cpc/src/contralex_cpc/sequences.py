"""A folder of recordings as a data set."""

from __future__ import annotations

import wave
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contralex.plugin import ContralexError, Source, Split, Unreadable, layout, printable

_EXTENSIONS = (".wav", ".npy")
_NOT_READ = (".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")
_FULL_SCALE = {1: 2**7, 2: 2**15, 4: 2**31}  # of PCM samples of so many bytes


class SequenceSource(Source):
    """The recordings below a folder, ``root``: splits and classes come from its folders, as of ``image_folder``.

    Where there is no split to evaluate on, the fraction ``held_out`` of the labelled files is kept for it, chosen by a
    hash of their path. ``labels``: whether folders are classes.
    """

    items = "sequences"

    def __init__(
        self, root: str | Path, labels: Literal["auto", "folders", "none"] = "auto", held_out: float = 0.2
    ) -> None:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise ContralexError(
                f"data.root: {printable(folder)} is no folder; give one that holds .wav or .npy files."
            )
        listing = layout.walk(folder, _EXTENSIONS, _NOT_READ)
        others = " and ".join(f"{count:,} of {end}" for end, count in sorted(listing.others.items()))
        if not listing.files:
            also = f" It has {others}, which are not read; convert them to .wav." if others else ""
            raise ContralexError(
                f"data.root: {printable(folder)} holds no .wav or .npy file; give a folder that does.{also}"
            )
        found = layout.arrange(listing, labels)
        self.notes = [*found.notes, *([f"{others} are left out, which are neither .wav nor .npy"] if others else [])]
        part = found.train
        held: set[Path] = set()
        if found.test is None and part.classes:
            held = {path for path in part.paths if _hash_fraction(path, part.folder) < held_out}
        self._train = SequenceSplit(part.folder, [path for path in part.paths if path not in held], part.classes)
        self._train.origin = part.origin
        self._test: Split | None = None
        if found.test is not None:
            self._test = SequenceSplit(found.test.folder, found.test.paths, found.test.classes)
            self._test.origin = found.test.origin
        elif held:
            self._test = SequenceSplit(part.folder, sorted(held), part.classes)
            self._test.origin = "held out"

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


class SequenceSplit(Split):
    """Items are float32 tensors (channels, time), PCM brought to [-1, 1)."""

    def __init__(self, root: Path, paths: Sequence[Path], classes: Sequence[str] | None) -> None:
        super().__init__()
        self.paths = paths
        if classes:
            self.classes = [printable(name) for name in classes]
            number = {name: label for label, name in enumerate(classes)}
            self.labels = [number[path.relative_to(root).parts[0]] for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            sequence = _wave(path) if path.suffix.lower() == ".wav" else np.load(path, allow_pickle=False)
        except (OSError, EOFError, ValueError, wave.Error) as error:
            raise Unreadable(str(path), str(error)) from error
        tensor = torch.as_tensor(np.asarray(sequence, dtype=np.float32))
        if tensor.dim() not in (1, 2):
            raise Unreadable(str(path), f"it has {tensor.dim()} dimensions; (time,) or (channels, time) are read")
        return tensor if tensor.dim() == 2 else tensor.unsqueeze(0)


def _wave(path: Path) -> NDArray[np.float32]:
    with wave.open(str(path)) as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        if width not in _FULL_SCALE:
            raise ValueError(f"PCM of {8 * width} bits; 8, 16 and 32 are read")
        raw = file.readframes(file.getnframes())
    # 8-bit PCM is unsigned around 128, the wider ones are signed.
    samples = np.frombuffer(raw, dtype={1: "u1", 2: "<i2", 4: "<i4"}[width])
    centre = 128 if width == 1 else 0
    scaled = ((samples.astype(np.float64) - centre) / _FULL_SCALE[width]).astype(np.float32)
    return scaled.reshape(-1, channels).T


def _hash_fraction(path: Path, root: Path) -> float:
    """A number in [0, 1) that depends on the path below the root alone."""
    return zlib.crc32(path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")) / 2**32


def write_tiny(folder: str, samples: int = 30, classes: int = 3, length: int = 4000) -> None:
    """Short sequences of noise in class folders: data for a test of everything but learning."""
    rng = np.random.default_rng(0)
    for index in range(samples):
        path = Path(folder) / f"class-{index % classes}" / f"{index}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.standard_normal(length, dtype=np.float32))
