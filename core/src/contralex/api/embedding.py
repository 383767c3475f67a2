"""The features of all images of a folder, by the encoder of a run."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from contralex import progress
from contralex.api import feature_files
from contralex.api.arguments import checked
from contralex.api.settings import PathLike, path_text
from contralex.data.base import Source, Split, index_bytes, printable
from contralex.data.fingerprints import digest
from contralex.data.loading import EvalDataset
from contralex.data.workers import name_the_way
from contralex.errors import ContralexError, remedy
from contralex.evaluation.encoding import encode, nothing_readable
from contralex.evaluation.features import LARGE, Which, feature_function
from contralex.files import expand_user
from contralex.plugins.registry import registry
from contralex.plugins.spec import Spec
from contralex.recipes.code_files import permission
from contralex.training import build, devices
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import open_checkpoint
from contralex.training.feature_cache import make_feature_cache


@dataclass(frozen=True, repr=False)
class Embeddings:
    """Features (N, F) in float32 of N images, with the path, the label and the class of each. It prints as a few lines.

    ``paths`` are relative to the folder, with ``/``. ``labels`` (N,) are -1 for an image without one, and None where
    the folder has no classes; ``classes`` are their names. ``skipped``: what could not be read, with the reasons, of at
    most a hundred; ``skipped_count``: of how many.

    >>> import contralex
    >>> contralex.open("runs/my-run").embed("photos").save("features.npz")
    PosixPath('features.npz')
    """

    features: Tensor
    paths: list[str]
    labels: Tensor | None
    classes: list[str]
    skipped: dict[str, str] = field(default_factory=dict)
    skipped_count: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def save(self, path: PathLike) -> Path:
        """Write a ``.safetensors``, ``.npz`` or ``.parquet`` file, whole or not at all. Returns its path."""
        file = expand_user(str(path_text(path)))
        feature_files.write(file, self.features, self.paths, self.labels, self.classes)
        return file

    def __repr__(self) -> str:
        lines = [f"Embeddings of {len(self):,} images, {self.features.shape[1]:,} features each"]
        if self.labels is not None:
            lines.append(
                f"  {len(self.classes)} classes: {', '.join(self.classes[:10])}{', ...' * (len(self.classes) > 10)}"
            )
        if self.skipped:
            lines.append(f"  {self.skipped_count:,} could not be read (see .skipped)")
        return "\n".join(lines)


@checked
def embed(
    run: PathLike,
    data: PathLike | None = None,
    *,
    which: Which = "backbone",
    batch_size: int | None = None,
    allow_code: bool = False,
) -> Embeddings:
    """The features of the images in a folder, by the encoder of a run.

    ``data``: a folder, or a kind such as ``cifar10``, as for ``contralex train --data``; without it, the run's own. The
    images that a run would train on or evaluate on are taken; other folders are named, and left out. ``which``: the
    ``backbone``'s features, or the ``embedding`` behind the projector. ``batch_size``: images at a time; it changes the
    speed and not the features. Images that cannot be read are named, and left out. The features are kept in the run's
    folder, and read from there the next time.

    >>> import contralex
    >>> found = contralex.embed("runs/my-run", "photos")
    >>> found.features.shape, found.paths[0], found.classes
    (torch.Size([6, 256]), 'cat/0.png', ['cat', 'dog'])
    """
    if which not in ("backbone", "embedding"):
        raise ContralexError(f"which is {which!r}, and must be 'backbone' or 'embedding'")
    with progress.listening("stderr"), permission(allow_code):
        checkpoint = open_checkpoint(Path(run), [MODEL])
        spec = checkpoint.resolved().run
        everything = _read(build.evaluation_data(spec, path_text(data)), path_text(data))
        device = devices.to_evaluate_on()
        encoder = devices.place(build.encoder_of(checkpoint, spec), device, spec.train.channels_last)
        dataset = EvalDataset(everything, spec.method.views.build())
        cache = make_feature_cache(checkpoint, spec, encoder, dataset.views, device.type)
        size, workers = batch_size or spec.eval.batch_size, devices.workers(spec.train.workers, device.type)
        function = feature_function(encoder, which)
        found = None if cache is None else cache.find(dataset, which)
        if found is None:
            encode_all = encode if cache is None else partial(cache.encode, which=which)
            smaller = f"Try fewer images at a time:{remedy('--batch-size', max(size // 2, 1))}"
            with Rows() as rows, name_the_way(smaller):
                found = rows.collect(encode_all(function, dataset, batch_size=size, device=device, workers=workers))
        features, index = found
        labels = everything.label_tensor()
        return Embeddings(
            features,
            [everything.item_name(int(number)) for number in index],
            None if labels is None else labels[index],
            list(everything.classes or ()),
            dict(everything.skipped.reasons),
            everything.skipped.total,
        )


def _read(spec: Spec, data: str | None) -> Everything:
    """The images of a spec of data, after a line for whatever is left out, such as a folder ``test`` beside ``val``."""
    source = build.read_source(spec)
    for note in source.notes:
        if "\n" not in note:  # a setting that it ends in is one for training
            progress.say(f"{data or 'data'}: {note}")
    return Everything(source, root_of(data))


def root_of(data: str | None) -> Path | None:
    """The folder that ``data`` names, if it names one."""
    return expand_user(data) if data is not None and data not in registry().kinds("data") else None


class Everything(Split):
    """Both splits of a source as one, sorted by the items' names where those are below ``root``."""

    def __init__(self, source: Source, root: Path | None) -> None:
        super().__init__()
        train, test = source.train(), source.test()
        self._splits: Sequence[Split] = [train, *([test] if test is not None else [])]
        self.skipped = train.skipped
        self._root = root
        self.classes = train.classes
        self._items = [(split, index) for split in self._splits for index in range(len(split))]
        if root is not None:
            self._items.sort(key=lambda item: self._name(*item))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        split, number = self._items[index]
        return split[number]

    def item_name(self, index: int) -> str:
        return self._name(*self._items[index])

    def fingerprint(self) -> str | None:
        return self._digest([split.fingerprint() for split in self._splits])

    def cache_key(self) -> str | None:
        return self._digest([split.cache_key() for split in self._splits])

    def _digest(self, of_splits: Sequence[str | None]) -> str | None:
        if None in of_splits:
            return None
        order = [(self._splits.index(split), index) for split, index in self._items]
        return digest([*of_splits, *(index_bytes(column) for column in zip(*order, strict=True))])

    def file_of(self, index: int) -> Path | None:
        """The item's file; None where the data set has none for it."""
        split, number = self._items[index]
        name = split.item_name(number)
        return None if name == str(number) else Path(name)

    def label_tensor(self) -> Tensor | None:
        """(N,), or None where no item has a label."""
        labels = [split.labels[number] if split.labels is not None else -1 for split, number in self._items]
        return torch.tensor(labels) if any(label >= 0 for label in labels) else None

    def _name(self, split: Split, number: int) -> str:
        name = split.item_name(number)
        if self._root is None:
            return name if len(self._splits) == 1 else f"{'train' if split is self._splits[0] else 'test'}/{name}"
        return printable(os.path.relpath(name, self._root)).replace(os.sep, "/")


class Rows:
    """Rows of features as they come: in memory, and beyond a gigabyte in a temporary file that is mapped into it."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=LARGE, prefix="contralex-features-")  # noqa: SIM115

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def collect(self, blocks: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Features (N, F) and indices (N,)."""
        index, width = [], 0
        for features, numbers in blocks:
            index.append(numbers)
            width = features.shape[1]
            self._file.write(features.cpu().contiguous().numpy().data)
        if not width:
            raise nothing_readable()
        numbers = torch.cat(index)
        self._file.flush()
        size = self._file.tell()
        self._file.seek(0)
        held: Any
        if size > LARGE:
            held = mmap.mmap(self._file.fileno(), size)
        else:
            held = bytearray(size)
            self._file.readinto(held)  # type: ignore[attr-defined]
        return torch.frombuffer(held, dtype=torch.float32).view(len(numbers), width), numbers
