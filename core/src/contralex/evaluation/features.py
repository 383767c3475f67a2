"""Features of a split, in memory that is bounded at every size.

Each process encodes its part of the samples and keeps the features of that part alone. A few stay as they were made, in
float32. Many are kept in half precision, as unit vectors and their lengths, so that nothing overflows: in main memory,
or in a temporary file where that would be too much.
"""

from __future__ import annotations

import logging
import mmap
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex import memory
from contralex.data.base import Source, Split, Subset, as_tensor, compact
from contralex.data.loading import EvalDataset
from contralex.errors import ContralexError, remedy
from contralex.evaluation.base import NoLabels
from contralex.evaluation.encoding import encode, nothing_readable
from contralex.lookup import distributed

if TYPE_CHECKING:
    from contralex.data.views import Views
    from contralex.evaluation.base import EvalContext
    from contralex.evaluation.remembered import FeatureStore
    from contralex.lookup.slots import Encoder

_log = logging.getLogger("contralex")

Which = Literal["backbone", "embedding"]

LARGE = 1 << 30  # bytes of a process's features, in float32; more are kept in half precision
BASELINE_TRAIN, BASELINE_TEST = 50_000, 10_000  # samples that a baseline is measured on, at most: CIFAR's
SIDE = 32  # pixels of an image's side, to which raw pixels are reduced
VALUES = 16_384  # of a sample that is no image, to which they are reduced


class Features:
    """This process's part of the features (N, F) of a split, with the labels of its rows.

    ``total``: rows on all processes.
    """

    def __init__(
        self,
        rows: Tensor,
        length: Tensor | None,
        labels: Tensor,
        device: torch.device,
        index: Tensor | None = None,
    ) -> None:
        self.rows = rows
        self.index = torch.arange(len(rows)) if index is None else index  # of each row's sample in the split
        self.length = length  # of each row in half precision, which is a unit vector
        self.labels = labels.to(device)
        self.device = device
        self._units: Tensor | None = None
        self.total = int(distributed.sum_over_processes(torch.tensor(len(rows), device=device)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return self.rows.shape[1]

    def select(self, chosen: Sequence[int] | Tensor) -> Features:
        """Those of some samples of the split, as far as they could be read."""
        where = torch.isin(self.index, torch.as_tensor(chosen)).nonzero().flatten()
        length = None if self.length is None else self.length[where]
        labels = self.labels[where.to(self.labels.device)]
        return Features(self.rows[where.to(self.rows.device)], length, labels, self.device, self.index[where])

    def __getitem__(self, where: slice | Tensor) -> Tensor:
        """Rows as float32, on the device."""
        rows = self.rows[where].to(self.device).float()
        return rows if self.length is None else rows * self.length[where].to(self.device)

    def precision(self) -> dict[str, str]:
        """For the protocol, where it is not float32."""
        return {} if self.length is None else {"kept_in": "float16"}

    def unit_blocks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :meth:`blocks`, of length 1."""
        if self.length is None and self._units is None:
            self._units = F.normalize(self.rows.float(), dim=1)
        for start in range(0, len(self), size):
            where = slice(start, start + size)
            unit = F.normalize(self[where], dim=1) if self._units is None else self._units[where]
            yield unit, self.labels[where]

    def blocks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and labels of so many rows at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size], self.labels[start : start + size]


def split_features(
    encoder: Encoder | None,
    split: Split,
    views: Views,
    which: Which,
    batch_size: int,
    device: torch.device | str,
    workers: int,
    setting: str,
    cache: FeatureStore | None = None,
) -> Features:
    """Features of this process's part of a split; raw pixels where there is no encoder. ``setting``: whose they are, to
    be named where they fit nowhere. ``cache``: where they are kept; None: nowhere. All processes call this."""
    function: Callable[[Tensor], Tensor] = raw_pixels
    if encoder is not None:
        function = feature_function(encoder, which)
    dataset = EvalDataset(split, views)
    if cache is None:
        blocks = encode(function, dataset, batch_size, device, workers)
    else:
        name = which if encoder is not None else "pixels"
        blocks = cache.encode(function, dataset, name, batch_size, device, workers)
    store = _Store(len(distributed.own_part(len(split))), torch.device(device), setting)
    for features, index in blocks:
        store.add(features, index)
    return store.features(torch.full((len(split),), -1) if split.labels is None else as_tensor(split.labels))


class _Store:
    """Rows as they are encoded. How they are kept is decided by the first, which says how wide they are."""

    def __init__(self, count: int, device: torch.device, setting: str) -> None:
        self.count, self.device, self.setting = count, device, setting
        self.small: list[Tensor] = []
        self.large: Tensor | None = None
        self.length: Tensor | None = None
        self.index: list[Tensor] = []
        self.filled = 0

    def add(self, features: Tensor, index: Tensor) -> None:
        self.index.append(index)
        if self.count * features.shape[1] * 4 <= LARGE:
            self.small.append(features)
            return
        if self.large is None:
            self.large = self._room(features.shape[1])
            self.length = torch.empty(self.count, 1)
        length = features.norm(dim=1, keepdim=True)
        where = slice(self.filled, self.filled + len(features))
        self.large[where] = (features / length.clamp(min=1e-12)).to(self.large)
        assert self.length is not None
        self.length[where] = length.cpu()
        self.filled += len(features)

    def features(self, labels: Tensor) -> Features:
        width = max(distributed.gather_objects([self._width()]))
        if not width:
            raise nothing_readable()
        if self.large is not None and self.length is not None:
            rows, length = self.large[: self.filled], self.length[: self.filled]
        else:
            rows, length = torch.cat(self.small) if self.small else torch.empty(0, width, device=self.device), None
        index = torch.cat(self.index) if self.index else torch.empty(0, dtype=torch.long)
        return Features(rows, length, labels[index], self.device, index)

    def _width(self) -> int:
        return self.small[0].shape[1] if self.small else self.large.shape[1] if self.large is not None else 0

    def _room(self, width: int) -> Tensor:
        """(N, F) float16, in memory where that leaves as much again, otherwise in a file that ends with the process."""
        amount = self.count * width * 2
        free, disk = memory.available(), memory.available_on_disk()
        if free is None or amount <= free // 2:
            return torch.empty(self.count, width, dtype=torch.float16)
        if amount > disk:
            raise ContralexError(
                f"{self.setting}: the features of {self.count:,} samples, of {width:,} dimensions, take "
                f"{memory.in_words(amount)}, and this process may have {memory.in_words(free)} of memory and "
                f"{memory.in_words(disk)} in {tempfile.gettempdir()}. Set TMPDIR to a folder on a larger disk, or "
                f"leave the figure out:{remedy('--set', f'{self.setting}=null')}"
            )
        if distributed.rank() == 0:
            _log.info("The features of %s samples are kept in %s.", f"{self.count:,}", tempfile.gettempdir())
        with tempfile.TemporaryFile(prefix="contralex-features-") as file:  # it is gone with the last who maps it
            file.truncate(amount)
            held = mmap.mmap(file.fileno(), amount)
        return torch.frombuffer(held, dtype=torch.float16).view(self.count, width)


def raw_pixels(inputs: Tensor) -> Tensor:
    """(B, ...) to (B, F): the baseline that a representation must beat. Of a large picture it is a small one."""
    return reduced(inputs).flatten(1)


def reduced(inputs: Tensor) -> Tensor:
    """Images (B, C, H, W) of more than 32 pixels a side with 32; other samples of more than 16,384 values with at most
    as many, by means over their last dimension, or their last two."""
    if inputs.dim() == 4:
        return F.adaptive_avg_pool2d(inputs, SIDE) if max(inputs.shape[2:]) > SIDE else inputs
    each = inputs[0].numel()
    if inputs.dim() < 3 or each <= VALUES:
        return inputs
    last = inputs.shape[-1] if inputs.dim() == 3 else inputs.shape[-2] * inputs.shape[-1]
    room = max(VALUES // (each // last), 1)
    if inputs.dim() == 3:
        return F.adaptive_avg_pool1d(inputs, room)
    side = max(int(room**0.5), 1)
    small = F.adaptive_avg_pool2d(inputs.flatten(0, -4), side)
    return small.view(*inputs.shape[:-2], side, side)


def describe_pixels(split: Split, views: Views) -> str:
    """What the raw pixels of this data are, for the protocol: ``pixels``, or ``pixels, reduced to 32×32``."""
    for index in range(min(len(split), 100)):
        item = EvalDataset(split, views)[index][1]
        if isinstance(item, Tensor):
            small = reduced(item[None])
            shape = "×".join(str(length) for length in small.shape[2 if small.dim() == 4 else 1 :])
            return "pixels" if small.shape[1:] == item.shape else f"pixels, reduced to {shape}"
    return "pixels"


def read_features(encoder: Encoder, split: Split, context: EvalContext, which: Which, setting: str) -> Features:
    """As :func:`split_features`, where everything else is as evaluation has it."""
    return split_features(
        encoder,
        split,
        context.views,
        which,
        context.batch_size,
        context.device,
        context.workers,
        setting,
        context.cache,
    )


def feature_function(encoder: Encoder, which: Which) -> nn.Module:
    """Inputs (B, ...) to the ``backbone``'s features (B, F), or to the ``embedding`` (B, D) that is looked up."""
    return _Function(encoder, which)


class _Function(nn.Module):
    def __init__(self, encoder: Encoder, which: Which) -> None:
        super().__init__()
        self.encoder, self.which = encoder, which

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encoder.features(inputs) if self.which == "backbone" else self.encoder.embedding(inputs)


def labelled_splits(source: Source) -> tuple[Split, Split]:
    """The labelled samples of both splits."""
    train, test = source.train(), source.test()
    if test is None:
        raise NoLabels("The data have no split to evaluate on.")
    return select_labelled(train, "train"), select_labelled(test, "test")


def select_labelled(split: Split, name: str) -> Split:
    """The samples of a split that have a label; :class:`NoLabels` if none has."""
    keep = (as_tensor(split.labels or ()) >= 0).nonzero().flatten()
    if not len(keep):
        raise NoLabels(f"The data's {name} split has no labels.")
    return split if len(keep) == len(split) else Subset(split, compact(keep.tolist()))


def baseline_splits(train: Split, test: Split, least: int = 0) -> tuple[Split, Split, dict[str, int]]:
    """What a baseline is measured on: all samples, or a fixed part of so many that it would take hours. Then the
    protocol says of how many: ``train_of``, ``test_of``. ``least``: training samples that are needed."""
    few = choose_some(train, max(BASELINE_TRAIN, least)), choose_some(test, BASELINE_TEST)
    names = ("train_of", "test_of")
    of = {name: len(all_) for name, part, all_ in zip(names, few, (train, test), strict=True) if part is not all_}
    return *few, of


def choose_some(split: Split, most: int) -> Split:
    """At most so many samples: of two data sets of one size, and on all processes, the same."""
    if len(split) <= most:
        return split
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:most]
    return Subset(split, compact(drawn.sort().values.tolist()))
