"""``contralex report``: the page of real small runs, whole, escaped and bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import contralex
from contralex.errors import ContralexError
from contralex.reporting import limits
from tests.noise import noise
from tests.pages import Page, parse_page
from tests.train.tiny import TINY

HOSTILE = "<script>alert(1)<b>"
SECTIONS = ("summary", "curves", "views", "neighbours", "hard", "map", "confusion", "attention", "method", "spec")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small images in three classes, whose names and whose files' names are markup."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(60):
        path = folder / ("plain", "a & 'b' \"c\"", HOSTILE)[number % 3] / f"<i>{number}.png"
        path.parent.mkdir(exist_ok=True)
        picture = noise((36, 30), 60, number).convert("RGB")
        Image.blend(picture, Image.new("RGB", picture.size, ("red", "green", "blue")[number % 3]), 0.5).save(path)
    return folder


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> contralex.Run:
    sets = [*TINY[:-1], "eval.knn={k: 5}", "method.negatives.size=32", "train.batch_norm=sync"]
    out = tmp_path_factory.mktemp("runs") / "mo & co <b>"
    return contralex.train("moco-v2", preset="digits", data=photos, sets=sets, out=out)


@pytest.fixture(scope="module")
def report(run: contralex.Run) -> contralex.Report:
    return run.report()


@pytest.fixture(scope="module")
def page(report: contralex.Report) -> Page:
    return parse_page(report.path.read_text("utf-8"))


def data_of(page: Page, identity: str) -> Any:
    return json.loads(page.by_id(identity).text)


def check_page(page: Page) -> None:
    """What holds of every report: well-formed, nothing from elsewhere, a text for each picture, ids once each."""
    assert page.unclosed == []
    identities = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(set(identities)) == len(identities)
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = element.attributes.get(name, "")
            assert not value or value.startswith(("data:image/", "#")), (element.tag, name, value[:80])
        assert not any(name.startswith("on") for name in element.attributes)
    assert all(image.attributes["alt"] for image in page.all("img"))
    assert {each.attributes["href"][1:] for each in page.all("a")} <= set(identities)
    policy = next(each for each in page.all("meta") if "http-equiv" in each.attributes)
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_the_page_is_whole_and_has_every_section(report: contralex.Report, run: contralex.Run, page: Page) -> None:
    assert report.path == run.folder / "report.html"
    check_page(page)
    found = [element.attributes["id"] for element in page.all("section")]
    assert found == [*SECTIONS, "environment", "limits"]
    assert [link.attributes["href"][1:] for link in page.all("a")] == found
    style = page.all("style")[0].text
    assert "prefers-color-scheme: dark" in style and "@import" not in style and "url(" not in style


def test_names_of_classes_files_and_runs_are_text(page: Page, report: contralex.Report) -> None:
    text = report.path.read_text("utf-8")
    assert "<script>alert" not in text and "<i>1" not in text and "<b>" not in text
    assert len(page.all("script")) == 3
    found = data_of(page, "map-data")
    assert sorted(found["classes"]) == sorted({"plain", "a & 'b' \"c\"", HOSTILE})
    assert all("<i>" in name for name in found["names"])
    assert page.all("h1")[0].text.strip().startswith("mo & co <b>")
    assert any(HOSTILE in cell.text for cell in page.all("th"))


def test_curves_are_what_was_logged(page: Page, run: contralex.Run) -> None:
    charts = data_of(page, "curve-data")["charts"]
    logged = [line for line in run.metrics() if "loss" in line]
    assert charts["loss"]["series"][0]["y"] == pytest.approx([line["loss"] for line in logged], rel=1e-4)
    assert charts["lr"]["series"][0]["x"] == pytest.approx([line["epoch"] for line in logged], rel=1e-4)
    assert charts["knn_top1"]["series"][0]["y"] == pytest.approx([run.results["knn"]["this run"]["top1"]], rel=1e-4)
    drawn = [chart.attributes["data-chart"] for chart in page.all("svg", "chart")]
    assert drawn == list(charts) and {"loss", "lookup_top1", "effective_rank", "lr", "knn_top1"} <= set(drawn)


def test_the_map_holds_every_held_out_image(page: Page, report: contralex.Report, run: contralex.Run) -> None:
    found = data_of(page, "map-data")
    split = contralex.resolve(run.folder / "spec.yaml").run.data.build().test()
    assert found["count"] == len(split) == len(found["labels"]) == len(found["names"])
    assert found["labels"] == list(split.labels)
    assert [layer["how"] for layer in found["layers"]] == ["PCA"]
    assert report.data["images"]["held_out"] is True


def test_the_confusion_is_the_runs_knn(report: contralex.Report, run: contralex.Run) -> None:
    confusion = report.data["confusion"]["runs"][0]  # of all images, for there are few
    assert confusion["right"] / confusion["total"] == run.results["knn"]["this run"]["top1"]
    assert sum(map(sum, confusion["counts"])) == confusion["total"]


def test_neighbours_stand_before_and_after_training(report: contralex.Report, page: Page) -> None:
    queries = report.data["neighbours"]["queries"]
    assert 1 < len(queries) <= limits.QUERIES
    for query in queries:
        assert [answer["who"] for answer in query["answers"]] == [
            "mo & co <b>, before training",
            "mo & co <b>, after training",
        ]
        for answer in query["answers"]:
            cosines = [each["cosine"] for each in answer["found"]]
            assert len(cosines) == limits.NEIGHBOURS and cosines == sorted(cosines, reverse=True)
            assert all(each["same"] == (each["class"] == query["class"]) for each in answer["found"])


def test_what_a_run_cannot_give_is_a_sentence(page: Page, report: contralex.Report) -> None:
    assert "has no Vision Transformer" in page.by_id("attention").text
    assert any("has no Vision Transformer" in sentence for sentence in report.left_out)
    assert repr(report).startswith(f"Report in {report.path}, ")


def test_the_commands_make_the_run_and_the_report_again(report: contralex.Report, run: contralex.Run) -> None:
    train, again = report.data["commands"]
    assert train.startswith("contralex train ") and "spec.yaml" in train
    assert again == f"contralex report '{run.folder}' --images 2000"


def test_two_runs_share_charts_and_say_what_differs(run: contralex.Run, photos: Path, tmp_path: Path) -> None:
    other = contralex.train(
        "simclr-v1", preset="digits", data=photos, sets=[*TINY, "method.loss.temperature=0.3"], out=tmp_path / "other"
    )
    found = contralex.report([run, other], out=tmp_path / "both.html", images=20)
    page = parse_page(found.path.read_text("utf-8"))
    check_page(page)
    assert "differences" in [element.attributes["id"] for element in page.all("section")]
    rows = {row["path"]: row["values"] for row in found.data["differences"]}
    assert rows["method.loss.temperature"] == ["0.1", "0.3"]
    charts = data_of(page, "curve-data")["charts"]
    assert [series["run"] for series in charts["loss"]["series"]] == [0, 1]
    assert [layer["run"] for layer in data_of(page, "map-data")["layers"]] == ["mo & co <b>", "other"]
    assert found.data["images"]["bank"] == 20
    names = [element.text for element in page.all("text", "name") if element.text]
    assert {"mo & co <b>", "other"} == set(names)


def test_a_run_without_labels_or_held_out_images_has_a_map_and_neighbours(photos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))[:24]):
        (flat / f"{number}.png").write_bytes(path.read_bytes())
    found = contralex.train("byol", preset="digits", data=flat, sets=TINY, out=tmp_path / "run").report()
    page = parse_page(found.path.read_text("utf-8"))
    check_page(page)
    assert "have no labels" in page.by_id("confusion").text
    assert found.data["images"] == {"asked": 24, "asked_of": 24, "bank": 24, "bank_of": 24, "held_out": False}
    for query in found.data["neighbours"]["queries"]:
        assert all(each["name"] != query["name"] for answer in query["answers"] for each in answer["found"])
    assert "least like any other" in page.by_id("hard").text
    assert data_of(page, "map-data")["classes"] == []


@pytest.mark.parametrize("recipe", ["clip", "cmc", "mae", "dino"])
def test_a_method_of_several_towers_views_or_patches(recipe: str, tmp_path: Path) -> None:
    sets = ["train.max_steps=2", "train.log_every=1", "train.workers=0", "train.precision=fp32", "eval.knn=null"]
    run = contralex.train(recipe, preset="digits", sets=sets, out=tmp_path / "run")
    found = run.report(images=40)
    page = parse_page(found.path.read_text("utf-8"))
    check_page(page)
    assert "absent" not in found.data["views"][0] and "absent" not in found.data["map"]
    transformer = found.data["attention"]["runs"][0]
    if recipe == "mae":
        assert transformer["grid"] == [8, 8] and len(transformer["images"]) == limits.ATTENTION
        assert len(page.by_id("attention").text) > 100
    if recipe == "clip":
        assert "zero" in found.data["views"][0]["rows"][0]["cells"][1]["text"] or found.data["views"][0]["rows"]


def test_a_run_without_a_checkpoint_still_has_its_curves_and_spec(run: contralex.Run, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in ("spec.yaml", "metrics.jsonl"):
        (folder / name).write_bytes((run.folder / name).read_bytes())
    found = contralex.report(folder)
    page = parse_page(found.path.read_text("utf-8"))
    check_page(page)
    assert "loss" in data_of(page, "curve-data")["charts"]
    assert "not ended" in page.by_id("summary").text
    assert "absent" in found.data["map"] and found.left_out
    assert "rows" in found.data["views"][0] and "svg" in found.data["runs"][0]["picture"]
    assert "moco-v2" in page.by_id("spec").text


def test_signs_are_marked_where_they_happened(run: contralex.Run, tmp_path: Path) -> None:
    folder = tmp_path / "diverged"
    folder.mkdir()
    (folder / "spec.yaml").write_bytes((run.folder / "spec.yaml").read_bytes())
    losses = [1.0] * 10 + [9.0] * 30
    lines = [{"step": step, "epoch": step / 10, "loss": loss} for step, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    page = parse_page(contralex.report(folder).path.read_text("utf-8"))
    (sign,) = page.all("ol", "signs")
    assert "step 20" in sign.text and "training diverges" in sign.text
    assert [mark.text for mark in page.all("text", "sign-name")] == ["⚠1"]


def test_a_report_stays_small(report: contralex.Report) -> None:
    assert report.path.stat().st_size < 1_500_000
    text = report.path.read_text("utf-8")
    pictures = [len(uri) for uri in re.findall(r"data:image/[^\"]+", text)]
    assert max(pictures) < 60_000


def test_the_map_is_a_table_for_embedding_atlas(run: contralex.Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = contralex.report(run, out=tmp_path / "page.html")
    assert found.table == tmp_path / "page.parquet"
    rows = parquet.read_table(found.table).to_pylist()
    assert len(rows) == found.data["map"]["count"]
    assert set(rows[0]) == {"path", "projection_x", "projection_y", "neighbors", "image", "class"}
    assert len(rows[0]["neighbors"]["ids"]) == len(rows[0]["neighbors"]["distances"]) == limits.NEIGHBOURS
    assert all(number not in row["neighbors"]["ids"] for number, row in enumerate(rows))
    assert rows[0]["image"]["bytes"][:3] == b"\xff\xd8\xff"


def test_a_map_takes_the_place_of_a_map_and_of_no_other_file(run: contralex.Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    first, again = (contralex.report(run, out=tmp_path / "page.html", images=10) for _ in range(2))
    assert again.table == first.table and again.table is not None
    own = run.embed().save(tmp_path / "mine.parquet")
    for file in (own, tmp_path / "other.parquet"):
        file.exists() or file.write_text("of the user")
        before = file.read_bytes()
        with pytest.raises(ContralexError, match=rf"parquet is there already and is no.*\n.*{file.stem}-report\.html$"):
            contralex.report(run, out=file.with_suffix(".html"), images=10)
        assert file.read_bytes() == before and not file.with_suffix(".html").exists()


def test_without_pyarrow_there_is_a_page_alone(
    run: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contralex.api.feature_files.has_pyarrow", lambda: False)
    found = contralex.report(run, out=tmp_path / "page.html", images=10)
    assert found.table is None
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_command_prints_where_it_is(
    run: contralex.Run, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "page.html"
    code, printed, _ = call("report", str(run.folder), "--out", str(out), "--images", "10", "--json")
    found = json.loads(printed)
    assert code == 0 and found["report"] == str(out) and found["bytes"] == out.stat().st_size
    assert any("Vision Transformer" in sentence for sentence in found["left_out"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"out": "page.txt"}, "must end in .html"),
        ({"out": "nowhere/page.html"}, "there is no folder nowhere"),
        ({"images": 1}, "a map has 2 to 10,000 images"),
        ({"data": "nowhere"}, "nowhere"),
        ({"umap": True}, "contralex\\[umap\\]"),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing(
    options: dict[str, Any], sentence: str, run: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ContralexError, match=sentence):
        contralex.report(run, **{"out": "page.html", **options})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, run: contralex.Run) -> None:
    with pytest.raises(ContralexError, match="not a run's folder"):
        contralex.report(tmp_path)
    with pytest.raises(ContralexError, match="give a run's folder, or a list"):
        contralex.report([])
    with pytest.raises(ContralexError, match="shows 1 to 8 runs"):
        contralex.report([run] * 9, out=tmp_path / "page.html")
