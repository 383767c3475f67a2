"""What a folder's sub-folders are taken for: a table of layouts, as tools and people make them."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contralex.data.layout import role_of, roles_among, walk
from contralex.kinds.datasets.folder import FolderSource
from contralex.plugin import ContralexError


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "png")
    return file.getvalue()


PNG = png()


def make(root: Path, tree: dict[str, int | str]) -> Path:
    """So many images in each folder; a text is where the folder leads, as a link."""
    for name, found in tree.items():
        folder = root / name
        if isinstance(found, str):
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(root / found)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(found):
            (folder / f"{number}.png").write_bytes(PNG)
    return root


def source(root: Path, **options: Any) -> FolderSource:
    return FolderSource(root, **options)


def cats_and_dogs(*folders: str, count: int = 5) -> dict[str, int | str]:
    return {f"{folder}/{name}".strip("/"): count for folder in folders for name in ("cat", "dog")}


NO_LABELS = "to train on without labels; none to evaluate on"
HELD = "to train on in 2 classes (cat, dog); 2 to evaluate on (20% of each class, held out)"
TRAIN = "10 images to train on (folder {}) in 2 classes (cat, dog); 4 to evaluate on (folder {})"


def split(train: str, *judged: str) -> dict[str, int | str]:
    return cats_and_dogs(train) | {name: n for one in judged for name, n in cats_and_dogs(one, count=2).items()}


LAYOUTS: dict[str, tuple[dict[str, int | str], str]] = {
    # without splits
    "flat": ({"": 4}, f"4 images {NO_LABELS}"),
    "class folders": (cats_and_dogs(""), f"8 images {HELD}"),
    "nested in classes": (
        {"cat/2019": 3, "cat/2020": 2, "dog/a/b": 5},
        f"8 images {HELD}",
    ),
    "one folder": ({"images": 4}, f"4 images {NO_LABELS}"),
    "a wrapper": (cats_and_dogs("images"), f"8 images {HELD}"),
    "two wrappers": (cats_and_dogs("data/images"), f"8 images {HELD}"),
    "a wrapper in each class": ({"cat/images": 5, "dog/images": 5}, f"8 images {HELD}"),
    "a class called test": (
        cats_and_dogs("") | {"test": 5},
        "12 images to train on in 3 classes (cat, dog, test); 3 to evaluate on (20% of each class, held out)",
    ),
    "vehicles, of which one is a train": (
        {"bus": 5, "car": 5, "train": 5},
        "12 images to train on in 3 classes (bus, car, train); 3 to evaluate on (20% of each class, held out)",
    ),
    "places, of which some have to do with trains": (
        {"airport": 5, "train_interior": 5, "train_station": 5},
        "12 images to train on in 3 classes (airport, train_interior, train_station); "
        "3 to evaluate on (20% of each class, held out)",
    ),
    "years and months": (
        {f"{year}/{month}": 2 for year in (2023, 2024) for month in ("jan", "feb", "mar")},
        f"12 images {NO_LABELS}; 2023 and 2024 both have folders feb, jan, mar, so they are not taken for classes; "
        "if they are:\n  --set data.labels=folders",
    ),
    "splits that no one knows": (
        split("a", "b"),
        f"14 images {NO_LABELS}; a and b both have folders cat, dog, so they are not taken for classes; "
        "if they are:\n  --set data.labels=folders",
    ),
    # splits
    "train and val": (split("train", "val"), TRAIN.format("train", "val")),
    "train and valid": (split("train", "valid"), TRAIN.format("train", "valid")),
    "train and test": (split("train", "test"), TRAIN.format("train", "test")),
    "training and validation": (split("training", "validation"), TRAIN.format("training", "validation")),
    "capitals": (split("Train", "TEST"), TRAIN.format("Train", "TEST")),
    "train and dev": (split("train", "dev"), TRAIN.format("train", "dev")),
    "train and eval": (split("train", "eval"), TRAIN.format("train", "eval")),
    "training_set and testing_set": (split("training_set", "testing_set"), TRAIN.format("training_set", "testing_set")),
    "years": (split("train2017", "val2017"), TRAIN.format("train2017", "val2017")),
    "prefixes and wrappers": (split("seg_train/seg_train", "seg_test/seg_test"), TRAIN.format("seg_train", "seg_test")),
    "an export": (
        split("train", "valid", "test"),
        TRAIN.format("train", "valid") + "; folder test (4) is left out",
    ),
    "an export in a wrapper": (
        split("export/train", "export/valid", "export/test"),
        TRAIN.format("train", "valid") + "; folder test (4) is left out",
    ),
    "splits with wrappers": (split("train/images", "val/images"), TRAIN.format("train", "val")),
    "splits of detection tools": (
        {"images/train": 5, "images/val": 2, "labels/train": 0, "labels/val": 0},
        "5 images to train on (folder train) without labels; 2 to evaluate on (folder val)",
    ),
    "splits without classes": (
        {"train": 5, "test": 2},
        "5 images to train on (folder train) without labels; 2 to evaluate on (folder test)",
    ),
    "a lone train": (cats_and_dogs("train"), "8 images to train on (folder train)" + HELD.removeprefix("to train on")),
    "an empty val": (
        cats_and_dogs("train") | {"val": 0},
        "8 images to train on (folder train)" + HELD.removeprefix("to train on") + "; folder val is empty",
    ),
    "an empty val beside a test": (
        split("train", "test") | {"val": 0},
        TRAIN.format("train", "test") + "; folder val is empty",
    ),
    "a test without labels": (
        cats_and_dogs("train") | {"test": 3},
        "8 images to train on (folder train)"
        + HELD.removeprefix("to train on")
        + "; folder test is left out, because it does not have the class folders",
    ),
    "a val without labels, beside a test that has them": (
        split("train", "test") | {"val/images": 3},
        TRAIN.format("train", "test") + "; folder val is left out, because it does not have the class folders",
    ),
    "a val of one class": (
        cats_and_dogs("train") | {"val/dog": 2},
        "10 images to train on (folder train) in 2 classes (cat, dog); 2 to evaluate on (folder val)",
    ),
    "splits beside others": (
        split("train", "val") | {"extra": 3, "masks": 2},
        TRAIN.format("train", "val") + "; folder extra (3) is left out; folder masks (2) is left out",
    ),
    "train beside a split with a name of its own": (
        split("train", "holdout"),
        "8 images to train on (folder train)" + HELD.removeprefix("to train on") + "; folder holdout (4) is left out",
    ),
    # strays
    "one stray image": (
        cats_and_dogs("") | {"": 1},
        f"8 images {HELD}; 0.png lies beside the class folders and is left out",
    ),
    "one stray image beside splits": (
        split("train", "val") | {"": 1},
        TRAIN.format("train", "val") + "; 0.png lies beside the splits and is left out",
    ),
    "one stray image beside a wrapper": (
        cats_and_dogs("images") | {"": 1},
        f"8 images {HELD}; 0.png lies beside folder images and is left out",
    ),
    "many images beside folders": (
        {"": 5, "cat": 5, "dog": 5},
        f"15 images {NO_LABELS}; 5 files lie beside the folders, so those are not taken for classes",
    ),
    "what systems leave behind": (
        cats_and_dogs("")
        | dict.fromkeys(("@eaDir", "__MACOSX/cat", ".git", "lost+found", "$RECYCLE.BIN", "cat/@eaDir"), 3)
        | {"System Volume Information": 1, ".ipynb_checkpoints": 1},
        f"8 images {HELD}",
    ),
    "an empty class": (cats_and_dogs("") | {"eel": 0}, f"8 images {HELD}"),
    "a class that is another one by a link": (cats_and_dogs("") | {"kitten": "cat"}, f"8 images {HELD}"),
    "a link that leads back up": (cats_and_dogs("") | {"cat/all": ""}, f"8 images {HELD}"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_taken_for_what_it_is_and_said_so(tmp_path: Path, name: str) -> None:
    tree, sentence = LAYOUTS[name]
    found = source(make(tmp_path, tree))
    assert found.describe() == sentence
    train, test = found.train(), found.test()
    assert not (test and set(train.paths) & set(test.paths))
    for part in filter(None, (train, test)):
        assert part.labels is None or len(part.labels) == len(part)


REFUSED: dict[str, tuple[dict[str, int | str], str]] = {
    "no folder to train on": (
        split("val", "test"),
        r"has the folders test, val, and none to train on.*\n  --set data\.root",
    ),
    "two folders to train on": (split("train", "training"), r"has the folders train, training, of which each may be"),
    "train beside classes": (
        cats_and_dogs("train", ""),
        r"has a folder train beside cat, dog, so that it may be the training split or a class.*\n  --set data\.lab",
    ),
    "train beside one folder": ({"train": 5, "unlabelled": 5}, r"folder train beside unlabelled, so that it may be"),
    "splits in the classes": (
        {f"{name}/{part}": 3 for name in ("cat", "dog") for part in ("train", "test")},
        r"cat has the folders test, train, and so has dog beside it.*\n  --set data\.labels=none",
    ),
    "a val with a strange class": (
        split("train", "val") | {"val/cow": 1},
        r"val has a folder cow, and there is no such class in .*train",
    ),
    "a val that is train by a link": (cats_and_dogs("train") | {"val": "train"}, "are the same folder by a link"),
    "a dev that is train by a link": (cats_and_dogs("train") | {"dev": "train"}, "are the same folder by a link"),
    "an empty train": (cats_and_dogs("val") | {"train": 0}, r"train is empty; put the images to train on there"),
    "nothing": ({"cat": 0}, "has no images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_that_may_be_two_things_is_refused(tmp_path: Path, name: str) -> None:
    tree, sentence = REFUSED[name]
    with pytest.raises(ContralexError, match=f"(?s){sentence}"):
        source(make(tmp_path, tree))


@pytest.mark.parametrize("name", ["no folder to train on", "train beside classes", "train beside one folder"])
def test_folders_that_are_classes_for_certain(tmp_path: Path, name: str) -> None:
    tree, _ = REFUSED[name]
    found = source(make(tmp_path, tree), labels="folders").train()
    assert found.classes == sorted({folder.split("/")[0] for folder in tree})
    assert source(tmp_path, labels="none").train().classes is None


def test_labels_that_are_not_wanted_leave_the_splits(tmp_path: Path) -> None:
    found = source(make(tmp_path, split("train", "valid", "test")), labels="none")
    assert found.describe() == (
        "10 images to train on (folder train) without labels; 4 to evaluate on (folder valid); "
        "folder test (4) is left out"
    )


def test_links_to_a_pool_of_images_may_be_splits(tmp_path: Path) -> None:
    make(tmp_path, {"pool": 6})
    for number, folder in enumerate(["train/cat"] * 2 + ["train/dog"] * 2 + ["val/cat", "val/dog"]):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{number}.png").symlink_to(tmp_path / "pool" / f"{number}.png")
    assert source(tmp_path).describe() == (
        "4 images to train on (folder train) in 2 classes (cat, dog); 2 to evaluate on (folder val); "
        "folder pool (6) is left out"
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"), ("Training", "train"), ("TRAIN2017", "train"), ("trainset", "train"), ("train1", "train"),
        ("val", "val"), ("valid", "val"), ("Validation", "val"), ("dev", "val"), ("eval", "val"), ("evaluation", "val"),
        ("test", "test"), ("testing", "test"), ("Test_Set", "test"), ("test1", "test"),
        ("trains", None), ("trainer", None), ("retraining", None), ("devices", None), ("value", None), ("valley", None),
        ("testosterone", None), ("contest", None), ("train-test", None), ("evaluate", None), ("cat", None),
    ],
)  # fmt: skip
def test_names_of_splits(name: str, role: str | None) -> None:
    assert (role_of(name) or (None,))[0] == role


def test_a_word_beside_the_split_counts_where_another_split_has_it() -> None:
    assert roles_among(["seg_train", "seg_test", "train_station", "cat"]) == {
        "seg_train": ("train", "seg"),
        "seg_test": ("test", "seg"),
    }


def test_pictures_that_pil_does_not_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "contralex.kinds.datasets.folder._extensions", lambda: frozenset({".png", ".jpg"})
    )  # without pillow-heif
    make(tmp_path, {"": 8})
    for name in ("a.heic", "b.HEIC", "c.NEF", ".hidden.heic"):
        (tmp_path / name).touch()
    assert source(tmp_path).describe() == (
        f"8 images {NO_LABELS}; 2 of .heic and 1 of .nef are left out, which PIL does not read:"
        "\n  pip install pillow-heif"
    )
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(ContralexError, match=r"has no images.* 2 of \.heic and .*\n  pip install pillow-heif"):
        source(tmp_path)


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, {"": 2, "closed": 3})
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert source(tmp_path).describe().endswith(f"; {tmp_path / 'closed'} cannot be opened (Permission denied)")


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    strange = os.fsdecode(b"caf\xe9")
    make(tmp_path, {strange: 5, "dog": 5})
    (tmp_path / strange / f"{strange}.png").write_bytes(PNG)
    (tmp_path / strange / os.fsdecode(b"broken\xff.png")).write_bytes(b"")
    found = source(tmp_path)
    text = found.describe()
    assert text.encode() and "(caf\\udce9, dog)" in text
    assert found.train().skipped == [str(tmp_path / "caf\\udce9" / "broken\\udcff.png")]
    train, test = found.train(), found.test()
    assert test is not None and len(train) + len(test) == 11
    assert all(train[index].size == (2, 2) for index in range(len(train)))


def test_the_walk_reads_each_folder_once(tmp_path: Path) -> None:
    make(tmp_path, cats_and_dogs("") | {"cat/all": "", "kitten": "cat"})
    found = walk(tmp_path, {".png"})
    assert {parts: len(names) for parts, names in found.files.items()} == {("cat",): 5, ("dog",): 5}
    assert found.again == {("cat", "all"): (), ("kitten",): ("cat",)}


@pytest.mark.parametrize("seed", range(10))
def test_files_are_sorted_by_their_paths_and_labelled_by_their_first_folders(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for folder in ("b", "B", "a.b", "é"):
        inside = {f"{folder}/{'/'.join(rng.choices('abc.', k=rng.randrange(4)))}".replace(".", "b.c") for _ in range(4)}
        tree: dict[str, int | str] = {name: rng.randrange(1, 4) for name in (folder, *sorted(inside))}
        make(tmp_path, tree)
        for name in rng.choices(["b.png", "b.x.PNG", "bb.png", "B.png", ".png", "b.txt", "b"], k=2):
            if not (tmp_path / folder / name).exists():
                (tmp_path / folder / name).write_bytes(PNG)
    found = source(tmp_path, labels="folders", held_out=0).train()
    seen = (path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    wanted = sorted(path.parts for path in seen if path.suffix.lower() == ".png")
    assert [path.relative_to(tmp_path).parts for path in found.paths] == wanted
    assert found.classes == sorted({parts[0] for parts in wanted})
    assert found.labels == [found.classes.index(parts[0]) for parts in wanted]
    assert list(found.paths.strings()) == [str(path) for path in found.paths]


def test_the_digest_of_a_folder_stays(tmp_path: Path) -> None:
    for name in ("cat/b", "cat/a/1", "cat/a", "dog/1", "dog/2", os.fsdecode(b"dog/caf\xe9")):
        path = tmp_path / f"{name}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    found = source(tmp_path, held_out=0).train()
    assert found.fingerprint() == "c845a311b3ae94a1a3f403ba0d1507d1bb0adde0522d4cf53477d4ac2df23bf2"


def test_a_link_to_itself_is_a_file_as_a_broken_link_is(tmp_path: Path) -> None:
    make(tmp_path, {"": 1})
    for name in ("loop.png", "gone.png"):
        (tmp_path / name).symlink_to(tmp_path / name.replace("gone", "nothing"))
    assert walk(tmp_path, {".png"}).files == {(): ["0.png", "gone.png", "loop.png"]}
