"""Features that are kept on disk: read again as they were made, made again where anything has changed, and whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn

from contralex.data.base import Split, Subset
from contralex.data.loading import EvalDataset
from contralex.errors import ContralexError
from contralex.evaluation import cache as caching
from contralex.evaluation.cache import FeatureCache
from contralex.evaluation.encoding import encode
from contralex.kinds.datasets.folder import FolderSource
from tests.core.test_knn import AsIs, Rows
from tests.processes import free_port, spawn


class Known(Rows):
    """Rows that are known again by a name."""

    def __init__(self, rows: Tensor, name: str = "rows", broken: Sequence[int] = ()) -> None:
        super().__init__(rows, None, broken)
        self.name = name

    def cache_key(self) -> str:
        return self.name


class Twice(nn.Module):
    """Twice the input, (B, 2), and how many samples it has seen. Fails after ``most``."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.seen, self.most = 0, most

    def forward(self, inputs: Tensor) -> Tensor:
        if self.seen + len(inputs) > self.most:
            raise KeyboardInterrupt
        self.seen += len(inputs)
        return 2 * inputs


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "BLOCK", 10)
    monkeypatch.setattr(caching, "_READ", 7)


@pytest.fixture
def store(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features", {"weights": "abc"}, nullcontext)


def rows(count: int = 35) -> Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(count))


def collect(blocks: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[int]]:
    found = list(blocks)
    return torch.cat([features for features, _ in found]), torch.cat([index for _, index in found]).tolist()


def features(
    store: FeatureCache, split: Split, function: nn.Module, which: str = "backbone"
) -> tuple[Tensor, list[int]]:
    return collect(store.encode(function, EvalDataset(split, AsIs()), which, 4, "cpu", 0))


def test_the_second_time_nothing_is_encoded_and_all_is_the_same(store: FeatureCache) -> None:
    function, split = Twice(), Known(rows())
    plain = collect(encode(Twice(), EvalDataset(split, AsIs()), 4, "cpu", 0))
    for _ in range(2):
        found, index = features(store, split, function)
        assert torch.equal(found, plain[0]) and index == plain[1]
        assert torch.equal(found, 2 * rows()[index])
    assert function.seen == 35
    (entry,) = store.folder.iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["entry.json", "features.safetensors"]


@pytest.mark.parametrize("change", ["data", "weights", "features", "transform"])
def test_whatever_changes_makes_features_anew(
    change: str, store: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(store, Known(rows()), Twice())
    split, which = Known(rows(), "others" if change == "data" else "rows"), "backbone"
    if change == "weights":
        store = store.with_key(weights="abd")
    if change == "features":
        which = "embedding"
    if change == "transform":
        monkeypatch.setattr(AsIs, "plain_steps", lambda self: ["another"])
    function = Twice()
    features(store, split, function, which)
    assert function.seen == 35
    assert len(list(store.folder.iterdir())) == 2


def test_an_entry_of_another_key_under_the_same_name_is_not_read(store: FeatureCache) -> None:
    features(store, Known(rows()), Twice())
    (entry,) = store.folder.iterdir()
    said = json.loads((entry / "entry.json").read_text())
    said["key"]["weights"] = "abd"
    (entry / "entry.json").write_text(json.dumps(said))
    function = Twice()
    features(store, Known(rows()), function)
    assert function.seen == 35


@pytest.mark.parametrize("damage", ["short", "no json", "no features"])
def test_a_damaged_entry_is_made_anew(damage: str, store: FeatureCache) -> None:
    features(store, Known(rows()), Twice())
    (entry,) = store.folder.iterdir()
    file = entry / "features.safetensors"
    if damage == "short":
        file.write_bytes(file.read_bytes()[:-3])
    if damage == "no json":
        (entry / "entry.json").write_text("{")
    if damage == "no features":
        file.unlink()
    for _ in range(2):
        found, index = features(store, Known(rows()), Twice())
        assert torch.equal(found, 2 * rows()[index]) and index == list(range(35))


def test_an_extraction_that_was_stopped_goes_on(store: FeatureCache) -> None:
    split = Known(rows(), broken=[3, 12])
    with pytest.raises(KeyboardInterrupt):
        features(store, split, Twice(most=25))
    (entry,) = store.folder.iterdir()
    assert not (entry / "entry.json").exists()
    function = Twice()
    found, index = features(store, split, function)
    assert function.seen == 35 - 20  # two blocks of ten were there, with two samples that cannot be read
    assert index == [at for at in range(35) if at not in (3, 12)]
    assert torch.equal(found, 2 * rows()[index])


def test_features_that_are_there_are_mapped(store: FeatureCache) -> None:
    dataset = EvalDataset(Known(rows()), AsIs())
    assert store.find(dataset, "backbone") is None
    features(store, Known(rows()), Twice())
    found = store.find(dataset, "backbone")
    assert found is not None
    assert torch.equal(found[0], 2 * rows()) and found[1].tolist() == list(range(35))
    found[0].zero_()  # the reader's own
    assert torch.equal(features(store, Known(rows()), Twice())[0], 2 * rows())
    split = Known(rows(), "others", broken=[4])
    features(store, split, Twice())
    again = Known(rows(), "others", broken=[4])
    some = store.find(EvalDataset(again, AsIs()), "backbone")
    assert some is not None and torch.equal(some[0], 2 * rows()[some[1]]) and 4 not in some[1].tolist()
    assert again.skipped.total == 1


def test_what_cannot_be_read_is_named_each_time(store: FeatureCache) -> None:
    for _ in range(2):
        split = Known(rows(), broken=[0, 1, 34])
        _, index = features(store, split, Twice())
        assert index == list(range(2, 34))
        assert split.skipped == ["0", "1", "34"]
        assert split.skipped.total == 3


def test_nothing_readable_is_nothing(store: FeatureCache) -> None:
    split = Known(rows(3), broken=[0, 1, 2])
    assert list(store.encode(Twice(), EvalDataset(split, AsIs()), "backbone", 2, "cpu", 0)) == []
    assert split.skipped.total == 3
    assert list(store.folder.iterdir()) == []


def test_data_that_cannot_be_known_again_are_not_kept(store: FeatureCache) -> None:
    function = Twice()
    for _ in range(2):
        features(store, Rows(rows(), None), function)
    assert function.seen == 70 and not store.folder.exists()


def test_without_room_features_are_made_and_not_kept(store: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "LIMIT", 35 * 8 - 1)
    function = Twice()
    for _ in range(2):
        found, index = features(store, Known(rows()), function)
        assert torch.equal(found, 2 * rows()) and index == list(range(35))
    assert function.seen == 70
    assert list(store.folder.iterdir()) == []


def test_a_run_that_others_may_only_read_is_read(store: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    features(store, Known(rows()), Twice())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("contralex.evaluation.cache.os.utime", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    function = Twice()
    shared = FeatureCache(store.folder, store.key, _Held)
    assert torch.equal(features(shared, Known(rows()), function)[0], 2 * rows())
    assert function.seen == 0
    assert torch.equal(features(shared, Known(rows(), "others"), function)[0], 2 * rows())


def test_a_folder_that_is_being_written_by_another_is_left_alone(store: FeatureCache) -> None:
    busy = FeatureCache(store.folder, store.key, _Held)
    found, _ = features(busy, Known(rows()), Twice())
    assert torch.equal(found, 2 * rows())
    assert not list(store.folder.glob("*/entry.json"))


class _Held(AbstractContextManager[None]):
    def __init__(self, folder: Path) -> None: ...

    def __enter__(self) -> None:
        raise ContralexError("another process has it")

    def __exit__(self, *error: object) -> None: ...


def test_what_was_not_used_for_longest_is_removed(store: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 0
    for number, name in enumerate(("first", "second")):
        features(store, Known(rows(), name), Twice())
        for entry in store.folder.iterdir():
            if json.loads((entry / "entry.json").read_text())["key"]["data"] == name:
                size = sum(file.stat().st_size for file in entry.iterdir())
                for file in entry.iterdir():
                    os.utime(file, (number, number))
    features(store, Known(rows(), "first"), Twice())  # used again
    monkeypatch.setattr(caching, "LIMIT", 5 * size // 2)
    features(store, Known(rows(), "third"), Twice())
    kept = {json.loads(file.read_text())["key"]["data"] for file in store.folder.glob("*/entry.json")}
    assert kept == {"first", "third"}
    assert len(list(store.folder.iterdir())) == 2


# On several processes


def _worker(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    store, function = FeatureCache(Path(folder) / "features", {"weights": "abc"}, nullcontext), Twice()
    split = Known(rows(), broken=[5, 33])
    caching.BLOCK = 10
    made = features(store, split, function)
    again = features(store, split, function)
    torch.save((made, again, function.seen, split.skipped.total), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_encode_each_sample_once(tmp_path: Path) -> None:
    port = free_port()
    spawn(_worker, (port, str(tmp_path)))
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert sum(seen for _, _, seen, _ in results) == 33
    assert [total for *_, total in results] == [2, 2]
    for found in zip(*[(made, again) for made, again, *_ in results], strict=True):
        index = [at for _, part in found for at in part]
        assert index == [at for at in range(35) if at not in (5, 33)]
        assert torch.equal(torch.cat([part for part, _ in found]), 2 * rows()[index])


# By what data are known again


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(4):
        path = folder / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return folder


def test_a_folder_that_nothing_happened_to_is_the_same(photos: Path) -> None:
    first, again = (FolderSource(photos, held_out=0).train() for _ in range(2))
    assert first.cache_key() == again.cache_key()
    assert first.fingerprint() == again.fingerprint()


@pytest.mark.parametrize("change", ["written", "renamed", "removed", "limit"])
def test_a_folder_that_something_happened_to_is_another(change: str, photos: Path) -> None:
    before = FolderSource(photos, held_out=0).train()
    file = photos / "1" / "1.png"
    keys = before.cache_key(), before.fingerprint()
    if change == "written":
        seen = file.stat()
        file.write_bytes(bytes(file.read_bytes()))
        os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # as `cp -p` leaves it
    if change == "renamed":
        file.rename(file.with_name("9.png"))
    if change == "removed":
        file.unlink()
    after = FolderSource(photos, held_out=0, max_pixels=100 if change == "limit" else 10**6).train()
    assert after.cache_key() != keys[0]
    assert (after.fingerprint() == keys[1]) == (change in ("written", "limit"))


def test_a_moved_folder_has_the_same_fingerprint_and_another_key(photos: Path) -> None:
    before = FolderSource(photos, held_out=0).train()
    keys = before.cache_key(), before.fingerprint()
    photos = photos.rename(photos.with_name("moved"))
    after = FolderSource(photos, held_out=0).train()
    assert after.cache_key() != keys[0] and after.fingerprint() == keys[1]


def test_a_part_is_known_by_what_it_is_of_and_by_its_indices() -> None:
    keys = {Subset(Known(rows(), name), index).cache_key() for name in "ab" for index in ([0, 1], [1, 0], [0])}
    assert len(keys) == 6
    assert Subset(Rows(rows(), None), [0]).cache_key() is None
