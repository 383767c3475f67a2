"""The runs of a report, and what can be computed of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from contralex.data.base import Source, Split, Subset, compact
from contralex.data.loading import EvalDataset
from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.evaluation.encoding import extract_features
from contralex.lookup.slots import Encoder
from contralex.recipes.layers import Resolved, resolve_data
from contralex.recipes.run_spec import RunSpec
from contralex.training import build, devices
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import Checkpoint, open_checkpoint


@dataclass(frozen=True)
class Logged:
    """What a run's folder says without anything being built. ``results``: empty where the run has not ended."""

    path: Path
    folder: Path
    spec: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any] = field(default_factory=dict)


class Subject:
    """A run of a report. Parts are built when they are first asked for, each once; a :class:`ContralexError` says what
    cannot be."""

    def __init__(self, logged: Logged, label: str) -> None:
        self.logged = logged
        self.label = label
        self.device = devices.to_evaluate_on()

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.logged.path, [MODEL])

    @cached_property
    def resolved(self) -> Resolved:
        """The checkpoint's spec; of a run without one, that of its folder, which is enough for the views."""
        try:
            return self.checkpoint.resolved()
        except ContralexError:
            return resolve_data(self.logged.spec, where=str(self.logged.folder))

    @property
    def spec(self) -> RunSpec:
        return self.resolved.run

    @cached_property
    def views(self) -> Views:
        views: Views = self.spec.method.views.build()
        return views

    @cached_property
    def source(self) -> Source:
        """The run's own data."""
        return build.read_source(self.spec.data)

    @cached_property
    def encoder(self) -> Encoder:
        return self._place(build.encoder_of(self.checkpoint, self.spec))

    def load(self) -> None:
        """Builds the encoder, if it can be built."""
        self.encoder.eval()

    @cached_property
    def untrained(self) -> Encoder:
        return self._place(build.encoder(self.spec)).eval()

    def features(self, encoder: Encoder, split: Split, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, F) of some samples on the CPU, and which of ``indices`` (N,) could be read."""
        dataset = EvalDataset(Subset(split, compact(indices)), self.views)
        workers = devices.workers(self.spec.train.workers, self.device.type)
        found, at = extract_features(encoder.features, dataset, self.spec.eval.batch_size, self.device, workers)
        return found.float().cpu(), at

    def _place(self, encoder: Encoder) -> Encoder:
        return devices.place(encoder, self.device, self.spec.train.channels_last)


def label_runs(folders: Sequence[Path]) -> list[str]:
    """A name for each: its folder's, with as much of what stands above it as tells it from the others."""
    parts = [folder.absolute().parts for folder in folders]
    depth = 1
    while depth < max(map(len, parts)) and len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    labels: list[str] = []
    for part in parts:
        label = "/".join(part[-depth:])
        labels.append(label if label not in labels else f"{label} ({labels.count(label) + 1})")
    return labels


def say_why(error: ContralexError) -> str:
    """The mistake as one line of a page."""
    return " ".join(str(error).split())
