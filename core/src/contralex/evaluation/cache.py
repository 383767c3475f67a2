"""Features of a split on disk: extracted once for an encoder, its data and its transform, and read from then on.

A run's folder has ``features/<key>/``, with ``features.safetensors`` (``features`` (N, F) float32, ``readable`` (N,)
uint8) and ``entry.json``, which is written last: what the key was made of, and what could not be read. While features
are extracted the file is a draft, and each process lists the blocks that it has written, so that whoever extracts next
goes on from there. Only an entry with ``entry.json`` is read, and only where every part of its key is the same.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contralex import memory
from contralex.data.base import Unreadable
from contralex.data.fingerprints import digest
from contralex.data.loading import EvalDataset
from contralex.data.skipped import Skipped
from contralex.errors import ContralexError
from contralex.evaluation.encoding import Block, encode, encode_part, skip_everywhere
from contralex.files import read_json, to_disk, write_text
from contralex.lookup import distributed

_log = logging.getLogger("contralex")

FOLDER = "features"
LIMIT = 64 * 2**30  # bytes of a run's features; beyond it, those that were not used for longest are removed
BLOCK = 1024  # samples that are written, and known to be, at a time
_READ = 8192  # rows
_ENTRY, _FEATURES, _DRAFT, _BLOCKS = "entry.json", "features.safetensors", "draft.safetensors", "blocks-*.jsonl"
_FORMAT = 1

Function = Callable[[Tensor], Tensor]
Lock = Callable[[Path], AbstractContextManager[object]]
_Batch = tuple[Tensor | None, Tensor, Sequence[Unreadable]]


@dataclass(frozen=True)
class FeatureCache:
    """The features of one encoder, in the folder of a run.

    ``folder``: the run's ``features``. ``key``: all that the features depend on beside the data and the transform, as
    JSON can hold it. ``lock``: makes a folder this process's alone to write, and raises :class:`ContralexError` where
    it is another's.
    """

    folder: Path
    key: Mapping[str, Any]
    lock: Lock = field(repr=False)

    def with_key(self, **more: Any) -> FeatureCache:
        """The cache of something else of the same run, by what is different in its key."""
        return replace(self, key={**self.key, **more})

    def encode(
        self,
        function: Function,
        dataset: EvalDataset,
        which: str,
        batch_size: int,
        device: torch.device | str,
        workers: int,
    ) -> Iterator[Block]:
        """As :func:`contralex.evaluation.encoding.encode`: read from disk where it is there, written where it is not.

        ``which``: the name of the features, such as ``backbone``. All processes call this, and go to the end.
        """
        entry = self._entry(dataset, which)
        stored = None if entry is None else entry.read()
        if entry is not None and stored is None:
            with _Extraction(entry, self.lock) as extraction:
                if extraction.may_write:
                    yield from extraction.blocks(function, dataset, batch_size, device, workers)
                    stored = extraction.finished
                else:
                    entry = None
        if entry is None:
            yield from encode(function, dataset, batch_size, device, workers)
        elif stored is not None:
            yield from stored.blocks(device)
            skip_everywhere(dataset, stored.unread)
            if distributed.rank() == 0:
                with suppress(OSError):  # another process may be at it
                    _prune(self.folder, entry.folder, self.lock)

    def find(self, dataset: EvalDataset, which: str) -> Block | None:
        """Features (N, F) and indices (N,) of the samples that could be read, mapped from the disk into memory where
        all could; None where they are not there. For one process."""
        entry = self._entry(dataset, which)
        stored = None if entry is None else entry.read()
        if stored is None:
            return None
        dataset.split.skip_all(stored.unread)
        index = stored.readable.nonzero().flatten()
        return (stored.features if len(index) == len(stored.features) else stored.features[index]), index

    def _entry(self, dataset: EvalDataset, which: str) -> _Entry | None:
        """None where the data cannot be known again, or there can be no folder. The main process says."""
        found: _Entry | None = None
        if distributed.rank() == 0:
            data = dataset.split.cache_key()
            transform = list(dataset.views.plain_steps())
            if data is not None:
                key = {"format": _FORMAT, **self.key, "features": which, "data": data, "transform": transform}
                text = json.dumps(key, sort_keys=True)
                found = _Entry(self.folder / digest([text])[:32], text, len(dataset))
                found = found if _make(found.folder) else None
        found = distributed.gather_objects([found])[0]
        there = [found is not None and found.folder.is_dir()]
        return found if all(distributed.gather_objects(there)) else None


@dataclass(frozen=True)
class _Entry:
    """The features of one key. ``key``: as text. ``count``: N, samples of the split."""

    folder: Path
    key: str
    count: int

    def read(self) -> _Stored | None:
        """None where it is not there, or is not what was written."""
        found = [_Stored.open(self)]
        known = all(distributed.gather_objects([each is not None for each in found]))
        return found[0] if known else None


@dataclass(frozen=True)
class _Stored:
    """``features`` (N, F) and ``readable`` (N,), mapped into memory; ``unread``: the items that could not be read."""

    features: Tensor
    readable: Tensor
    unread: Skipped

    @staticmethod
    def open(entry: _Entry) -> _Stored | None:
        from safetensors import SafetensorError, safe_open

        try:
            said = read_json(entry.folder / _ENTRY)
            file = entry.folder / _FEATURES
            if said["key"] != json.loads(entry.key) or said["bytes"] != file.stat().st_size:
                return None
            with safe_open(file, framework="pt") as opened:
                features, readable = opened.get_tensor("features"), opened.get_tensor("readable")
            if len(features) != entry.count or len(readable) != entry.count:
                return None
            with suppress(OSError):  # a folder that others may only read
                os.utime(entry.folder / _ENTRY)  # when it was last used
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
            return None
        unread = Skipped()
        for path, reason in said["unread"].items():
            unread.add(path, reason)
        return _Stored(features, readable.bool(), unread)

    def blocks(self, device: torch.device | str) -> Iterator[Block]:
        """This process's part."""
        part = distributed.own_part(len(self.features))
        for start in range(part.start, part.stop, _READ):
            rows = slice(start, min(start + _READ, part.stop))
            index = self.readable[rows].nonzero().flatten()
            if len(index) == rows.stop - rows.start:
                yield self.features[rows].to(device), index + start
            elif len(index):
                yield self.features[rows][index].to(device), index + start


class _Extraction:
    """The features of an entry as they are made, written block by block.

    ``may_write``: whether the entry is this group of processes' to write. ``finished``: the entry, once all blocks are
    written; None where there is no room for it, and :meth:`blocks` has given the features themselves.
    """

    def __init__(self, entry: _Entry, lock: Lock) -> None:
        self.entry = entry
        self.finished: _Stored | None = None
        self.may_write = False
        self._lock = lock(entry.folder)
        self._held = False

    def __enter__(self) -> _Extraction:
        if distributed.rank() == 0:
            with suppress(ContralexError, OSError):
                self._lock.__enter__()
                self._held = True
        self.may_write = distributed.gather_objects([self._held])[0]
        return self

    def __exit__(self, *error: Any) -> None:
        if self._held:
            self._lock.__exit__(*error)
            with suppress(OSError):  # unless something was written
                self.entry.folder.rmdir()

    def blocks(
        self, function: Function, dataset: EvalDataset, batch_size: int, device: torch.device | str, workers: int
    ) -> Iterator[Block]:
        """Write what is missing. Nothing is yielded, but where there is no room."""
        self.finished = self.entry.read()  # another process may have written it in the meantime
        if self.finished is not None:
            return
        done = distributed.gather_objects([_read_done_blocks(self.entry.folder) if distributed.rank() == 0 else set()])[
            0
        ]
        missing = [block for block in range(-(-self.entry.count // BLOCK)) if block not in done]
        own = [missing[at] for at in distributed.own_part(len(missing))]
        part = [at for block in own for at in range(block * BLOCK, min((block + 1) * BLOCK, self.entry.count))]
        batches = encode_part(function, dataset, part, batch_size, device, workers)
        first: list[_Batch] = []
        for batch in batches:  # how wide the features are is known from the first that there are
            first.append(batch)
            if batch[0] is not None:
                break
        width = next((features.shape[1] for features, _, _ in first if features is not None), 0)
        width = max(distributed.gather_objects([width]))
        draft = self._draft(width, new=not done)
        if draft is None:
            unread = Skipped()
            for features, index, faults in chain(first, batches):
                for fault in faults:
                    unread.add(fault.path, fault.reason)
                if features is not None:
                    yield features, index
            skip_everywhere(dataset, unread)
            return
        self._write(draft, own, chain(first, batches))
        distributed.gather_objects([None])  # all have written
        self._finish()

    def _draft(self, width: int, *, new: bool) -> _Draft | None:
        """The file that is written to, on every process; None where nothing can be read, or there is no room."""
        path = self.entry.folder / _DRAFT
        fits = [True]
        if distributed.rank() == 0:
            fits = [_make_draft(path, self.entry.count, width) if new else path.is_file()]
        fits = distributed.gather_objects(fits)[:1]
        if not all(distributed.gather_objects([fits[0] and path.is_file()])):
            return None
        return _Draft(path)

    def _write(self, draft: _Draft, blocks: Sequence[int], batches: Iterator[_Batch]) -> None:
        """Batches come in the order of the blocks, and may reach over the end of one."""
        journal = self.entry.folder / _BLOCKS.replace("*", f"{distributed.rank()}-{os.getpid()}")
        waiting = list(blocks)
        unread: dict[str, str] = {}
        seen = done = 0
        with journal.open("a", encoding="utf-8") as lines, draft:
            for features, index, faults in batches:
                if features is not None:
                    draft.write(features, index)
                unread |= {fault.path: fault.reason for fault in faults}
                seen += len(index) + len(faults)
                finished = []
                while waiting and seen - done >= self._length(waiting[0]):
                    done += self._length(waiting[0])
                    finished.append(waiting.pop(0))
                if finished:
                    draft.to_disk()  # before the list says so
                    lines.write(json.dumps({"blocks": finished, "unread": unread}) + "\n")
                    lines.flush()
                    unread = {}

    def _length(self, block: int) -> int:
        return min(BLOCK, self.entry.count - block * BLOCK)

    def _finish(self) -> None:
        if distributed.rank() == 0:
            folder = self.entry.folder
            unread = {path: reason for line in _journal_lines(folder) for path, reason in line["unread"].items()}
            to_disk(folder / _DRAFT)
            (folder / _DRAFT).replace(folder / _FEATURES)
            size = (folder / _FEATURES).stat().st_size
            said = {"key": json.loads(self.entry.key), "bytes": size, "unread": unread}
            write_text(folder / _ENTRY, json.dumps(said, indent=1) + "\n")
            for file in folder.glob(_BLOCKS):
                file.unlink()
        distributed.gather_objects([None])  # it is there
        self.finished = self.entry.read()


class _Draft:
    """A safetensors file of ``features`` (N, F) and ``readable`` (N,) that is written in place, by several processes.

    It is written as a file and not through memory, where a full disk would end the process without a word.
    """

    def __init__(self, path: Path) -> None:
        # A buffer would write what lies between two of its rows as well, and undo what another process wrote there.
        self._file = path.open("r+b", buffering=0)
        length = int.from_bytes(self._file.read(8), "little")
        self._head = json.loads(self._file.read(length))
        self._start = 8 + length

    @staticmethod
    def make(path: Path, count: int, width: int) -> None:
        """With zeros."""
        middle, end = 4 * count * width, 4 * count * width + count
        head = {
            "__metadata__": {"format": "pt"},
            "features": {"dtype": "F32", "shape": [count, width], "data_offsets": [0, middle]},
            "readable": {"dtype": "U8", "shape": [count], "data_offsets": [middle, end]},
        }
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)

    def write(self, features: Tensor, index: Tensor) -> None:
        """(B, F) features of the samples ``index`` (B,), which are in ascending order within a block."""
        rows = features.cpu().contiguous().numpy().astype("<f4", copy=False)
        where = index.numpy()
        gaps = np.flatnonzero(np.diff(where) != 1) + 1
        for some, at in zip(np.split(rows, gaps), np.split(where, gaps), strict=True):
            self._put("features", int(at[0]) * rows.shape[1] * 4, some.tobytes())
            self._put("readable", int(at[0]), bytes([1]) * len(at))

    def _put(self, name: str, offset: int, data: bytes) -> None:
        self._file.seek(self._start + self._head[name]["data_offsets"][0] + offset)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def to_disk(self) -> None:
        os.fsync(self._file.fileno())

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _make_draft(path: Path, count: int, width: int) -> bool:
    """Whether there is room for it: it may take half of what the disk has left."""
    if not width:
        return False
    amount, free = 4 * count * width, shutil.disk_usage(path.parent).free
    if amount > min(free // 2, LIMIT):
        _log.info(
            "The features of %s samples take %s and are not kept in %s, where %s are free.",
            f"{count:,}",
            memory.in_words(amount),
            path.parent,
            memory.in_words(free),
        )
        return False
    _Draft.make(path, count, width)
    return True


def _read_done_blocks(folder: Path) -> set[int]:
    """The blocks that are in the draft, of an extraction that was stopped."""
    if not (folder / _DRAFT).is_file():
        for file in folder.glob(_BLOCKS):
            file.unlink()
    return {block for line in _journal_lines(folder) for block in line["blocks"]}


def _journal_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Of all processes. A line that was not written to its end is none."""
    for file in sorted(folder.glob(_BLOCKS)):
        for text in file.read_text("utf-8").splitlines():
            with suppress(ValueError):
                yield json.loads(text)


def _make(folder: Path) -> bool:
    """Whether it is there."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder.is_dir()


def _prune(features: Path, keep: Path, lock: Lock) -> None:
    """Remove what was not used for longest, until the rest takes no more than :data:`LIMIT`."""
    entries = sorted((each for each in features.iterdir() if each.is_dir()), key=_last_use, reverse=True)
    taken = 0
    for entry in [keep, *(each for each in entries if each != keep)]:
        taken += sum(file.stat().st_size for file in entry.iterdir() if file.is_file())
        if taken > LIMIT and entry != keep:
            _remove(entry, lock)


def remove_features_of(features: Path, weights: str, lock: Lock) -> None:
    """Remove what is kept of the encoder whose key has these ``weights``. ``features``: a run's folder of them."""
    for entry in [path.parent for path in features.glob(f"*/{_ENTRY}")]:
        with suppress(OSError, ValueError, KeyError, TypeError):  # such an entry is not read, and is removed some day
            if read_json(entry / _ENTRY)["key"]["weights"] == weights:
                _remove(entry, lock)


def _remove(entry: Path, lock: Lock) -> None:
    with suppress(ContralexError, OSError), lock(entry):  # unless another process is writing it
        for file in (entry / _ENTRY, *entry.glob("*")):
            file.unlink(missing_ok=True)
    with suppress(OSError):
        entry.rmdir()


def _last_use(entry: Path) -> float:
    return max((file.stat().st_mtime for file in entry.iterdir()), default=0.0)
