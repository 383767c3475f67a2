"""``contralex search``, ``cluster`` and ``duplicates``: what they find in a folder, print and draw."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import contralex
from contralex import ContralexError
from contralex.__main__ import main
from contralex.api import contact_sheet, searching
from contralex.api.contact_sheet import Cell, Section, fit
from contralex.data.base import Source, Split
from contralex.evaluation.clustering import find_hdbscan, find_k_means, measure_agreement
from contralex.exporting.original import Original
from tests.noise import noise

FEW = {
    **{"train.max_steps": 2, "train.log_every": 1, "train.workers": 0, "eval.linear": None, "eval.knn": None},
    "train.batch_size": 8,
}
COLOURS = {"green": (40, 160, 60), "red": (180, 50, 40)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> contralex.Run:
    own = tmp_path_factory.mktemp("own")
    for number in range(20):
        noise((32, 32), 80, number).save(own / f"{number}.png")
    sets = {**FEW, "method.negatives.size": 16, "train.batch_norm": 8}
    return contralex.train("moco-v2", preset="digits", data=own, sets=sets, out=tmp_path_factory.mktemp("run"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noise in two colours, in class folders of six images each. One file is there three times, and one is broken."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.clip(np.array(colour) + rng.normal(0, 25, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    shutil.copy(folder / "red" / "0.png", folder / "red" / "again.png")
    shutil.copy(folder / "red" / "0.png", folder / "green" / "moved.png")
    whole = (folder / "red" / "1.png").read_bytes()
    (folder / "red" / "1.png").write_bytes(whole[: len(whole) // 2])
    return folder


class Sounds(Source):
    items = "sequences"

    def train(self) -> Split:
        return SoundSplit()

    def test(self) -> None:
        return None


class SoundSplit(Split):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(1, 100)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["contralex", *map(str, words)])
    return main()


# Search


def test_neighbours_are_those_of_a_naive_loop(run: contralex.Run, photos: Path) -> None:
    queries = [photos / "green" / "2.png", photos / "red" / "3.png"]
    found = run.search(queries, photos, k=4)
    embedded = run.embed(photos)
    for query, line in zip(queries, found.neighbours, strict=True):
        own = run.encoder.features(run.transform(query)[None]).detach()[0]
        cosines = [float(F.cosine_similarity(own, row, dim=0)) for row in embedded.features]
        best = sorted(range(len(cosines)), key=lambda i, cosines=cosines: -cosines[i])[:4]  # type: ignore[misc]
        assert [each.path for each in line] == [embedded.paths[i] for i in best]
        assert [each.cosine for each in line] == pytest.approx([cosines[i] for i in best], abs=1e-5)
        assert [each.class_name for each in line] == [embedded.paths[i].split("/")[0] for i in best]
    assert found.queries == [str(query) for query in queries]
    assert repr(found).splitlines()[0] == "The nearest of 13 images, by the cosine of the backbone features"
    assert f"{photos / 'red' / '1.png'} (" in repr(found).splitlines()[-1]


def test_an_image_of_the_folder_is_marked_or_left_out(run: contralex.Run, photos: Path, tmp_path: Path) -> None:
    query = photos / "red" / "0.png"
    (line,) = run.search(query, photos, k=3).neighbours
    assert {each.path: each.is_query for each in line} == {
        "green/moved.png": False,
        "red/0.png": True,
        "red/again.png": False,
    }
    (link := tmp_path / "link.png").symlink_to(query)
    assert [each.path for each in run.search(link, photos, k=3).neighbours[0] if each.is_query] == ["red/0.png"]
    (without,) = run.search(query, photos, k=3, without_query=True).neighbours
    assert len(without) == 3
    assert [each.path for each in without[:2]] == ["green/moved.png", "red/again.png"]
    (outside,) = run.search(Image.new("RGB", (30, 30)), photos, k=3, without_query=True).neighbours
    assert len(outside) == 3


def test_a_folder_of_fewer_images_gives_all_and_the_runs_own_data_are_searched(
    run: contralex.Run, photos: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(photos / "red" / "0.png", one)
    assert [len(line) for line in run.search(photos / "red" / "2.png", one, k=50).neighbours] == [1]
    assert run.search(one / "0.png", one, k=5, without_query=True).neighbours == [[]]
    found = run.search(photos / "red" / "2.png", k=2)
    assert len(found.embeddings) == 20
    assert found.images.read(found.neighbours[0][0].path) is not None


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("no.png", "search: there is no file "),
        ("red", "is a folder; give the image to search for"),
        ("red/1.png", "red/1.png cannot be read: "),
    ],
)
def test_what_cannot_be_searched_for_is_named(query: str, sentence: str, run: contralex.Run, photos: Path) -> None:
    with pytest.raises(ContralexError, match=sentence):
        run.search([photos / "red" / "0.png", photos / query], photos)
    with pytest.raises(ContralexError, match="give an image to search for"):
        run.search([], photos)
    with pytest.raises(ContralexError, match="k is 0"):
        run.search(photos / "red" / "0.png", photos, k=0)


def test_what_is_no_image_is_refused(run: contralex.Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("contralex.api.image_items.build.read_source", lambda spec: Sounds())
        with pytest.raises(ContralexError, match="holds sequences, and not images"):
            run.search(photos / "red" / "0.png", photos)
    spoken = types.SimpleNamespace(resolved=lambda: contralex.resolve("cpc-audio"))
    monkeypatch.setattr("contralex.api.image_items.open_checkpoint", lambda *_: spoken)
    for ask in (run.duplicates, run.cluster):
        with pytest.raises(ContralexError, match="was trained on data of kind sequence_folder, and not on images"):
            ask(photos)


def test_the_command_prints_a_table_or_json_and_draws(
    run: contralex.Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    query, picture = photos / "red" / "0.png", tmp_path / "found.png"
    assert call(monkeypatch, "search", run.folder, query, "--in", photos, "-k", 2, "--picture", picture) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "query\trank\tcosine\tpath\tclass\tnote"
    assert lines[2].split("\t")[:4] == [str(query), "1", "1.000", "green/moved.png"]
    assert lines[3].split("\t")[3:] == ["red/0.png", "red", "the query itself"]
    assert lines[-1] == f"Saved in {picture}"
    assert Image.open(picture).size[0] > 500
    assert call(monkeypatch, "search", run.folder, query, query, "--in", photos, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["skipped_count"], len(found["queries"])) == (13, 1, 2)
    assert found["queries"][0]["neighbours"][1] == {
        "path": "red/0.png",
        "cosine": pytest.approx(1),
        "class": "red",
        "is_query": True,
    }
    for name, sentence in (("a.bmp", "must end in .png"), ("no/a.png", "there is no folder")):
        assert call(monkeypatch, "search", run.folder, query, "--in", photos, "--picture", tmp_path / name) == 2
        assert sentence in capsys.readouterr().err


def test_queries_and_images_are_encoded_by_one_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {**FEW, "method.negatives.size": 8, "train.batch_norm": 8}
    sets |= {"train.max_steps": 4, "train.checkpoint.every_steps": 2}
    run = contralex.train("moco-v2", preset="digits", data=photos, sets=sets, out=tmp_path / "run")
    _, newest = sorted((run.folder / "checkpoints").glob("step-*"))
    (file,) = newest.glob("optimizer*")  # which no search or export reads
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    opened: list[Path] = []
    for name in ("_features", "embed"):
        function = getattr(searching, name)
        monkeypatch.setattr(
            searching, name, lambda run, *rest, f=function, **named: opened.append(Path(run)) or f(run, *rest, **named)
        )
    run.search(photos / "green" / "2.png", photos)
    assert opened == [newest, newest]
    assert Original(run.folder).checkpoint.folder == newest


def test_every_kind_of_encoder_searches(photos: Path, tmp_path: Path) -> None:
    sets = {**FEW, "method.negatives.draws": 4}
    cmc = contralex.train("cmc", preset="digits", data=photos, sets=sets, out=tmp_path / "cmc")
    (line,) = cmc.search(photos / "green" / "4.png", photos, k=1).neighbours
    assert line[0].path == "green/4.png" and line[0].is_query


# Duplicates


def test_copies_are_found_by_content_and_others_by_cosine(run: contralex.Run, photos: Path) -> None:
    features = F.normalize(run.embed(photos).features, dim=1)
    cosines = (features @ features.T).fill_diagonal_(-1)
    threshold = float(cosines[cosines < 1 - 1e-5].max()) - 1e-6  # one pair beside the copies, at least
    found = run.duplicates(photos, threshold=threshold)
    copies = next(group for group in found.groups if group[0].path == "green/moved.png")
    assert [each.path for each in copies][:3] == ["green/moved.png", "red/0.png", "red/again.png"]
    assert [each.copy_of for each in copies[:3]] == [None, "green/moved.png", "green/moved.png"]
    assert found.copies == 2
    assert found.surplus == sum(map(len, found.groups)) - len(found.groups) > 2
    (alone,) = run.duplicates(photos, threshold=1.0).groups
    assert len(alone) >= 3
    assert repr(found).splitlines()[0].startswith(f"{len(found.groups)} groups of duplicates among 13 images")


def test_the_first_of_a_group_has_the_largest_file(run: contralex.Run, tmp_path: Path) -> None:
    image = noise((64, 64), 50).convert("RGB")
    for quality in (30, 95, 60):
        image.save(tmp_path / f"{quality}.jpg", quality=quality)
    (group,) = run.duplicates(tmp_path, threshold=-1).groups
    assert group[0].path == "95.jpg" and group[0].cosine == pytest.approx(1)
    assert sorted(each.path for each in group) == ["30.jpg", "60.jpg", "95.jpg"]
    assert [each.copy_of for each in group] == [None] * 3
    assert run.duplicates(tmp_path, threshold=1.0).groups == []
    with pytest.raises(ContralexError, match="a cosine lies between -1 and 1"):
        run.duplicates(tmp_path, threshold=1.5)


def test_one_image_has_no_duplicate_and_no_second_cluster(run: contralex.Run, tmp_path: Path) -> None:
    noise((40, 40), 50).save(tmp_path / "only.png")
    assert run.duplicates(tmp_path).groups == []
    found = run.cluster(tmp_path)
    assert [(each.size, each.examples[0][0]) for each in found.clusters] == [(1, "only.png")]
    assert found.agreement is None
    assert run.cluster(tmp_path, by="hdbscan").unclustered == 1


# Clusters


def test_clusters_have_sizes_examples_and_agreement(run: contralex.Run, photos: Path) -> None:
    (photos / "green" / "moved.png").unlink()
    found = run.cluster(photos, clusters=2)
    assert sorted(each.size for each in found.clusters) == [6, 6]
    assert sum(each.size for each in found.clusters) == len(found.of) == 12
    assert found.clusters[0].classes in ({"green": 6}, {"red": 6})
    assert found.agreement == {"nmi": 1.0, "ari": 1.0, "purity": 1.0, "images": 12}
    features = F.normalize(found.embeddings.features, dim=1)
    for each in found.clusters:
        members = [index for index, path in enumerate(found.embeddings.paths) if found.of[path] == each.number]
        centre = F.normalize(features[members].mean(0), dim=0)
        nearest = sorted(members, key=lambda index, centre=centre: -float(features[index] @ centre))  # type: ignore[misc]
        assert each.examples[0][1] == pytest.approx(float(features[nearest[0]] @ centre), abs=1e-5)
        assert len(each.examples) == 6
    assert "Agreement with the classes over 12 images: NMI 1.000, ARI 1.000, purity 1.000." in repr(found)


def test_the_number_of_clusters_is_the_one_with_the_best_silhouette(run: contralex.Run, photos: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    found = run.cluster(photos)
    silhouettes = found.protocol["silhouettes"]
    assert found.protocol["clusters"] == max(silhouettes, key=lambda count: (silhouettes[count], -count))
    of, features = run.cluster(photos, clusters=2).of, found.embeddings.features.numpy()
    score = metrics.silhouette_score(features, [of[path] for path in found.embeddings.paths], metric="cosine")
    assert silhouettes[2] == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clusters": 20}, "20 clusters of 13 images"),
        ({"clusters": 0}, "ask for at least 1"),
        ({"clusters": 2, "by": "hdbscan"}, "HDBSCAN finds the number of clusters itself"),
        ({"by": "dbscan"}, "must be 'kmeans' or 'hdbscan'"),
        ({"by": "hdbscan", "min_size": 1}, "at least 2 images"),
        ({"min_size": 5}, "leave --min-size out, or find clusters by it:\n  --by hdbscan"),
    ],
)
def test_impossible_clusters_are_refused(
    options: dict[str, Any], sentence: str, run: contralex.Run, photos: Path
) -> None:
    with pytest.raises(ContralexError, match=sentence):
        run.cluster(photos, **options)


def blobs(counts: Sequence[int], spread: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    middles = torch.randn(len(counts), 16, generator=generator)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = torch.randperm(len(labels), generator=generator)
    rows = middles[labels] + spread * torch.randn(len(labels), 16, generator=generator)
    return rows[order], labels[order]


@pytest.mark.parametrize("find", [lambda rows: find_k_means(rows, None), find_hdbscan])
def test_clear_clusters_are_found_and_the_largest_is_the_first(find: Callable[[torch.Tensor], Any]) -> None:
    rows, labels = blobs([20, 40, 30, 10])
    found = find(rows)
    assert found.count == 4
    assert measure_agreement(found.cluster, labels) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0, "images": 100}
    assert [int((found.cluster == number).sum()) for number in range(4)] == [40, 30, 20, 10]


def test_a_sample_is_fitted_and_every_row_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = blobs([200, 100])
    monkeypatch.setattr("contralex.evaluation.clustering.SAMPLE", 40)
    monkeypatch.setattr("contralex.evaluation.clustering._ROWS", 64)
    found = find_k_means(rows, 2)
    assert found.protocol["fitted_to"] == 40
    assert measure_agreement(found.cluster, labels) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0, "images": 300}
    monkeypatch.setattr("contralex.evaluation.clustering.HDBSCAN_MOST", 299)
    with pytest.raises(ContralexError, match=r"takes at most 299 images; there are 300(.|\n)*--by kmeans"):
        find_hdbscan(rows)


def test_agreement_is_that_of_a_naive_loop() -> None:
    cluster, labels = torch.tensor([0, 0, 0, 1, 1, -1, 2, 2]), torch.tensor([0, 0, 1, 1, 1, 0, 2, -1])
    found = measure_agreement(cluster, labels)
    assert found is not None
    assert found["images"] == 6
    assert found["purity"] == pytest.approx((2 + 2 + 1) / 6)
    assert measure_agreement(cluster, torch.full((8,), -1)) is None


def test_all_images_alike_are_one_cluster() -> None:
    found = find_k_means(torch.ones(50, 4), None)
    assert (found.count, found.protocol["clusters"]) == (1, 1)


def test_without_scikit_learn_it_is_said_what_to_install(
    run: contralex.Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ContralexError, match=r"pip install 'contralex\[clusters\]'"):
        run.cluster(photos)


def test_the_commands_print_tables_and_json(
    run: contralex.Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, column, key in (
        (["cluster", run.folder, photos, "--clusters", 2], "cluster\timages\tclasses\tnearest to the centre", "of"),
        (["duplicates", run.folder, photos, "--threshold", 0.99], "group\tcosine\tpath\tclass\tnote", "groups"),
    ):
        picture = tmp_path / f"{words[0]}.html"
        assert call(monkeypatch, *words, "--picture", picture) == 0
        out, _ = capsys.readouterr()
        assert column in out.splitlines() and f"{photos / 'red' / '1.png'} (" in out
        assert "data:image/jpeg;base64," in picture.read_text("utf-8")
        assert call(monkeypatch, *words, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)[key]) > 0


# Pictures


def test_a_picture_is_bounded_and_says_what_is_left_out(tmp_path: Path) -> None:
    cells = [Cell(f"{number}.png", "0.9", lambda: Image.new("RGB", (300, 20))) for number in range(7)]
    sections = [Section(f"Group {number}", cells) for number in range(60)]
    text = contact_sheet.save(tmp_path / "a.html", "All", sections).read_text("utf-8")
    assert text.count("<img ") == contact_sheet.CELLS == 300
    assert "and 17 more that are not shown here" in text
    many = [Section(f"Group {number}", cells[:1]) for number in range(150)]
    assert contact_sheet.save(tmp_path / "b.html", "All", many).read_text("utf-8").count("<section>") == 100
    assert max(Image.open(contact_sheet.save(tmp_path / "c.jpg", "All", many)).size) < 65_500


def test_what_cannot_be_read_has_a_place_and_names_are_escaped(tmp_path: Path) -> None:
    sections = [Section("<b>", [Cell("<i>.png", "&", lambda: None)])]
    text = contact_sheet.save(tmp_path / "a.html", "T", sections).read_text("utf-8")
    assert "cannot be read" in text and "&lt;i&gt;.png" in text and "<b>" not in text
    assert contact_sheet.save(tmp_path / "a.png", "T", []).is_file()
    assert contact_sheet.save(tmp_path / "b.png", "T", sections).is_file()


@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("room", [0, 3, 4, 9, 10, 50])
def test_a_text_is_cut_to_its_room(room: int, keep_end: bool) -> None:
    found = fit("0123456789", room, len, keep_end=keep_end)
    assert len(found) <= max(room, 3)
    expected = (
        "0123456789"
        if room >= 10
        else {True: f"...{'0123456789'[13 - max(room, 3) :]}", False: f"{'0123456789'[: max(room, 3) - 3]}..."}[
            keep_end
        ]
    )
    assert found == expected


def test_thumbnails_keep_their_shape() -> None:
    assert contact_sheet.thumbnail(Image.new("L", (400, 100))).size == (128, 32)
    assert contact_sheet.thumbnail(Image.new("RGB", (8, 8))).size == (128, 128)
    assert contact_sheet.thumbnail(Image.new("RGB", (1000, 1))).size == (128, 1)
