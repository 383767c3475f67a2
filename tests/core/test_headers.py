"""Of many files a part is looked at before a run starts, by one process; what cannot be read is counted in bounds."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import pytest
import torch.distributed as dist
from PIL import Image

from contralex.data import headers, images, skipped
from contralex.data.loading import ViewDataset
from contralex.data.skipped import Skipped
from contralex.kinds.datasets.folder import FolderSource
from contralex.plugin import ContralexError
from tests.core.test_data import Numbers, _Colour
from tests.processes import free_port, spawn

FILES = 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two broken files: with 10 looked at, every third, the one at 3 is found."""
    for number in range(FILES):
        path = tmp_path / "images" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    for number in (3, 4):
        (tmp_path / "images" / f"{number:02}.png").write_text("no image")
    return tmp_path / "images"


def opened(folder: Path) -> FolderSource:
    return FolderSource(folder)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "CHECKED", 10)


@pytest.mark.parametrize(("count", "every"), [(1, 1), (20_000, 1), (20_001, 2), (1_281_167, 65)])
def test_at_most_so_many_files_are_looked_at(count: int, every: int) -> None:
    which = headers.checked(count)
    assert which.step == every and len(which) == -(-count // every) <= headers.CHECKED
    assert bool(headers.note(count)) == (every > 1)


@pytest.mark.usefixtures("few")
def test_of_many_files_a_part_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    whole = images.header_fault

    def counted(path: Path, max_pixels: int) -> str | None:
        looked.append(path.name)
        return whole(path, max_pixels)

    monkeypatch.setattr(images, "header_fault", counted)
    source = opened(folder)
    train = source.train()
    assert sorted(looked) == [f"{number:02}.png" for number in range(0, FILES, 3)]
    assert train.skipped == [str(folder / "03.png")] and len(train) == FILES - 1
    assert source.describe().endswith(
        "; 9 of these files were looked at, evenly spread; others that are broken are found when read"
    )
    item = ViewDataset(train, _Colour(), 0, 1)[0, 3]
    assert item["unreadable"] == {str(folder / "04.png"): "it is no image that PIL can read"}
    assert item["index"] != 3 and item["views"][0][0] == int(train.paths[item["index"]].stem)  # type: ignore[attr-defined]


def test_of_few_files_all_are_looked_at(folder: Path) -> None:
    source = opened(folder)
    assert source.train().skipped == [str(folder / "03.png"), str(folder / "04.png")]
    assert "looked at" not in source.describe()


@pytest.mark.usefixtures("few")
def test_where_none_of_the_part_can_be_read(folder: Path) -> None:
    for number in range(0, FILES, 3):
        (folder / f"{number:02}.png").write_text("no image")
    with pytest.raises(ContralexError, match=r"has 25 images, and none of the 9 that were looked at can be read; .*00"):
        opened(folder)


def test_one_process_looks_for_all(folder: Path, tmp_path: Path) -> None:
    port = free_port()
    spawn(_open_on, (port, folder, tmp_path))
    (main, looked), (other, not_looked) = (
        pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(2)
    )
    assert (looked, not_looked) == (FILES, 0)
    assert main == other == ([f"{n:02}.png" for n in range(FILES) if n not in (3, 4)], ["03.png", "04.png"])


def _open_on(rank: int, port: int, folder: Path, out: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    looked, whole = 0, images.header_fault

    def counted(path: Path, max_pixels: int) -> str | None:
        nonlocal looked
        looked += 1
        return whole(path, max_pixels)

    images.header_fault = counted
    if rank:  # the main process goes first, as it does in a run
        dist.barrier()
    split = opened(folder).train()
    if not rank:
        dist.barrier()
    names = [path.name for path in split.paths], [Path(path).name for path in split.skipped]  # type: ignore[attr-defined]
    (out / f"{rank}.pickle").write_bytes(pickle.dumps((names, looked)))
    dist.barrier()  # the main process is there while others ask it, as in a run
    dist.destroy_process_group()


# What is kept of items that cannot be read


def test_many_unreadable_items_are_counted_and_the_first_are_named(caplog: pytest.LogCaptureFixture) -> None:
    split, count = Numbers(6), skipped.NAMED + 50
    with caplog.at_level(logging.WARNING, "contralex"):
        for _ in range(2):  # each counts once, named or not
            for number in range(count):
                split.skip(f"{number}.png", "truncated")
    assert split.skipped.total == count
    assert split.skipped == [f"{number}.png" for number in range(skipped.NAMED)]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == skipped.NAMED + 1
    assert said[-1] == "More than 100 items cannot be read; the others are counted, and not named."


def test_what_processes_have_found_is_joined() -> None:
    parts = [Skipped(), Skipped()]
    for part, numbers in zip(parts, (range(150), range(100, 400)), strict=True):
        for number in numbers:
            part.add(f"{number}.png", "empty")
    split = Numbers(6)
    for part in pickle.loads(pickle.dumps(parts)):
        split.skip_all(part)
    assert split.skipped.total == 400
    assert split.skipped == [f"{number}.png" for number in range(skipped.NAMED)]
