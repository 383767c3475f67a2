"""What a run of a DeepCluster does before its first step, and what it refuses there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
from contralex.training.run import train
from contralex_swav.memory import ClusterMemory
from tests.train.tiny import TINY


def test_the_first_clusters_are_of_the_untrained_encoders_embeddings(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image twice has one embedding twice, but for chance; random vectors, which the memory begins as, have not."""
    seen: list[Any] = []
    prepare = ClusterMemory.prepare

    def watched(self: ClusterMemory, step: Any) -> None:
        if not seen:
            seen.extend([self.seen.clone(), *(self.memory(view).clone() for view in self.views)])
        prepare(self, step)

    monkeypatch.setattr(ClusterMemory, "prepare", watched)
    sets = [*TINY, "method.negatives.count=6", "train.epochs=1", "train.batch_size=12"]
    train(resolve("deepcluster-v2", preset="digits", data=str(images), sets=sets), tmp_path / "run")
    known, one, other = seen
    assert int(known.sum()) == 36  # of 40: what is incomplete of the last batch stays unseen
    alike = torch.einsum("nd,nd->n", one, other)
    assert float(alike[known].mean()) > 0.25 > abs(float(alike[~known].mean()))


def test_samples_are_clustered_anew_every_so_many_epochs(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clustered: list[int] = []
    prepare = ClusterMemory.prepare

    def watched(self: ClusterMemory, step: Any) -> None:
        before = int(self.epoch)
        prepare(self, step)
        if int(self.epoch) != before:
            clustered.append(step.clock.epoch)

    monkeypatch.setattr(ClusterMemory, "prepare", watched)
    sets = [*TINY, "method.negatives.count=6", "train.epochs=5", "train.batch_size=12"]
    for reassign, epochs in ((1, [0, 1, 2, 3, 4]), (2, [0, 2, 4])):
        clustered.clear()
        run = [*sets, f"method.negatives.reassign={reassign}"]
        train(resolve("deepcluster-v2", preset="digits", data=str(images), sets=run), tmp_path / str(reassign))
        assert clustered == epochs


def test_more_clusters_than_samples_are_refused(images: Path, tmp_path: Path) -> None:
    resolved = resolve("deepcluster-v2", preset="digits", data=str(images), sets=[*TINY, "method.negatives.count=41"])
    with pytest.raises(
        ContralexError, match=r"method.negatives needs 41 samples in an epoch, and its whole batches have 40"
    ):
        train(resolved, tmp_path / "run")
