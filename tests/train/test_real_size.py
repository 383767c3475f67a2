"""The life of a run over as many images as ImageNet has, with images of one pixel: what grows with their number."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from contralex import resolve
from contralex.data.base import Split, Unreadable, compact
from contralex.data.loading import EpochSampler
from contralex.data.paths import Paths
from contralex.data.texts import Texts
from contralex.evaluation.knn import evaluate_knn
from contralex.evaluation.linear import evaluate_linear
from contralex.lookup.slots import Encoder
from contralex.recipes.run_spec import KNNSpec, LinearSpec
from contralex.training import build
from contralex.training.run import train
from tests.core.test_knn import AsIs, Pair

CLASSES = 100


class Lazy(Split):
    """Images that are made where they are asked for; each is its class's colour, nearly."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.labels = compact(index % CLASSES for index in range(count))
        self.colours = torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return self.colours[index % CLASSES] + (index % 977) * 1e-5


class Wide(Encoder):
    dim = 256

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, self.dim)

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.features(pixels) for view, pixels in views.items()}

    def features(self, view: Tensor) -> Tensor:
        features: Tensor = self.layer(view.flatten(1))
        return features


class Pictures(Lazy):
    """Images that every method trains on, of which some are broken."""

    def __getitem__(self, index: int) -> Any:
        if index % 50 == 7:
            raise Unreadable(f"{index}.png", "broken")
        return Image.new("RGB", (32, 32), (index % 251, index % 83, 0))


def trained(count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A few steps with a memory bank of so many samples, from the start to the results."""
    sets = (
        "method.encoder.backbone={kind: conv, widths: [4], strides: [4]}",
        "method.encoder.projector=[{width: 8}]",
        "method.negatives.draws=64",
        *("train.batch_size=100", "train.precision=fp32", "train.workers=0", "train.max_steps=3"),
        "eval={knn: null, linear: null}",
    )
    monkeypatch.setattr(build, "read_source", lambda _: Pair(Pictures(count), Pictures(100)))
    return train(resolve("instdisc", preset="digits", sets=sets), folder)


def resident() -> float:
    """MiB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def walk(count: int) -> dict[str, Any]:
    """Everything of a run that passes over all of its samples, and how many MiB it left this process with."""
    before = resident()
    source = Pair(Lazy(count), Lazy(1000))
    sampler = EpochSampler(count, 256, 0, epochs=1)
    assert sum(len(batch) for batch in sampler) == count // 256 * 256
    found: dict[str, Any] = {"sampler": resident() - before}
    encoder = Wide()
    found["baseline"] = evaluate_knn(encoder, source, AsIs(), KNNSpec(), 512, "cpu", baseline=True).protocol
    found["knn"] = evaluate_knn(encoder, source, AsIs(), KNNSpec(), 512, "cpu")
    found["linear"] = evaluate_linear(None, source, AsIs(), LinearSpec(iterations=3), 512, "cpu").protocol
    return {**found, "end": resident() - before}


def test_paths_are_kept_in_the_bytes_of_their_names(tmp_path: Path) -> None:
    names = [f"n0144{index % 10}/picture-{index}.jpg" for index in range(1000)] + ["ä/\udcff.png"]
    paths = Paths(tmp_path, Texts(names))
    assert paths == [tmp_path / name for name in names] and paths[-1] == tmp_path / names[-1]
    assert paths[3:5] == [tmp_path / name for name in names[3:5]]
    assert paths.names.nbytes < 40 * len(names) < sys.getsizeof(tmp_path) * len(names)
    with pytest.raises(IndexError):
        paths[len(names)]


def test_texts_are_added_and_selected_many_at_a_time_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["", "a", "ä", "\udcff", "long " * 9, "b"]
    one = Texts()
    for word in words:
        one.append(word)
    monkeypatch.setattr("contralex.data.texts._TOGETHER", 4)
    many = Texts(iter(words))
    assert many == one == words and list(many) == words and many.nbytes == one.nbytes
    assert list(many.select([5, 0, -2, 3, 3])) == ["b", "", "long " * 9, "\udcff", "\udcff"]
    assert len(many.select([])) == 0
    with pytest.raises(IndexError):
        many.select([6])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_run_over_many_samples_keeps_little_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contralex.evaluation.features.LARGE", 1 << 20)
    monkeypatch.setattr("contralex.evaluation.features.BASELINE_TRAIN", 500)
    found = walk(4000)
    assert found["baseline"]["train_samples"] == 500 and found["baseline"]["train_of"] == 4000
    assert found["knn"].protocol["kept_in"] == "float16" and found["knn"].top1 > 0.95
    assert found["linear"]["train_samples"] == 500


def test_what_is_stored_beside_tensors_does_not_grow_with_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("contralex.data.skipped.NAMED", 3)
    monkeypatch.setattr("contralex.training.display._LARGE", 100_000)
    sizes = {}
    for count in (200, 20_000):
        results = trained(count, tmp_path / str(count), monkeypatch)
        assert results["skipped_image_count"] > len(results["skipped_images"]) == 3
        checkpoint = tmp_path / str(count) / "checkpoints" / "step-3"
        sizes[count] = {
            "state": len((checkpoint / "state.json").read_bytes()),
            "results": len((tmp_path / str(count) / "results.json").read_bytes()),
        }
        assert f"skipped: {results['skipped_image_count'] - 3} more" in (said := capsys.readouterr().out)
        assert ("method.negatives keeps 625 KiB on each process" in said) == (count == 20_000)
    for name, size in sizes[20_000].items():
        assert abs(size - sizes[200][name]) < 100, name


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_the_life_of_a_run_over_imagenets_number_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resident()
    results = trained(1_281_167, tmp_path, monkeypatch)
    assert results["steps"] == 3 and results["skipped_image_count"] > 0
    assert (tmp_path / "checkpoints" / "step-3" / "state.json").stat().st_size < 100_000
    print({"a run with a bank of 39 MiB": resident() - before, "peak": getrusage(RUSAGE_SELF).ru_maxrss / 1024})
    found = walk(1_281_167)
    print({"peak": getrusage(RUSAGE_SELF).ru_maxrss / 1024})
    print({name: value for name, value in found.items() if isinstance(value, float)})
    assert found["sampler"] < 100  # MiB: labels and an order, of 8 bytes each
    assert found["baseline"]["train_samples"] == found["linear"]["train_samples"] == 50_000
    assert found["knn"].protocol["kept_in"] == "float16" and found["knn"].protocol["train_samples"] == 1_281_167
    assert found["knn"].top1 > 0.95
